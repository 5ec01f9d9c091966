"""The hard limits of one decision: which models they rule out, and which limit bound when nothing is left.

Limits hold for upper bounds, so that a chosen model keeps to them nearly always. What is not known never keeps to a
budget. A context length is a fact, not a budget: an unknown one rules nothing out, and where the completion's length is
unknown the prompt alone is held against it.

`Candidate.excluded_by` and `Bound.limit` use these names only:
"exclude" (named by the user), "local_only" (a cloud model), "cannot_load" (its GGUF is not there, damaged, or does not fit the
machine), "context" (prompt + completion beyond the context length), "max_tokens", "max_usd", "max_seconds".
A model ruled out by several carries the first in this order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import UsageError
from scope_edge.types import BindingConstraint, Preference

if TYPE_CHECKING:
    from scope_edge.policy.costs import Bools, Costs, PoolColumns
    from scope_edge.types import Floats

BUDGETS = ("max_tokens", "max_usd", "max_seconds")
# What no fallback lifts: the user's word, what the machine cannot hold, and what a model cannot.
FORBIDDING = ("exclude", "local_only", "cannot_load", "context")
LIMITS = (*FORBIDDING, *BUDGETS)
# Those that have no size, what is easiest given up first.
_PLAIN = ("local_only", "exclude", "cannot_load")


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit that is in force.

    Attributes:
        value: what it is set to, per model (they differ for "context"); NaN where it is a plain yes or no.
        need: what each model would need of it; NaN = unknown, or a plain yes or no.
        broken: which models it rules out. All three have shape (models,).
    """

    name: str
    value: Floats
    need: Floats
    broken: Bools


def limits_in_force(
    pool: PoolColumns, costs: Costs, tokens_hi: Floats, preference: Preference, unloadable: Collection[str] = ()
) -> tuple[Limit, ...]:
    """The limits this decision is under, in the order of LIMITS. tokens_hi: shape (models,), own tokens.

    unloadable: models that cannot be loaded. Costs and tokens_hi may be of many queries, shape (queries, models): then so may
    what a limit rules out.
    """
    return tuple(_limits(pool, costs, tokens_hi, preference, unloadable))


def check_preference(preference: Preference) -> None:
    """Raises UsageError for an alpha outside [0, 1] or a budget that is negative or not a number."""
    if not 0.0 <= preference.alpha <= 1.0:
        raise UsageError(f"alpha must be from 0 (cheapest) to 1 (most accurate), not {preference.alpha}")
    budget = preference.budget
    for name, value in zip(BUDGETS, (budget.tokens, budget.usd, budget.seconds), strict=True):
        if value is not None and not value >= 0.0:
            raise UsageError(f"{name} must be 0 or more, not {value}")


def keeping(limits: Sequence[Limit], models: int | tuple[int, ...], names: Sequence[str] = LIMITS) -> Bools:
    """Which models keep to all of the named limits, shape (models,); or (queries, models) where that is given."""
    kept = np.ones(models, bool)
    for limit in limits:
        if limit.name in names:
            kept &= ~limit.broken
    return kept


def excluded_by(limits: Sequence[Limit], models: int) -> list[str | None]:
    """The first limit each model breaks, None for those that keep to all."""
    names: list[str | None] = [None] * models
    for limit in reversed(limits):
        for model in np.flatnonzero(limit.broken).tolist():
            names[model] = limit.name
    return names


def binding(limits: Sequence[Limit]) -> tuple[BindingConstraint, str | None]:
    """The limit to blame when every model breaks one, and a warning if lifting it alone would not help.

    Blamed is the limit that alone keeps some model out and would have to give way least: budgets by relative change,
    then a context length, then what has no size (local_only, exclude, cannot_load), last what no known value would satisfy.
    Where every model breaks several, it is the first one broken by a model that breaks the fewest.
    """
    broken = np.sum([limit.broken for limit in limits], axis=0)
    alone = [option for limit in limits for option in _ways_out(limit, limit.broken & (broken == 1))]
    if alone:
        return min(alone, key=lambda option: option[0])[1], None
    model = int(np.argmin(broken))
    blamed = [limit for limit in limits if limit.broken[model]]
    names = ", ".join(limit.name for limit in blamed)
    warning = f"lifting {blamed[0].name} alone is not enough: every model breaks several limits ({names})"
    return _bound(blamed[0], model), warning


def context_need(prompt_tokens_hi: Floats, tokens_hi: Floats) -> Floats:
    """Tokens of a context that a query takes at most; of the prompt alone where the completion's length is not known."""
    return np.where(np.isnan(tokens_hi), prompt_tokens_hi, prompt_tokens_hi + tokens_hi)


def _limits(
    pool: PoolColumns, costs: Costs, tokens_hi: Floats, preference: Preference, unloadable: Collection[str]
) -> Iterator[Limit]:
    unsized = np.full(len(pool.models), np.nan)
    if preference.exclude:
        yield Limit("exclude", unsized, unsized, _among(pool, frozenset(preference.exclude)))
    if preference.local_only:
        yield Limit("local_only", unsized, unsized, pool.cloud)
    if unloadable:
        yield Limit("cannot_load", unsized, unsized, _among(pool, unloadable))
    need, at_least = costs.prompt_tokens_hi + tokens_hi, context_need(costs.prompt_tokens_hi, tokens_hi)
    yield Limit("context", pool.context_tokens, at_least, at_least > pool.context_tokens)
    budget = preference.budget
    needs = (need, costs.usd_hi, costs.seconds_hi)
    for name, value, needed in zip(BUDGETS, (budget.tokens, budget.usd, budget.seconds), needs, strict=True):
        if value is not None:
            yield Limit(name, np.full_like(needed, value), needed, ~(needed <= value))


def _among(pool: PoolColumns, named: Collection[str]) -> Bools:
    return np.array([model in named for model in pool.models], bool)


def _ways_out(limit: Limit, only: Bools) -> Iterator[tuple[tuple[int, float], BindingConstraint]]:
    """For the models that break this limit only: (how hard it is to give way, the bound)."""
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
