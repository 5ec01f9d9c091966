"""What a policy ranks by: `p - lambda(alpha) x cost`, or the paper's formula; and the choice that follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.catalog.cards import is_retired
from scope_edge.errors import UsageError
from scope_edge.policy.alpha import INDIFFERENCE, AlphaCurve, alpha_curve
from scope_edge.policy.costs import PoolColumns, expected_costs, pool_columns
from scope_edge.policy.paper import AnchorStatistics, CostRange, cost_range, paper_utility
from scope_edge.policy.ranking import choose
from scope_edge.types import ModelCard, PolicyName

if TYPE_CHECKING:
    from scope_edge.policy.costs import Bools, Ints
    from scope_edge.types import Floats


@dataclass(frozen=True, slots=True)
class PolicyPool:
    """What the policy knows of a pool before it sees a query.

    Attributes:
        curve: what alpha means here. span: the paper's cost range. value_of_time: US dollars per second.
        retired: models of the pool that can no longer be called. unloadable: those that cannot be loaded here -> why.
    """

    columns: PoolColumns
    curve: AlphaCurve
    span: CostRange
    value_of_time: float
    retired: tuple[str, ...]
    unloadable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScoredCandidates:
    """Queries whose p and cost on every model are known as far as they ever will be: ready for any alpha.

    p, cost: shape (queries, models), NaN = unknown. anchors: for the paper's policy only.
    """

    pool: PolicyPool
    policy: PolicyName
    p: Floats
    cost: Floats
    anchors: AnchorStatistics | None = None

    def choose(self, alpha: Floats | float, allowed: Bools) -> tuple[Ints, Floats]:
        """The chosen model of every query, shape (queries,), -1 where nothing is allowed; and what they are ranked by.

        The latter is the utility, shape (queries, models), or at alpha 0, where lambda is infinite, the negated cost.
        The paper's formula also takes many alphas for one query: shape (alphas, 1) gives (alphas,) and (alphas, models).
        allowed: shape (queries, models), or (1, models) for all.
        """
        slack = 0.0
        if self.policy == "paper":
            utility = paper_utility(alpha, self.p, self.cost, self.pool.span, self.anchors)
        elif math.isinf(lam := self.pool.curve.lambda_at(float(alpha))):
            # A model that was never measured is not weighed, whatever it costs.
            utility = np.where(np.isnan(self.p), np.nan, -self.cost)
        else:
            utility, slack = self.p - lam * self.cost, INDIFFERENCE
        return choose(self.pool.columns, utility, slack, self.p, self.cost, allowed), utility


def policy_pool(
    cards: Sequence[ModelCard], p: Floats, tokens: Floats, prompt_tokens: Floats, *, value_of_time: float = 0.0
) -> PolicyPool:
    """Prepare a pool. The reference anchors say what alpha means in it: see `alpha_curve`.

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
