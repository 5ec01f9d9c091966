"""A model's ability, from its own outcomes on a few anchors. Milliseconds; nothing is retrained.

Correctness is item response theory with a vector of abilities g = (general, one shift per measured domain, one loading per
trait): on anchor i with its own pooled difficulty b_i and discrimination a_i,

    logit P(correct) = a_i (g_general + domains_i . g_sets - b_i) + traits_i . g_traits

g has a Gaussian prior, the population of models measured so far, and is its posterior mode (Newton), with the Laplace
covariance as its uncertainty. Log-length is a linear model of the map's log-length under such a prior, in closed form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.estimation.difficulty import FOREIGN_VARIANCE
from scope_edge.estimation.newton import fit_logistic
from scope_edge.storage.packs import reading

if TYPE_CHECKING:
    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.estimation.difficulty import MapPositions
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.types import Floats

_SETTLED = 1e-8
# What a population's residual is worth, in anchors, beside the model's own when its spread and upper bound are judged.
_PRIOR_ANCHORS = 20.0
# Standard deviations of log-length: beyond the last, answers of any length are to be expected.
SPREADS = np.linspace(0.0, 4.0, 41)
# Of 1.5, 2, 2.5, 3, 4 and none the one that kept mean tokens of held-out models nearest to what came.
_LONGEST = 2.5
# Residuals of log-length kept of a model that taught the bank.
_KEPT = 101


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """The models measured so far: the Bayesian prior of every new one.

    Attributes:
        mean (d,), covariance (d, d): of g, with d = 1 + domains + traits.
        discrimination: (domains,) typical discrimination. unexplained: (domains,) variance of difficulty the map misses.
        length_mean (l,), length_covariance (l, l): of the length coefficients (level, slope, one shift per domain).
        length_center: log-length at which the slope turns. length_noise: (domains,) residual variance of log-length.
        length_residuals: (r,) sorted standardised residuals of log-length, a fair sample of all models'.
    """

    mean: Floats
    covariance: Floats
    discrimination: Floats
    unexplained: Floats
    length_mean: Floats
    length_covariance: Floats
    length_center: float
    length_noise: Floats
    length_residuals: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Ability:
    """One model's fit.

    Attributes:
        mean (d,), covariance (d, d): of g.
        length_mean (l,), length_covariance (l, l): of the length coefficients; the population's without any length.
        measured: outcomes it rests on. spread: the residuals of log-length against the population's (1 = typical).
        residuals: (r,) sorted leave-one-out residuals of log-length, each divided by its predicted spread.
    """

    mean: Floats
    covariance: Floats
    length_mean: Floats
    length_covariance: Floats
    measured: int
    spread: float
    residuals: Floats


def design(anchors: AnchorSet) -> Floats:
    """Return the rows h with logit = h . g - a b, shape (n, d)."""
    a = anchors.discrimination[:, None]
    return np.hstack([a, a * anchors.domains, anchors.traits])


def length_design(log_length: Floats, domains: Floats, population: Population) -> Floats:
    """Return the rows of the length model, shape (n, l), for map log-lengths (n,) and domains (n, domains)."""
    centered = np.asarray(log_length)[..., None] - population.length_center
    return np.concatenate([np.ones_like(centered), centered, domains], axis=-1)


def query_row(difficulty: Floats, domains: Floats, traits: Floats, population: Population) -> tuple[Floats, Floats]:
    """Return (h, offset) with logit = h . g + offset for positions on the map; `query_variance` is the map's own error.

    Shapes: difficulty (...), domains (..., domains), traits (..., k).
    """
    a = domains @ population.discrimination
    return np.concatenate([a[..., None], a[..., None] * domains, traits], axis=-1), -a * difficulty


def missed_variance(places: MapPositions, population: Population) -> Floats:
    """Return the variance (...) of what the map misses of these queries' difficulty."""
    missed = places.domains @ population.unexplained + FOREIGN_VARIANCE * places.foreign
    return np.asarray(np.maximum(missed - places.explained, 0.0))


def query_variance(rows: Floats, places: MapPositions, population: Population) -> Floats:
    """Return the variance (q,) of log-odds that the map leaves unexplained: rows (q, d) of `query_row`."""
    return np.asarray(rows[:, 0] ** 2 * missed_variance(places, population))


