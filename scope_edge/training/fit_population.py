"""Fit the population of models (estimation.ability.Population), the prior of a new one, to the joint fit's residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.estimation.ability import Population
from scope_edge.estimation.difficulty import FOREIGN_VARIANCE
from scope_edge.estimation.newton import sigmoid
from scope_edge.training.joint_fit import SD_DELTA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.difficulty import MapPositions
    from scope_edge.training.dataset import Pooled
    from scope_edge.training.joint_fit import JointFit
    from scope_edge.types import Floats

_ROUNDS = 30
_RESIDUALS = 401
# The fewest lengths that show a model's level and slope.
_LEAST_LENGTHS = 50


def fit_population(data: Pooled, joint: JointFit, places: MapPositions, traits: Floats) -> Population:
    """Fit the population of candidates. places: the queries' cross-fitted positions; traits: (n, k), centred per domain."""
    domains = len(data.domain_names)
    theta = joint.theta[~data.base & np.isfinite(data.correct).any(axis=1)]
    d = 1 + domains + traits.shape[1]
    covariance = np.zeros((d, d))
    covariance[0, 0] = theta.var() + 0.1
    covariance[range(1, 1 + domains), range(1, 1 + domains)] = SD_DELTA**2
    covariance[1 + domains :, 1 + domains :] = _trait_covariance(data, joint, traits)
    graded = np.isfinite(joint.error)
    # Levels of whole sets are left to the linking constants.
    missed = _centered(joint.b - places.difficulty, data.sets, graded) ** 2
    missed -= joint.error**2 + FOREIGN_VARIANCE * places.foreign
    here = [graded & (data.domains == number) for number in range(domains)]
    length = _length_population(data, places.log_length)
    return Population(
        mean=np.concatenate([[theta.mean()], np.zeros(d - 1)]),
        covariance=covariance,
        discrimination=np.array([joint.a[one].mean() if one.any() else 1.0 for one in here]),
        unexplained=np.array([max(missed[one].mean(), 0.05) if one.any() else 1.0 for one in here]),
        **length,
    )


def _centered(values: Floats, sets: NDArray[np.int64], known: NDArray[np.bool_]) -> Floats:
    """Return the values less the mean of each set's known ones."""
    means = np.array(
        [values[known & (sets == s)].mean() if (known & (sets == s)).any() else 0.0 for s in range(sets.max() + 1)]
    )
    return np.asarray(values - means[sets])


def _trait_covariance(data: Pooled, joint: JointFit, traits: Floats) -> Floats:
    """Return the covariance of the models' trait loadings, by EM for a linear mixed model on the joint fit's working residuals."""
    k = traits.shape[1]
    precisions, sides = [], []
    for m in range(len(data.models)):
        known = np.isfinite(data.correct[m])
        if not known.any():
            continue
        able = joint.theta[m] + joint.delta[m, data.domains[known]]
        p = sigmoid(joint.a[known] * (able - joint.b[known]))
        rows = traits[known]
        precisions.append((rows * (p * (1 - p))[:, None]).T @ rows)
        sides.append(rows.T @ (data.correct[m, known] - p))
    covariance = 0.05 * np.eye(k)
    for _ in range(_ROUNDS):
        total, inverse = np.zeros((k, k)), np.linalg.inv(covariance)
        for precision, side in zip(precisions, sides, strict=True):
            posterior = np.linalg.inv(precision + inverse)
            loading = posterior @ side
            total += posterior + np.outer(loading, loading)
        covariance = total / len(precisions)
    return covariance


def _length_population(data: Pooled, predicted: Floats) -> dict[str, Any]:
    """Fit the population's lengths: every candidate's level per domain, slope and residuals against the cross-fitted map."""
    domains = len(data.domain_names)
    center = float(predicted.mean())
    levels, shifts, slopes, standardised = [], [], [], []
    squares: list[list[float]] = [[] for _ in range(domains)]
    for m in np.flatnonzero(~data.base):
        known = data.tokens[m] > 0
        if known.sum() < _LEAST_LENGTHS:
            continue
        y, s = np.log(data.tokens[m, known]), data.domains[known]
        x = np.column_stack([np.eye(domains)[s], predicted[known] - center])
        coefficients = np.linalg.solve(x.T @ x + 1e-3 * np.eye(domains + 1), x.T @ y)
        here = np.unique(s)
        levels.append(coefficients[here].mean())
        shifts += list(coefficients[here] - coefficients[here].mean())
        slopes.append(coefficients[-1])
        residual = y - x @ coefficients
        for one in here:
            squares[one].append((residual[s == one] ** 2).mean())
        standardised.append(residual / np.sqrt((residual**2).mean()))
    if not levels:
        return {
            "length_mean": np.zeros(2 + domains),
            "length_covariance": np.eye(2 + domains),
            "length_center": 0.0,
            "length_noise": np.ones(domains),
            "length_residuals": np.zeros(1),
        }
    pooled = np.sort(np.concatenate(standardised))
    noise = np.array([np.mean(one) if one else np.nan for one in squares])
    return {
        "length_mean": np.array([np.mean(levels), np.mean(slopes), *np.zeros(domains)]),
        "length_covariance": np.diag(
            [np.var(levels) + 0.05, np.var(slopes) + 0.02, *[np.var(shifts) + 0.05] * domains]
        ),
        "length_center": center,
        "length_noise": np.where(np.isnan(noise), np.nanmean(noise), noise),
        "length_residuals": pooled[np.linspace(0, len(pooled) - 1, _RESIDUALS).astype(int)],
    }


def _robust(values: list[float]) -> float:
    """Return the variance of a Gaussian with the same quartiles: a few models' slopes are fitted to hardly any variety."""
    low, high = np.quantile(values, (0.25, 0.75))
    return float(((high - low) / 1.349) ** 2)
