"""The score of every model, and the choice that follows from it.

A policy scores by `p - lambda(alpha) x cost`, or by the paper's formula. The rule of order, for one query or many: first
come the models whose p and cost are both known; of those within `slack` of the best score the cheapest is chosen, and ties go
to the higher p, then to the device, then to pool order. After them come measured models of unknown cost, by p, and last the
unmeasured ones, by price, since nothing else is known of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.catalog.cards import is_retired
from scope_edge.errors import UsageError
from scope_edge.policy.alpha import INDIFFERENCE, AlphaCurve, alpha_curve
from scope_edge.policy.constraints import check_preference, keeping, limits_in_force
from scope_edge.policy.costs import PoolColumns, expected_costs, pool_columns, query_costs
from scope_edge.policy.paper import AnchorStatistics, CostRange, anchor_statistics, cost_range, paper_utility
from scope_edge.types import Estimates, ModelCard, PolicyName, Preference, Slice

if TYPE_CHECKING:
    from scope_edge.encoding.token_count import PromptTokens
    from scope_edge.policy.constraints import Limit
    from scope_edge.policy.costs import Bools, Costs, Ints
    from scope_edge.types import Floats


@dataclass(frozen=True, slots=True)
class PolicyPool:
    """A pool as the policy knows it before any query.

    Attributes:
        curve: the meaning of alpha here. span: the paper's cost range. value_of_time: US dollars per second.
        retired: models of the pool that can no longer be called. unloadable: models that cannot be loaded here -> why.
    """

    columns: PoolColumns
    curve: AlphaCurve
    span: CostRange
    value_of_time: float
    retired: tuple[str, ...]
    unloadable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScoredCandidates:
    """Queries with their p and cost on every model, ready for any alpha.

    p, cost: shape (queries, models), NaN = unknown. anchors: for the paper's policy only.
    """

    pool: PolicyPool
    policy: PolicyName
    p: Floats
    cost: Floats
    anchors: AnchorStatistics | None = None

    def choose(self, alpha: Floats | float, allowed: Bools) -> tuple[Ints, Floats]:
        """Return the chosen model of every query, shape (queries,), -1 where nothing is allowed; and the scores.

        A score is the utility, shape (queries, models), or at alpha 0, where lambda is infinite, the negated cost.
        The paper's formula also takes many alphas for one query: shape (alphas, 1) gives (alphas,) and (alphas, models).
        allowed: shape (queries, models), or (1, models) for all.
        """
        slack = 0.0
        if self.policy == "paper":
            utility = paper_utility(alpha, self.p, self.cost, self.pool.span, self.anchors)
        elif math.isinf(lam := self.pool.curve.lambda_at(float(alpha))):
            # A model that was never measured has no score, whatever it costs.
            utility = np.where(np.isnan(self.p), np.nan, -self.cost)
        else:
            utility, slack = self.p - lam * self.cost, INDIFFERENCE + lam * self.pool.curve.toll
        return choose(self.pool.columns, utility, slack, self.p, self.cost, allowed), utility


def policy_pool(
    cards: Sequence[ModelCard], p: Floats, tokens: Floats, prompt_tokens: Floats, *, value_of_time: float = 0.0
) -> PolicyPool:
    """Prepare a pool. The reference anchors determine the meaning of alpha in it: see `alpha_curve`.

    Args:
        cards: the pool, in order.
        p, tokens: shape (models, anchors), estimates on reference anchors, tokens in the model's own; NaN = unknown.
        prompt_tokens: shape (anchors,), of the anchors' texts, cl100k.
        value_of_time: US dollars that a second of waiting is worth.

    Raises UsageError when there are no cards.
    """
    if not cards:
        raise UsageError("the pool is empty; put at least one model in it")
    columns = pool_columns(cards)
    cost = expected_costs(columns, tokens.T, prompt_tokens, value_of_time).T
    return PolicyPool(
        columns=columns,
        curve=alpha_curve(p, cost),
        span=cost_range(np.where(np.isnan(p), np.nan, cost)),
        value_of_time=value_of_time,
        retired=tuple(card.id for card in cards if is_retired(card)),
    )


@dataclass(frozen=True, slots=True)
class DecisionContext:
    """Everything one query is decided on.

    Attributes:
        costs, limits: of every model. allowed: shape (models,), the models that may be chosen.
        feasible: some model keeps to all limits. alpha: the preference's, or 0 where a fallback takes over.
        scored: the query's one row of p and cost.
    """

    costs: Costs
    limits: tuple[Limit, ...]
    allowed: Bools
    feasible: bool
    alpha: float
    scored: ScoredCandidates


def decision_context(
    pool: PolicyPool,
    estimates: Estimates,
    prompt: PromptTokens,
    preference: Preference,
    slices: Sequence[Slice] = (),
) -> DecisionContext:
    """Make the context of one query; arguments and errors as in `policy.decide`."""
    check_preference(preference)
    columns, size = pool.columns, len(pool.columns.models)
    if estimates.models != columns.models:
        raise ValueError("these estimates are not those of this pool's models, in its order")
    costs = query_costs(
        columns, estimates.tokens, estimates.tokens_hi, (prompt.expected, prompt.high), pool.value_of_time
    )
    limits = limits_in_force(columns, costs, estimates.tokens_hi, preference, pool.unloadable)
    allowed = keeping(limits, size)
    feasible, alpha, policy = bool(allowed.any()), preference.alpha, preference.policy
    if not feasible and preference.fallback == "cheapest":
        allowed, alpha, policy = keeping(limits, size, firm_only=True), 0.0, "scope-edge"
    anchors = None
    if policy == "paper" and slices:
        anchors = anchor_statistics(columns, slices, prompt.expected, pool.value_of_time)
    scored = ScoredCandidates(pool, policy, estimates.p_correct[None], costs.cost[None], anchors)
    return DecisionContext(costs, limits, allowed, feasible, alpha, scored)


def weighable(p: Floats, cost: Floats) -> Bools:
    """Mark the candidates whose p and cost are both known."""
    return np.isfinite(p) & np.isfinite(cost)


def choose(pool: PoolColumns, score: Floats, slack: float, p: Floats, cost: Floats, allowed: Bools) -> Ints:
    """Return the chosen model of every query: index in the pool, shape (queries,), -1 where nothing is allowed.

    Each query is decided on its own row alone. `score`, `p`, `cost`, `allowed`: shape (queries, models), or (1, models)
    if all queries share it; where `p` or `cost` is NaN the score is ignored.
    """
    near = weighable(p, cost) & allowed & np.ones(score.shape, bool)
    known = near.any(axis=1)
    score = np.where(near, score, -np.inf)
    near &= score >= score.max(axis=1, keepdims=True) - slack
    cheap = np.where(near, cost, np.inf)
    near &= cheap == cheap.min(axis=1, keepdims=True)
    best = np.where(near, p, -np.inf)
    near &= best == best.max(axis=1, keepdims=True)
    chosen = _first(near, pool.tie_rank)
    return chosen if known.all() else np.where(known, chosen, _unweighed(pool, p, allowed, score.shape))


def ranking(pool: PoolColumns, score: Floats, p: Floats, cost: Floats, allowed: Bools) -> Ints:
    """Rank all models of one query, best first: the allowed ones, then the others. All arguments: shape (models,).

    The order is that of `choose` with no slack.
    """
    known = weighable(p, cost)
    group = np.where(known, 0, np.where(np.isnan(p), 2, 1)) + np.where(allowed, 0, 3)
    key = np.where(known, -score, np.where(np.isnan(p), pool.price_rank, -p))
    return np.lexsort((pool.tie_rank, -p, cost, key, group))


def _unweighed(pool: PoolColumns, p: Floats, allowed: Bools, shape: tuple[int, ...]) -> Ints:
    """Choose where no allowed model has both p and cost."""
    allowed = np.broadcast_to(allowed, shape)
    measured = allowed & ~np.isnan(p)
    best = np.where(measured, p, -np.inf)
    measured &= best == best.max(axis=1, keepdims=True)
    by_price = _first(allowed, pool.price_rank)
    return np.where(measured.any(axis=1), _first(measured, pool.tie_rank), by_price)


def _first(among: Bools, rank: Ints) -> Ints:
    """Return the index with the smallest rank of each row of `among`; -1 for a row without any."""
    ranks = np.where(among, rank, len(rank))
    return np.where(among.any(axis=1), ranks.argmin(axis=1), -1)
