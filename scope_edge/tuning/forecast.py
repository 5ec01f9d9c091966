"""Forecasts of a pool's accuracy and cost at every alpha, from fingerprints alone.

These are expected values over queries of unknown outcome: the policy chooses for each as `route` would, and the chosen
model is right with its calibrated p and spends its mean tokens. No model runs and no label is read.

A choice is judged by the same p that made it, so it prefers models that are overrated on the query. Models of similar
ability differ on a query by traits read off its embedding, and those are blurred: `believed` trusts them less when a choice
is judged than when it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.policy.constraints import keeping, limits_in_force
from scope_edge.policy.costs import expected_costs, query_costs
from scope_edge.policy.policy import choose_many

if TYPE_CHECKING:
    from scope_edge.estimation.difficulty import MapPositions
    from scope_edge.estimation.irt import EstimateTable, IrtEstimator
    from scope_edge.policy.costs import Bools, Ints, PoolColumns
    from scope_edge.policy.utility import PolicyPool
    from scope_edge.types import Floats, PolicyName, Preference

# The share of a difference between two models by traits that came true, among models within 10 points of each other, on
# held-out models and queries: 0.58 to 0.86 (build_scripts/measure_tuning.py).
_TRAITS_TRUE = 0.7
# Forecasts of held-out models were off by this factor more than posteriors of abilities say (same script).
_WIDER = 1.3
# Draws from the posteriors of abilities; they give the standard error to an eighth.
DRAWS = 32


@dataclass(frozen=True, slots=True)
class Expected:
    """Expected means per query of some choices. Errors are standard errors, None without draws.

    Attributes:
        accuracy: share right. usd: US dollars; None if a chosen model has no price. tokens: prompt and completion, own.
        device_share: share of queries that stay on the device. portfolio: chosen model -> share of queries.
        unserved: share of queries for which no model keeps to the limits; all else is about the other queries.
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
    """The expectation at one alpha."""

    alpha: float


@dataclass(frozen=True, slots=True, eq=False)
class Prospect:
    """q queries of unknown outcome with estimates for n models, the pool's first; arrays (q, n).

    Attributes:
        columns, table: the n models, and the estimates that choices are made by. prompt_tokens: (q,) cl100k.
        believed: P(correct) that a choice is judged by. usd: mean cost, since spending adds up by the mean; the policy uses
            the median, a better guess of one call. draws: these two, for abilities drawn from their posteriors.
        allowed: (q, pool) models within the limits. unlimited: the same when a fallback lifts the limits of a budget.
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
    """Forecast every alpha, each in [0, 1]."""
    return tuple(foreseen(alpha, expected(prospect, choices(pool, prospect, alpha, policy))) for alpha in alphas)


def choices(pool: PolicyPool, prospect: Prospect, alpha: float, policy: PolicyName = "scope-edge") -> Ints:
    """Return `route`'s choices at one alpha, (q,), as indices in the pool; -1 if no model keeps to the limits."""
    n = len(pool.columns.models)
    p, tokens = prospect.table.p_correct[:, :n], prospect.table.tokens[:, :n]
    cost = expected_costs(pool.columns, tokens, prospect.prompt_tokens, pool.value_of_time)
    chosen = choose_many(pool, p, cost, alpha, policy=policy, allowed=prospect.allowed)
    if prospect.unlimited is not None and (chosen < 0).any():
        left = chosen < 0
        chosen[left] = choose_many(pool, p, cost, 0.0, allowed=prospect.unlimited)[left]
    return chosen


def foreseen(alpha: float, one: Expected) -> Forecast:
    """Return an expectation as a forecast."""
    return Forecast(**{field.name: getattr(one, field.name) for field in fields(Expected)}, alpha=float(alpha))


def expected(prospect: Prospect, chosen: Ints) -> Expected:
    """Return the expectation of these choices, (q,): the index of a model, -1 for no model."""
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
    """Return how much more often these choices are right than one model alone, and the standard error."""
    rows = np.flatnonzero(chosen >= 0)

    def ahead(p: Floats) -> Floats:
        apart: Floats = p[rows, chosen[rows]] - p[rows, model]
        return apart

    apart = ahead(prospect.believed)
    return float(apart.mean()) if len(rows) else np.nan, _error(apart, [ahead(p) for p, _ in prospect.draws])


def _error(values: Floats, drawn: Sequence[Floats]) -> float | None:
    """Return the standard error of a mean: from uncertain abilities, and from the number of queries."""
    if not drawn or len(values) < 2 or not np.isfinite(values).all():
        return None
    abilities = _WIDER * np.std([one.mean() for one in drawn])
    return float(np.hypot(abilities, values.std() / np.sqrt(len(values))))


def _known(values: Floats) -> float | None:
    mean = float(values.mean())
    return mean if np.isfinite(mean) else None


def believed(p: Floats, plain: Floats) -> Floats:
    """Return the P(correct), (q, models), that choices are judged by. p: of the choices; plain: the same `without_traits`."""
    known = np.isfinite(p).all(axis=0)
    if not known.any():
        return p
    traits = (p - plain)[:, known]
    # Only differences between models are doubted: neither the query's difficulty for all, nor a model's ability.
    traits = traits - traits.mean(axis=1, keepdims=True)
    traits = traits - traits.mean(axis=0)
    found = p.copy()
    found[:, known] -= (1 - _TRAITS_TRUE) * traits
    return found


def without_traits(estimator: IrtEstimator, positions: MapPositions) -> EstimateTable:
    """Estimate from each query's difficulty, length and domains alone."""
    return estimator.table(replace(positions, traits=np.zeros_like(positions.traits)), np.ones(len(positions)))


def prospect_of(
    columns: PoolColumns, estimator: IrtEstimator, positions: MapPositions, prompt_tokens: Floats, *, draws: int = 0
) -> Prospect:
    """Return the estimator's models over queries at these positions, without limits. draws: 0 gives no errors."""
    similarity = np.ones(len(positions))
    table = estimator.table(positions, similarity)
    return Prospect(
        columns=columns,
        table=table,
        prompt_tokens=prompt_tokens,
        believed=believed(table.p_correct, without_traits(estimator, positions).p_correct),
        usd=expected_costs(columns, table.tokens_mean, prompt_tokens),
        draws=[
            (one.p_correct, expected_costs(columns, one.tokens_mean, prompt_tokens))
            for one in (other.table(positions, similarity) for other in estimator.drawn(draws))
        ],
    )


def within_limits(
    pool: PolicyPool, table: EstimateTable, prompts: tuple[Floats, Floats], preference: Preference
) -> tuple[Bools, Bools | None]:
    """Return `allowed` and `unlimited` of a `Prospect`. prompts: (q,) each, expected and upper bound, cl100k."""
    n = len(pool.columns.models)
    tokens, high = table.tokens[:, :n], table.tokens_hi[:, :n]
    costs = query_costs(pool.columns, tokens, high, prompts, pool.value_of_time)
    limits = limits_in_force(pool.columns, costs, high, preference, pool.unloadable)
    allowed = keeping(limits, tokens.shape)
    return allowed, keeping(limits, tokens.shape, firm_only=True) if preference.fallback == "cheapest" else None