def softening(slope: Floats | float, variance: Floats) -> Floats:
    """Return the factor by which a logistic curve of this slope flattens when averaged over its difficulty's variance.

    1 / sqrt(1 + pi slope^2 variance / 8) (MacKay 1992). Without it a model's ability would seem surer than such anchors tell.
    """
    return np.asarray(1 / np.sqrt(1 + np.pi / 8 * slope**2 * variance))


def fit_ability(parts: Sequence[Fingerprint], population: Population, known: Ability | None = None) -> Ability:
    """Fit one model from its fingerprints, one per anchor set. known: from other outcomes of it, in place of the population."""
    if known is not None:
        population = replace(population, mean=known.mean, covariance=known.covariance)
    mean, covariance = fit_correct(parts, population)
    count = sum(int((~np.isnan(one.correct)).sum()) for one in parts) + (known.measured if known else 0)
    length_mean, length_covariance, spread, residuals = _lengths(parts, population, known)
    return Ability(mean, covariance, length_mean, length_covariance, count, spread, residuals)


def fit_correct(parts: Sequence[Fingerprint], population: Population) -> tuple[Floats, Floats]:
    """Return mean (d,) and covariance (d, d) of g alone, from outcomes without their lengths."""
    rows, offsets, outcomes = [], [], []
    for one in parts:
        known = ~np.isnan(one.correct)
        rows.append(design(one.anchors)[known])
        offsets.append((-one.anchors.discrimination * one.anchors.difficulty)[known])
        outcomes.append(one.correct[known])
    precision = np.asarray(np.linalg.inv(population.covariance), np.float64)
    data = np.vstack(rows), np.concatenate(outcomes)
    mode, hessian = fit_logistic(*data, population.mean, precision, np.concatenate(offsets), _SETTLED)
    return mode, np.asarray(np.linalg.inv(hessian), np.float64)


def _lengths(
    parts: Sequence[Fingerprint], population: Population, known: Ability | None
) -> tuple[Floats, Floats, float, Floats]:
    if known is None:
        return _fit_length(parts, population)
    start = replace(population, length_mean=known.length_mean, length_covariance=known.length_covariance)
    mean, covariance, spread, residuals = _fit_length(parts, start)
    if not len(residuals):
        return known.length_mean, known.length_covariance, known.spread, known.residuals
    # Both are typical misses: together they are judged by one spread.
    both = np.sort(np.concatenate([known.residuals * known.spread, residuals * spread]))
    spread = float(np.sqrt(np.mean(both**2)))
    return mean, covariance, spread, both / spread


def _fit_length(parts: Sequence[Fingerprint], population: Population) -> tuple[Floats, Floats, float, Floats]:
    """Return coefficients, their covariance, spread and standardised leave-one-out residuals from the lengths known."""
    rows, lengths, noise = [], [], []
    for one in parts:
        known = one.tokens > 0
        domains = one.anchors.domains[known]
        rows.append(length_design(one.anchors.log_length[known], domains, population))
        lengths.append(np.log(one.tokens[known]))
        noise.append(domains @ population.length_noise)
    x, y, variance = np.vstack(rows), np.concatenate(lengths), np.concatenate(noise)
    if not len(y):
        # As long as other models' answers, and as uncertain as they differ.
        return population.length_mean, population.length_covariance, 1.0, y
    precision = np.linalg.inv(population.length_covariance)
    covariance = np.linalg.inv((x / variance[:, None]).T @ x + precision)
    mean = covariance @ (x.T @ (y / variance) + precision @ population.length_mean)
    leverage = np.einsum("ij,jk,ik->i", x, covariance, x) / variance
    # The ridge's closed form for leaving one out; what it predicts with has the variance noise / (1 - leverage).
    residuals = (y - x @ mean) / np.sqrt(variance * (1 - np.minimum(leverage, 0.999)))
    n = len(residuals)
    spread = float(np.sqrt((residuals @ residuals + _PRIOR_ANCHORS) / (n + _PRIOR_ANCHORS)))
    return mean, covariance, spread, np.sort(residuals / spread)


def spread_along(rows: Floats, covariances: Floats) -> Floats:
    """Return r' C r for every row r of (q, d) and every C of (n, d, d), shape (n, q). einsum alone takes ten times as long."""
    n, d, _ = covariances.shape
    if not covariances.any():
        return np.zeros((n, len(rows)))
    half = (covariances.reshape(n * d, d) @ rows.T).reshape(n, d, -1)
    return np.asarray(np.einsum("ndq,qd->nq", half, rows))


