"""From estimates to a choice. Pure functions over columns.

`utility.policy_pool` prepares a pool once; `decide` decides one query from that query's numbers only; `choose_many` applies
the same rule to a table of queries at one alpha.

    costs.py         cost of a query on a model: usd + seconds x value_of_time
    alpha.py         meaning of alpha in a pool: how much accuracy a dollar must buy
    constraints.py   the models that may be chosen at all, checked on upper bounds
    utility.py       p - lambda(alpha) x cost, or the formula of paper.py; the cheapest within slack of the best; ties
    contenders.py    the models that could still be chosen while p is uncertain
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.encoding.token_count import query_prompt_tokens
from scope_edge.policy.alpha import switches
from scope_edge.policy.constraints import binding, check_preference, excluded_by
from scope_edge.policy.costs import pool_columns
from scope_edge.policy.utility import PolicyPool, ScoredCandidates, decision_context, ranking, weighable
from scope_edge.settings.validation import join_some
from scope_edge.types import (
    AlphaSwitch,
    Candidate,
    Estimates,
    ModelCard,
    PolicyDecision,
    PolicyName,
    Preference,
    Query,
    Slice,
)

if TYPE_CHECKING:
    from scope_edge.encoding.token_count import PromptTokens
    from scope_edge.policy.constraints import Limit
    from scope_edge.policy.costs import Bools, Costs, Ints, PoolColumns
    from scope_edge.policy.paper import AnchorStatistics
    from scope_edge.types import Floats

# A warning names this many models; a pool may have a thousand.
_NAMED = 5


class PoolPolicy:
    """The policy of one pool, as the pipeline knows it."""

    def __init__(
        self,
        pool: Sequence[ModelCard],
        prepared: PolicyPool,
        speeds: Callable[[], Sequence[ModelCard] | None] = lambda: None,
    ) -> None:
        """prepared: `policy_pool` of the same cards. speeds: returns these with their speeds; None = as at its last call."""
        self.pool = tuple(pool)
        self._latest, self._speeds = prepared, speeds

    @property
    def _prepared(self) -> PolicyPool:
        """The pool at its latest speeds. What alpha means in it stays as it was."""
        cards = self._speeds()
        if cards is not None:
            self._latest = replace(self._latest, columns=pool_columns(cards))
        return self._latest

    def decide(
        self, query: Query, estimates: Estimates, preference: Preference, slices: tuple[Slice, ...]
    ) -> PolicyDecision:
        """Decide as `decide` does, with the query's prompt tokens estimated from its text."""
        return decide(self._prepared, estimates, query_prompt_tokens(query), preference, slices)

    def contest(
        self, query: Query, preference: Preference, slices: tuple[Slice, ...]
    ) -> Callable[[Estimates, Floats, Floats], tuple[int, ...]]:
        """Return `contenders` of this query as a function of estimates and the ranges p may still take."""
        from scope_edge.policy.contenders import contenders

        prompt = query_prompt_tokens(query)

        def could_win(estimates: Estimates, low: Floats, high: Floats) -> tuple[int, ...]:
            return contenders(decision_context(self._prepared, estimates, prompt, preference, slices), low, high)

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
    without them uses the predictions only. When no model keeps to the limits, `feasible` is False and `bound` says why;
    `fallback="cheapest"` then still chooses, flagged `over_budget`, among the models that the user did not forbid and whose
    context length suffices.

    Raises UsageError for an alpha or a budget out of range, ValueError for estimates of other models.
    """
    context = decision_context(pool, estimates, prompt, preference, slices)
    columns, scored, allowed, feasible = pool.columns, context.scored, context.allowed, context.feasible
    bound, notice = (None, None) if feasible else binding(context.limits)
    choices, utilities = scored.choose(context.alpha, allowed[None])
    chosen, utility = int(choices[0]), utilities[0]
    order = ranking(columns, utility, scored.p[0], context.costs.cost, allowed)
    if chosen >= 0:
        # The choice leads: indifference may prefer it to a model of slightly higher utility.
        order = np.concatenate(([chosen], order[order != chosen]))
    below, above = _flips(scored, context.alpha, chosen, allowed[None]) if feasible else (None, None)
    return PolicyDecision(
        choice=None if chosen < 0 else columns.models[chosen],
        where=None if chosen < 0 else columns.where[chosen],
        feasible=feasible,
        bound=bound,
        over_budget=not feasible and chosen >= 0,
        candidates=_candidates(columns, estimates, context.costs, utility, context.limits, order),
        flip_below=below,
        flip_above=above,
        warnings=tuple(_warnings(scored, allowed, chosen, notice, estimates)),
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

    p, cost: shape (queries, models), NaN = unknown; see `expected_costs`. allowed: likewise, the models within the limits;
    None = all. Returns the chosen model's index in the pool, shape (queries,), -1 where nothing is allowed. Raises
    UsageError for an alpha outside [0, 1].
    """
    check_preference(Preference(alpha=alpha))
    if allowed is None:
        allowed = np.ones((1, len(pool.columns.models)), bool)
    return ScoredCandidates(pool, policy, p, cost, anchors).choose(alpha, allowed)[0]


