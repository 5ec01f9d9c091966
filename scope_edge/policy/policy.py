"""From estimates to a choice: utility, limits, ties, and what another alpha would choose. Pure functions over columns.

`policy_pool` does once what depends on the pool alone; `decide` decides one query from that query's numbers only;
`choose_many` applies the same rule to a table of queries at one alpha.

    cost     what a query costs on a model: usd + seconds x value_of_time             costs.py
    alpha    what the knob means in a pool: how much accuracy a dollar must buy       alpha.py
    utility  p - lambda(alpha) x cost, or the paper's formula                         utility.py, policy_paper.py
    limits   what may be chosen at all, checked on upper bounds                       limits.py
    choice   the cheapest of those within 0.005 of the best utility; ties; unknowns   choice.py
    contest  who could still be chosen while p is not settled    contest.py
    flips    the nearest alphas that would choose another model                       flips.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.encoding.token_count import query_prompt_tokens
from scope_edge.policy.alternatives import flips
from scope_edge.policy.constraints import binding, check_preference, excluded_by
from scope_edge.policy.context import weigh
from scope_edge.policy.costs import PoolColumns, expected_costs
from scope_edge.policy.paper import AnchorStatistics, anchor_statistics
from scope_edge.policy.ranking import ranking, weighable
from scope_edge.policy.utility import PolicyPool, ScoredCandidates, policy_pool
from scope_edge.settings.validation import join_some
from scope_edge.types import Candidate, Estimates, ModelCard, PolicyDecision, PolicyName, Preference, Query, Slice

if TYPE_CHECKING:
    from scope_edge.encoding.token_count import PromptTokens
    from scope_edge.policy.constraints import Limit
    from scope_edge.policy.costs import Bools, Costs, Ints
    from scope_edge.types import Floats

__all__ = [
    "AnchorStatistics",
    "PolicyDecision",
    "PolicyPool",
    "PoolPolicy",
    "anchor_statistics",
    "choose_many",
    "decide",
    "expected_costs",
    "policy_pool",
]

# A warning names this many models; a pool may have a thousand.
_NAMED = 5


class PoolPolicy:
    """The policy of one pool, as the router knows it."""

    def __init__(self, pool: Sequence[ModelCard], prepared: PolicyPool) -> None:
        """`prepared`: `policy_pool` of the same cards."""
        self.pool = tuple(pool)
        self._prepared = prepared

    def decide(
        self, query: Query, estimates: Estimates, preference: Preference, slices: tuple[Slice, ...]
    ) -> PolicyDecision:
        """As `decide`, with the query's prompt tokens estimated from its text."""
        return decide(self._prepared, estimates, query_prompt_tokens(query), preference, slices)

    def contest(
        self, query: Query, preference: Preference, slices: tuple[Slice, ...]
    ) -> Callable[[Estimates, Floats, Floats], tuple[int, ...]]:
        """Who could still be chosen for this query, as a function of estimates and the ranges p may still take.

        See `contest.contenders`.
        """
        from scope_edge.policy.contenders import contenders

        prompt = query_prompt_tokens(query)

        def could_win(estimates: Estimates, low: Floats, high: Floats) -> tuple[int, ...]:
            return contenders(weigh(self._prepared, estimates, prompt, preference, slices), low, high)

        return could_win


def decide(
    pool: PolicyPool,
    estimates: Estimates,
    prompt: PromptTokens,
    preference: Preference,
    slices: Sequence[Slice] = (),
) -> PolicyDecision:
    """Decide one query.

    `estimates` has a row for each model of the pool, in its order. `slices` are read by the paper's policy alone, which
    without them goes by the predictions only. When nothing keeps to the limits, `feasible` is False and `bound` says why;
    `fallback="cheapest"` then still chooses, flagged `over_budget`, among what the user did not forbid and the context
    length can hold.

    Raises UsageError for an alpha or a budget out of range, ValueError for estimates of other models.
    """
    terms = weigh(pool, estimates, prompt, preference, slices)
    columns, costs, limits, allowed, weighed = pool.columns, terms.costs, terms.limits, terms.allowed, terms.weighed
    feasible = terms.feasible
    bound, warning = (None, None) if feasible else binding(limits)
    choices, utilities = weighed.choose(terms.alpha, allowed[None])
    chosen, utility = int(choices[0]), utilities[0]
    order = _led_by(chosen, ranking(columns, utility, weighed.p[0], costs.cost, allowed))
    below, above = flips(weighed, terms.alpha, chosen, allowed[None]) if feasible else (None, None)
    return PolicyDecision(
        choice=None if chosen < 0 else columns.models[chosen],
        where=None if chosen < 0 else columns.where[chosen],
        feasible=feasible,
        bound=bound,
        over_budget=not feasible and chosen >= 0,
        candidates=_candidates(columns, estimates, costs, utility, limits, order),
        flip_below=below,
        flip_above=above,
        warnings=tuple(_warnings(weighed, allowed, chosen, warning)),
    )