def upper_residual(own: Floats, population: Floats, coverage: float) -> float:
    """Return the standardised residual that a new one stays under with probability `coverage`.

    Split-conformal on `_mixed` residuals, so that a few anchors give a sane bound.
    """
    values, weights = _mixed(own, population)
    order = np.argsort(values, kind="stable")
    # Conformal: the new residual itself counts as one more, above all others.
    reached = np.cumsum(weights[order]) / (weights.sum() + 1.0)
    at = min(int(np.searchsorted(reached, coverage)), len(values) - 1)
    return float(values[order[at]])


def mean_growth(own: Floats, population: Floats) -> Floats:
    """Return the log (s,) of mean over median length, for residuals of log-length as wide as each of `SPREADS`.

    From the residuals themselves, not the Gaussian's s^2 / 2 (Duan 1983). No answer counts for more than exp(`_LONGEST`)
    medians: generation is cut off, and a tail learned where spreads are small says nothing where they are large.
    """
    values, weights = _mixed(own, population)
    return np.asarray(np.log(np.exp(np.minimum(SPREADS[:, None] * values, _LONGEST)) @ weights / weights.sum()))


def _mixed(own: Floats, population: Floats) -> tuple[Floats, Floats]:
    """Return a model's own residuals followed by the population's, which weigh `_PRIOR_ANCHORS`; and the weights."""
    weights = np.concatenate([np.ones(len(own)), np.full(len(population), _PRIOR_ANCHORS / len(population))])
    return np.concatenate([own, population]), weights


def thinned(ability: Ability) -> Ability:
    """Return the ability with at most `_KEPT` residuals, evenly spaced quantiles."""
    if len(ability.residuals) <= _KEPT:
        return ability
    at = np.linspace(0, len(ability.residuals) - 1, _KEPT).round().astype(int)
    return replace(ability, residuals=ability.residuals[at])


def abilities_body(abilities: Mapping[str, Ability]) -> dict[str, Any]:
    """Return abilities by model as the body of a pack."""
    rows = list(abilities.values())
    return {
        "models": list(abilities),
        "measured": np.array([one.measured for one in rows], np.int32),
        **{name: np.array([getattr(one, name) for one in rows], np.float32) for name in (*_MOMENTS, "spread")},
        "residuals": [one.residuals.astype(np.float16) for one in rows],
    }


def abilities_from_body(body: Mapping[str, Any], population: Population, where: str) -> Mapping[str, Ability]:
    """Read abilities by model from a pack's body. Raises PackError when they are not of this population's shape."""
    with reading(where, "table of abilities"):
        moments = [body[name].astype(np.float64) for name in _MOMENTS]
        shapes = [one.shape[1:] for one in moments]
        if body["models"] and shapes != [getattr(population, name).shape for name in _MOMENTS]:
            raise ValueError("its shapes do not fit the population's")
        rest = body["measured"].tolist(), body["spread"].astype(np.float64).tolist(), body["residuals"]
        return {
            model: Ability(
                **dict(zip(_MOMENTS, moment, strict=True)),
                measured=measured,
                spread=spread,
                residuals=residuals.astype(np.float64),
            )
            for model, *moment, measured, spread, residuals in zip(body["models"], *moments, *rest, strict=True)
        }


_MOMENTS = ("mean", "covariance", "length_mean", "length_covariance")
_FIELDS = tuple(field for field in Population.__dataclass_fields__ if field != "length_center")


def population_body(population: Population) -> dict[str, Any]:
    """Return the population as the body of a pack."""
    return {"length_center": population.length_center, **{name: getattr(population, name) for name in _FIELDS}}


def population_from_body(body: Mapping[str, Any], where: str) -> Population:
    """Read the population from a pack's body. Raises PackError when a field is missing or shapes do not fit."""
    with reading(where, "population"):
        arrays = {name: np.require(body[name], np.float64, "A") for name in _FIELDS}
        population = Population(length_center=float(body["length_center"]), **arrays)
        d, sets = len(population.mean), len(population.discrimination)
        if population.covariance.shape != (d, d) or population.length_covariance.shape != (2 + sets, 2 + sets):
            raise ValueError("its shapes do not fit together")
        return population
