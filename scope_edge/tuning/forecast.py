"""What a pool is expected to do at every alpha, from fingerprints alone.

Expected values over queries whose outcome nobody knows: the policy chooses for each as `route` would, and what it chose is
taken to be right with its calibrated p and to spend its mean tokens. Nothing is run and no label is looked at.

The choice is made by the same p that it is judged by, so it prefers models that are overrated on that query. What tells
models of like ability apart on one query are traits read off its embedding, and those are blurred: `believed` trusts them
less when a choice is judged than when it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.policy.constraints import FORBIDDING, LIMITS, keeping, limits_in_force
from scope_edge.policy.costs import expected_costs, query_costs
from scope_edge.policy.policy import choose_many

if TYPE_CHECKING:
    from scope_edge.estimation.difficulty import MapPositions
    from scope_edge.estimation.irt import EstimateTable, IrtEstimator
    from scope_edge.policy.costs import Bools, Ints, PoolColumns
    from scope_edge.policy.utility import PolicyPool
    from scope_edge.types import Floats, PolicyName, Preference

# How much of what traits say of the difference between two models on a query came true, among models within 10 points of
# each other, on models and queries that nothing was fitted on: 0.58 to 0.86 (build_scripts/measure_tuning.py).
_TRAITS_TRUE = 0.7
# Expectations of held-out models scattered so much wider around what came than posteriors of abilities say (same script).
_WIDER = 1.3
# Draws from the posteriors of abilities: the standard error they give is itself known to an eighth.
DRAWS = 32


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of choices, a query on average. Errors are standard errors, None where they were not asked for.

    Attributes:
        accuracy: share right. usd: US dollars; None when a chosen model has no price. tokens: prompt and completion, own.
        device_share: of queries that stay on the device. portfolio: share of queries of every model that gets any.
        unserved: share of queries for which nothing keeps to the limits; the rest is about the others.
    """

    accuracy: float
    usd: float | None
    tokens: float | None
    device_share: float
    portfolio: dict[str, float]
    unserved: float = 0.0
    accuracy_error: float | None = None
    usd_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast(Expected):
    """What is expected at one alpha."""

    alpha: float


@dataclass(frozen=True, slots=True, eq=False)
class Prospect:
    """q queries of unknown outcome, as n models are expected to do on them, a pool's first; arrays (q, n).

    Attributes:
        columns, table: of the n models, and the estimates choices are made by. prompt_tokens: (q,) cl100k.
        believed: P(correct) a choice is judged by. usd: mean cost: spending adds up by the mean, while the policy weighs the
            median, which is a better guess of one call. draws: these two, with abilities as they may also be.
        allowed: (q, pool) what limits leave to choose from. unlimited: what they do when a fallback lifts those of a budget.
    """

    columns: PoolColumns
    table: EstimateTable
    prompt_tokens: Floats
    believed: Floats
    usd: Floats
    draws: Sequence[tuple[Floats, Floats]] = ()
    allowed: Bools | None = None
    unlimited: Bools | None = None


def forecast_query(
    pool: PolicyPool, prospect: Prospect, alphas: Sequence[float], policy: PolicyName = "scope-edge"
) -> tuple[Forecast, ...]:
    """What is expected at every alpha, each in [0, 1]."""
    return tuple(foreseen(alpha, expected(prospect, choices(pool, prospect, alpha, policy))) for alpha in alphas)


def choices(pool: PolicyPool, prospect: Prospect, alpha: float, policy: PolicyName = "scope-edge") -> Ints:
    """(q,) the model `route` would choose at one alpha, index in the pool; -1 where nothing keeps to the limits."""
    n = len(pool.columns.models)
    p, tokens = prospect.table.p_correct[:, :n], prospect.table.tokens[:, :n]
    cost = expected_costs(pool.columns, tokens, prospect.prompt_tokens, pool.value_of_time)
    chosen = choose_many(pool, p, cost, alpha, policy=policy, allowed=prospect.allowed)
    if prospect.unlimited is not None and (chosen < 0).any():
        left = chosen < 0
        chosen[left] = choose_many(pool, p, cost, 0.0, allowed=prospect.unlimited)[left]
    return chosen


def foreseen(alpha: float, one: Expected) -> Forecast:
    """What is expected, of an alpha."""
    return Forecast(**{field.name: getattr(one, field.name) for field in fields(Expected)}, alpha=float(alpha))


