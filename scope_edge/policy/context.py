"""""" """"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.policy.constraints import FORBIDDING, check_preference, keeping, limits_in_force
from scope_edge.policy.costs import query_costs
from scope_edge.policy.paper import anchor_statistics
from scope_edge.policy.utility import PolicyPool, ScoredCandidates
from scope_edge.types import Estimates, Preference, Slice

if TYPE_CHECKING:
    from scope_edge.encoding.token_count import PromptTokens
    from scope_edge.policy.constraints import Limit
    from scope_edge.policy.costs import Bools, Costs
    from scope_edge.types import Floats


@dataclass(frozen=True, slots=True)
class DecisionContext:
    """What one query is decided on.

    Attributes:
        costs, limits: of every model. allowed: shape (models,), what may be chosen; feasible: some model keeps to all limits.
        alpha: the preference's, or 0 where a fallback takes over. weighed: the query's one row of p and cost.
    """

    costs: Costs
    limits: tuple[Limit, ...]
    allowed: Bools
    feasible: bool
    alpha: float
    weighed: ScoredCandidates


def weigh(
    pool: PolicyPool,
    estimates: Estimates,
    prompt: PromptTokens,
    preference: Preference,
    slices: Sequence[Slice] = (),
) -> DecisionContext:
    """What one query is decided on; arguments and errors as in `decide`."""
    check_preference(preference)
    columns, size = pool.columns, len(pool.columns.models)
    if estimates.models != columns.models:
        raise ValueError("these estimates are not those of this pool's models, in its order")
    costs = query_costs(columns, estimates.tokens, estimates.tokens_hi, prompt, pool.value_of_time)
    limits = limits_in_force(columns, costs, estimates.tokens_hi, preference, pool.unloadable)
    allowed = keeping(limits, size)
    feasible, alpha, policy = bool(allowed.any()), preference.alpha, preference.policy
    if not feasible and preference.fallback == "cheapest":
        allowed, alpha, policy = keeping(limits, size, FORBIDDING), 0.0, "scope-edge"
    anchors = None
    if policy == "paper" and slices:
        anchors = anchor_statistics(columns, slices, prompt.expected, pool.value_of_time)
    weighed = ScoredCandidates(pool, policy, _measured(estimates)[None], costs.cost[None], anchors)
    return DecisionContext(costs, limits, allowed, feasible, alpha, weighed)


def _measured(estimates: Estimates) -> Floats:
    """p, unknown for models without evidence whatever an estimator may have put there."""
    if "none" not in estimates.evidence:
        return estimates.p_correct
    return np.where([evidence == "none" for evidence in estimates.evidence], np.nan, estimates.p_correct)
