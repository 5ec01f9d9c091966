"""The hard limits of one decision: the models they rule out, and the limit that bound when no model is left.

Limits hold for upper bounds, so that a chosen model keeps to them nearly always. An unknown value never keeps to a budget.
A context length is a fact, not a budget: an unknown one rules nothing out, and where the completion's length is unknown the
prompt alone is compared with it.

`Candidate.excluded_by` and `BindingConstraint.limit` use these names only, and a model ruled out by several carries the first:
"exclude" (named by the user), those of `Preference.left_out`, "local_only" (a cloud model), "cannot_load" (its GGUF is missing,
damaged, or too large for the machine), "context" (prompt + completion beyond the context length), "max_tokens", "max_usd",
"max_seconds".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from scope_edge.errors import UsageError
from scope_edge.types import BindingConstraint, Budget, LeftOut, Preference

if TYPE_CHECKING:
    from scope_edge.policy.costs import Bools, Costs, PoolColumns
    from scope_edge.types import Floats

BUDGETS = ("max_tokens", "max_usd", "max_seconds")
# Limits without a size, the easiest to give up first.
_PLAIN = ("local_only", "exclude", "cannot_load")
_LEFT_OUT: tuple[str, ...] = get_args(LeftOut)


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit that is in force.

    Attributes:
        value: its setting, per model (they differ for "context"); NaN for a plain yes or no.
        need: the value each model would need; NaN = unknown, or a plain yes or no.
        broken: the models it rules out. All three have shape (models,).
        firm: no fallback lifts it.
    """

    name: str
    value: Floats
    need: Floats
    broken: Bools
    firm: bool = True


def limits_in_force(
    pool: PoolColumns, costs: Costs, tokens_hi: Floats, preference: Preference, unloadable: Collection[str] = ()
) -> tuple[Limit, ...]:
    """Return the limits of this decision, in the order above. tokens_hi: shape (models,), own tokens.

    unloadable: models that cannot be loaded. Costs and tokens_hi may be of many queries, shape (queries, models); so is then
    what a limit rules out.
    """
    unsized = np.full(len(pool.models), np.nan)
    limits = []
    if preference.exclude:
        limits.append(Limit("exclude", unsized, unsized, np.isin(pool.models, preference.exclude)))
    for name in _LEFT_OUT:
        if models := [model for model, why in preference.left_out if why == name]:
            limits.append(Limit(name, unsized, unsized, np.isin(pool.models, models)))
    if preference.local_only:
        limits.append(Limit("local_only", unsized, unsized, pool.cloud))
    if unloadable:
        limits.append(Limit("cannot_load", unsized, unsized, np.isin(pool.models, list(unloadable))))
    need, at_least = costs.prompt_tokens_hi + tokens_hi, context_need(costs.prompt_tokens_hi, tokens_hi)
    limits.append(Limit("context", pool.context_tokens, at_least, at_least > pool.context_tokens))
    needs = (need, costs.usd_hi, costs.seconds_hi)
    for name, needed, value, most in zip(
        BUDGETS, needs, _values(preference.budget), _values(preference.ceiling), strict=True
    ):
        # A budget that is the ceiling itself is one limit, not two.
        for size, firm in {value: value == most, most: True}.items():
            if size is not None:
                limits.append(Limit(name, np.full_like(needed, size), needed, ~(needed <= size), firm))
    return tuple(limits)


def _values(budget: Budget) -> tuple[float | None, ...]:
    """Return the values of BUDGETS."""
    return budget.tokens, budget.usd, budget.seconds


def check_preference(preference: Preference) -> None:
    """Raise UsageError for an alpha outside [0, 1] or a budget that is negative or not a number."""
    if not 0.0 <= preference.alpha <= 1.0:
        raise UsageError(f"alpha must be from 0 (cheapest) to 1 (most accurate), not {preference.alpha}")
    for name, value in zip(BUDGETS, _values(preference.budget), strict=True):
        if value is not None and not value >= 0.0:
            raise UsageError(f"{name} must be 0 or more, not {value}")


def keeping(limits: Sequence[Limit], models: int | tuple[int, ...], *, firm_only: bool = False) -> Bools:
    """Mark the models that keep to all limits, or to those that no fallback lifts.

    models: the shape, (models,) or (queries, models).
    """
    kept = np.ones(models, bool)
    for limit in limits:
        if limit.firm or not firm_only:
            kept &= ~limit.broken
    return kept


def excluded_by(limits: Sequence[Limit], models: int) -> list[str | None]:
    """Return the first limit each model breaks, None for a model that keeps to all."""
    names: list[str | None] = [None] * models
    for limit in reversed(limits):
        for model in np.flatnonzero(limit.broken).tolist():
            names[model] = limit.name
    return names


def binding(limits: Sequence[Limit]) -> tuple[BindingConstraint, str | None]:
    """Return the limit to blame when every model breaks one, and a warning if lifting it alone would not help.

    It is the limit that alone keeps some model out and would have to give way least: budgets by relative change, then a
    context length, then limits without a size (local_only, exclude, cannot_load), last a limit that no known value would
    satisfy. Where every model breaks several, it is the first one broken by a model that breaks the fewest. Models that are
    left out whatever the limits are blamed on none, unless there are no others.
    """
    broken = np.sum([limit.broken for limit in limits], axis=0)
    left_out = ~keeping([limit for limit in limits if limit.name in _LEFT_OUT], len(broken))
    if left_out.all():
        return BindingConstraint(next(limit.name for limit in limits if limit.name in _LEFT_OUT), None, None), None
    broken = np.where(left_out, len(limits) + 1, broken)
    alone = [option for limit in limits for option in _ways_out(limit, limit.broken & (broken == 1))]
    if alone:
        return min(alone, key=lambda option: option[0])[1], None
    model = int(np.argmin(broken))
    blamed = [limit for limit in limits if limit.broken[model]]
    names = ", ".join(limit.name for limit in blamed)
    warning = f"lifting {blamed[0].name} alone is not enough: every model breaks several limits ({names})"
    return _bound(blamed[0], model), warning


def context_need(prompt_tokens_hi: Floats, tokens_hi: Floats) -> Floats:
    """Return the context tokens a query takes at most; of the prompt alone where the completion's length is unknown."""
    return np.where(np.isnan(tokens_hi), prompt_tokens_hi, prompt_tokens_hi + tokens_hi)


def _ways_out(limit: Limit, only: Bools) -> Iterator[tuple[tuple[int, float], BindingConstraint]]:
    """Yield, for the models that break this limit only, how hard it is to give way, and the constraint."""
    models = np.flatnonzero(only)
    if not models.size:
        return
    if limit.name in _PLAIN:
        yield (2, float(_PLAIN.index(limit.name))), _bound(limit, int(models[0]))
        return
    need, value = limit.need[models], limit.value[models]
    with np.errstate(divide="ignore", over="ignore"):
        change = np.where(np.isfinite(need), need / value, math.inf)
    best = int(np.lexsort((need, change))[0])
    hard = int(limit.name == "context") if math.isfinite(need[best]) else 3
    yield (hard, float(change[best])), _bound(limit, int(models[best]))


def _bound(limit: Limit, model: int) -> BindingConstraint:
    value, need = float(limit.value[model]), float(limit.need[model])
    whole = limit.name in ("max_tokens", "context")
    needed = None if not math.isfinite(need) else float(math.ceil(need)) if whole else need
    return BindingConstraint(limit.name, None if math.isnan(value) else value, needed)