def expected(prospect: Prospect, chosen: Ints) -> Expected:
    """What is expected of these choices: (q,), the index of a model, -1 for none."""
    columns, prompts = prospect.columns, prospect.prompt_tokens
    rows = np.flatnonzero(chosen >= 0)
    if not len(rows):
        return Expected(np.nan, None, None, 0.0, {}, unserved=1.0)
    at = rows, chosen[rows]
    right, usd = prospect.believed[at], prospect.usd[at]
    tokens = prospect.table.tokens_mean[at] + prompts[rows] * columns.token_factor[at[1]]
    shares = np.bincount(at[1], minlength=len(columns.models)) / len(rows)
    return Expected(
        accuracy=float(np.nanmean(right)) if np.isfinite(right).any() else np.nan,
        usd=_known(usd),
        tokens=_known(tokens),
        device_share=float(shares[~columns.cloud].sum()),
        portfolio={model: float(s) for model, s in zip(columns.models, shares, strict=True) if s > 0},
        unserved=1 - len(rows) / len(chosen),
        accuracy_error=_error(right, [p[at] for p, _ in prospect.draws]),
        usd_error=_error(usd, [cost[at] for _, cost in prospect.draws]),
    )


def lead(prospect: Prospect, chosen: Ints, model: int) -> tuple[float, float | None]:
    """By how much these choices are right more often than one model alone, and the standard error of that."""
    rows = np.flatnonzero(chosen >= 0)

    def ahead(p: Floats) -> Floats:
        apart: Floats = p[rows, chosen[rows]] - p[rows, model]
        return apart

    apart = ahead(prospect.believed)
    return float(apart.mean()) if len(rows) else np.nan, _error(apart, [ahead(p) for p, _ in prospect.draws])


def _error(values: Floats, drawn: Sequence[Floats]) -> float | None:
    """The standard error of a mean: for abilities as they may also be, and for having so many queries and no more."""
    if not drawn or len(values) < 2 or not np.isfinite(values).all():
        return None
    abilities = _WIDER * np.std([one.mean() for one in drawn])
    return float(np.hypot(abilities, values.std() / np.sqrt(len(values))))


def _known(values: Floats) -> float | None:
    mean = float(values.mean())
    return mean if np.isfinite(mean) else None


def believed(p: Floats, plain: Floats) -> Floats:
    """P(correct), (q, models), to judge choices by. p: what they are made by; plain: the same `without_traits`."""
    known = np.isfinite(p).all(axis=0)
    if not known.any():
        return p
    told = (p - plain)[:, known]
    # Only what tells models apart is doubted: neither how hard the query is for all, nor how able a model is.
    told = told - told.mean(axis=1, keepdims=True)
    told = told - told.mean(axis=0)
    found = p.copy()
    found[:, known] -= (1 - _TRAITS_TRUE) * told
    return found


def without_traits(prior: IrtEstimator, places: MapPositions) -> EstimateTable:
    """What the prior says when it knows of each query no more than its difficulty, length and domains."""
    return prior.table(replace(places, traits=np.zeros_like(places.traits)), np.ones(len(places)))


def prospect_of(
    columns: PoolColumns, prior: IrtEstimator, places: MapPositions, prompt_tokens: Floats, *, draws: int = 0
) -> Prospect:
    """The prior's models over queries at these places, without limits. draws: 0 asks for no errors."""
    anywhere = np.ones(len(places))
    table = prior.table(places, anywhere)
    return Prospect(
        columns=columns,
        table=table,
        prompt_tokens=prompt_tokens,
        believed=believed(table.p_correct, without_traits(prior, places).p_correct),
        usd=expected_costs(columns, table.tokens_mean, prompt_tokens),
        draws=[
            (one.p_correct, expected_costs(columns, one.tokens_mean, prompt_tokens))
            for one in (other.table(places, anywhere) for other in prior.drawn(draws))
        ],
    )


def within_limits(
    pool: PolicyPool, table: EstimateTable, prompts: tuple[Floats, Floats], preference: Preference
) -> tuple[Bools, Bools | None]:
    """`allowed` and `unlimited` of a `Prospect` of these queries. prompts: (q,) each, expected and upper bound, cl100k."""
    n = len(pool.columns.models)
    tokens, high = table.tokens[:, :n], table.tokens_hi[:, :n]
    costs = query_costs(pool.columns, tokens, high, prompts, pool.value_of_time)
    limits = limits_in_force(pool.columns, costs, high, preference, pool.unloadable)
    allowed = keeping(limits, tokens.shape, LIMITS)
    return allowed, keeping(limits, tokens.shape, FORBIDDING) if preference.fallback == "cheapest" else None