def _candidates(
    columns: PoolColumns, estimates: Estimates, costs: Costs, utility: Floats, limits: Sequence[Limit], order: Ints
) -> tuple[Candidate, ...]:
    """Return one row a model, in `order`: built column by column, for pools of a thousand models."""
    rows, rationales = order.tolist(), estimates.rationales

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
    predicted = (estimates.p_correct, estimates.p_low, estimates.p_high, estimates.tokens, estimates.tokens_hi)
    priced = (costs.prompt_tokens, costs.usd, costs.usd_hi, costs.seconds)
    in_order = (  # the order of Candidate's fields
        models,
        picked(columns.where),
        *map(numbers, (*predicted, *priced, utility)),
        picked(estimates.evidence),
        picked(excluded_by(limits, len(rows))),
        [rationales.get(model) for model in models] if rationales else repeat(None),
    )
    return tuple(map(Candidate, *in_order))


def _warnings(
    scored: ScoredCandidates, allowed: Bools, chosen: int, notice: str | None, estimates: Estimates
) -> Iterator[str]:
    pool, columns, p = scored.pool, scored.pool.columns, scored.p[0]
    if notice is not None:
        yield notice
    if chosen >= 0 and np.isnan(p[chosen]):
        yield f"no measured model could be chosen; the accuracy of {columns.models[chosen]} is unknown"
    elif chosen >= 0 and estimates.evidence[chosen] == "none":
        model = columns.models[chosen]
        yield f"{model} was never measured: its numbers are an average model's; `scope-edge fingerprint {model}` measures it"
    apart = allowed & ~weighable(p, scored.cost[0])
    if apart.any():
        unpriced, unmeasured = np.isnan(columns.usd_in), np.isnan(p)
        rest, unknown = apart & ~unmeasured, "speed or tokens" if pool.value_of_time else "tokens"
        yield from _named(columns, rest & unpriced, "price unknown, ranked after every priced model")
        why = f"{unknown} unknown and so the cost, ranked after every model of known cost"
        yield from _named(columns, rest & ~unpriced, why)
        yield from _named(columns, apart & unmeasured, "accuracy unknown, ranked after every other model")
    for model, why in pool.unloadable.items():
        yield f"{model} cannot be loaded: {why}"
    if pool.retired:
        yield f"retired, may no longer answer: {join_some(pool.retired, _NAMED)}"


def _named(columns: PoolColumns, among: Bools, what: str) -> Iterator[str]:
    models = [columns.models[index] for index in np.flatnonzero(among).tolist()]
    if models:
        yield f"{what}: {join_some(models, _NAMED)}"


# The nearest alphas below and above at which the policy would choose another model.
#
# They are multiples of 0.001, so that a user can type them in: at a switch's alpha the choice is the named model, and at every
# multiple between it and the present alpha it is the present choice.

_STEPS = 1000
_CELLS = 8192  # alphas x models scored in one go


def _flips(
    scored: ScoredCandidates, alpha: float, chosen: int, allowed: Bools
) -> tuple[AlphaSwitch | None, AlphaSwitch | None]:
    """Return (below, above) for one query: `scored`, `allowed` have shape (1, models), `chosen` is the choice at `alpha`."""
    movable = np.flatnonzero(allowed[0] & weighable(scored.p[0], scored.cost[0]))
    if len(movable) < 2:
        return None, None
    below, above = range(math.ceil(alpha * _STEPS) - 1, -1, -1), range(math.floor(alpha * _STEPS) + 1, _STEPS + 1)
    if scored.policy == "paper":
        return _scan(scored, below, chosen, allowed), _scan(scored, above, chosen, allowed)
    # A cheaper model takes over at its floor, the chosen one gives way below its own: see `Switches`.
    curve, lam = scored.pool.curve, scored.pool.curve.lambda_at(alpha)
    floors = switches(scored.p[0, movable, None], scored.cost[0, movable, None], curve.toll).floor
    now = int(np.argmax(floors <= lam))
    down = _nearby(curve.alpha_at(float(floors[now - 1])), below) if now else ()
    up = _nearby(curve.alpha_at(float(floors[now])), above) if floors[now] > 0.0 else ()
    return _first_change(scored, down, chosen, allowed), _first_change(scored, up, chosen, allowed)


def _first_change(scored: ScoredCandidates, steps: Iterable[int], chosen: int, allowed: Bools) -> AlphaSwitch | None:
    for step in steps:
        found = int(scored.choose(step / _STEPS, allowed)[0][0])
        if found != chosen:
            return AlphaSwitch(step / _STEPS, scored.pool.columns.models[found])
    return None


def _nearby(boundary: float, steps: range) -> range:
    """Return the two steps around the exact alpha of a switch: rounding leaves open which of them is beyond it."""
    nearest = round(boundary * _STEPS)
    start = max(steps.start, nearest) if steps.step > 0 else min(steps.start, nearest)
    return range(start, steps.stop, steps.step)[:2]


def _scan(scored: ScoredCandidates, steps: range, chosen: int, allowed: Bools) -> AlphaSwitch | None:
    """Try every step, nearest first: under the paper's formula a choice may come back, so none can be skipped."""
    chunk = max(1, _CELLS // len(scored.pool.columns.models))
    for start in range(0, len(steps), chunk):
        tried = steps[start : start + chunk]
        found, _ = scored.choose(np.array(tried)[:, None] / _STEPS, allowed)
        for step, model in zip(tried, found.tolist(), strict=True):
            if model != chosen:
                return AlphaSwitch(step / _STEPS, scored.pool.columns.models[model])
    return None