def choose_many(
    pool: PolicyPool,
    p: Floats,
    cost: Floats,
    alpha: float,
    *,
    policy: PolicyName = "scope-edge",
    anchors: AnchorStatistics | None = None,
    allowed: Bools | None = None,
) -> Ints:
    """Choose for a table of queries; each row is decided as `decide` would, whatever the others are.

    p, cost: shape (queries, models), NaN = unknown; `expected_costs` gives the cost. allowed: likewise, what limits leave to
    choose from; None = everything. Returns the chosen model's index in the pool, shape (queries,), -1 where nothing is
    allowed. Raises UsageError for an alpha outside [0, 1].
    """
    check_preference(Preference(alpha=alpha))
    if allowed is None:
        allowed = np.ones((1, len(pool.columns.models)), bool)
    return ScoredCandidates(pool, policy, p, cost, anchors).choose(alpha, allowed)[0]


def _led_by(chosen: int, order: Ints) -> Ints:
    """`order` with the choice, if any, in front: indifference may prefer it to a model of slightly higher utility."""
    return order if chosen < 0 else np.concatenate(([chosen], order[order != chosen]))


def _candidates(
    columns: PoolColumns, estimates: Estimates, costs: Costs, utility: Floats, limits: Sequence[Limit], order: Ints
) -> tuple[Candidate, ...]:
    rows = order.tolist()
    excluded, rationales = excluded_by(limits, len(rows)), estimates.rationales

    def picked(column: Sequence[Any]) -> Iterable[Any]:
        return map(column.__getitem__, rows)

    def numbers(column: Floats) -> list[float | None]:
        known = np.isfinite(column)
        if not known.all():
            column = column.astype(object)
            column[~known] = None
        values: list[float | None] = column[order].tolist()
        return values

    models = list(picked(columns.models))
    return tuple(
        map(
            Candidate,
            models,
            picked(columns.where),
            numbers(estimates.p_correct),
            numbers(estimates.p_low),
            numbers(estimates.p_high),
            numbers(estimates.tokens),
            numbers(estimates.tokens_hi),
            numbers(costs.prompt_tokens),
            numbers(costs.usd),
            numbers(costs.usd_hi),
            numbers(costs.seconds),
            numbers(utility),
            picked(estimates.evidence),
            picked(excluded),
            [rationales.get(model) for model in models] if rationales else repeat(None),
        )
    )


def _warnings(weighed: ScoredCandidates, allowed: Bools, chosen: int, notice: str | None) -> Iterator[str]:
    """What a user should know of the models that could be chosen."""
    columns, p = weighed.pool.columns, weighed.p[0]
    if notice is not None:
        yield notice
    if chosen >= 0 and np.isnan(p[chosen]):
        yield f"nothing measured could be chosen; how accurate {columns.models[chosen]} is, is not known"
    apart = allowed & ~weighable(p, weighed.cost[0])
    if apart.any():
        unpriced, unmeasured = np.isnan(columns.usd_in), np.isnan(p)
        rest = apart & ~unmeasured
        yield from _named(columns, rest & unpriced, "price unknown, ranked after every priced model")
        yield from _named(columns, rest & ~unpriced, _why_unknown(weighed.pool))
        yield from _named(columns, apart & unmeasured, "no fingerprint, ranked after every measured model")
    for model, why in weighed.pool.unloadable.items():
        yield f"{model} cannot be loaded: {why}"
    if weighed.pool.retired:
        yield f"retired, may no longer answer: {join_some(weighed.pool.retired, _NAMED)}"


def _why_unknown(pool: PolicyPool) -> str:
    what = "speed or tokens" if pool.value_of_time else "tokens"
    return f"{what} unknown and so the cost, ranked after every model of known cost"


def _named(columns: PoolColumns, among: Bools, what: str) -> Iterator[str]:
    models = [columns.models[index] for index in np.flatnonzero(among).tolist()]
    if models:
        yield f"{what}: {join_some(models, _NAMED)}"
