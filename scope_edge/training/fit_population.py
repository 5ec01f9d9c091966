"""Fit the population of models (estimation.ability.Population), the prior of a new one, to the joint fit's residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.estimation.ability import Population
from scope_edge.estimation.newton import sigmoid
from scope_edge.training.joint_fit import SD_DELTA

if TYPE_CHECKING:
    from scope_edge.training.dataset import Pooled
    from scope_edge.training.joint_fit import JointFit
    from scope_edge.types import Floats

_ROUNDS = 30
_RESIDUALS = 401
# The fewest lengths that show a model's level and slope.
_LEAST_LENGTHS = 50


def fit_population(data: Pooled, joint: JointFit, crossed: Floats, traits: Floats) -> Population:
    """Fit the population of candidates. crossed: (n, 2 + sets) cross-fitted map outputs; traits: (n, k), centred per set."""
    sets = len(data.set_names)
    theta = joint.theta[~data.base]
    d = 1 + sets + traits.shape[1]
    covariance = np.zeros((d, d))
    covariance[0, 0] = theta.var() + 0.1
    covariance[range(1, 1 + sets), range(1, 1 + sets)] = SD_DELTA**2
    covariance[1 + sets :, 1 + sets :] = _trait_covariance(data, joint, traits)
    missed = (joint.b - crossed[:, 0]) ** 2 - joint.error**2
    length = _length_population(data, crossed[:, 1])
    return Population(
        mean=np.concatenate([[theta.mean()], np.zeros(d - 1)]),
        covariance=covariance,
        discrimination=np.array([joint.a[data.sets == s].mean() for s in range(sets)]),
        unexplained=np.array([max(missed[data.sets == s].mean(), 0.05) for s in range(sets)]),
        **length,
    )


def _trait_covariance(data: Pooled, joint: JointFit, traits: Floats) -> Floats:
    """Return the covariance of the models' trait loadings, by EM for a linear mixed model on the joint fit's working residuals."""
    k = traits.shape[1]
    precisions, sides = [], []
    for m in range(len(data.models)):
        known = np.isfinite(data.correct[m])
        if not known.any():
            continue
        able = joint.theta[m] + joint.delta[m, data.sets[known]]
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
    """Fit the population's lengths: every candidate's level per set, slope and residuals against the cross-fitted map."""
    sets = len(data.set_names)
    center = float(predicted.mean())
    levels, shifts, slopes, standardised = [], [], [], []
    squares: list[list[float]] = [[] for _ in range(sets)]
    for m in np.flatnonzero(~data.base):
        known = data.tokens[m] > 0
        if known.sum() < _LEAST_LENGTHS:
            continue
        y, s = np.log(data.tokens[m, known]), data.sets[known]
        x = np.column_stack([np.eye(sets)[s], predicted[known] - center])
        coefficients = np.linalg.solve(x.T @ x + 1e-3 * np.eye(sets + 1), x.T @ y)
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
            "length_mean": np.zeros(2 + sets),
            "length_covariance": np.eye(2 + sets),
            "length_center": 0.0,
            "length_noise": np.ones(sets),
            "length_residuals": np.zeros(1),
        }
    pooled = np.sort(np.concatenate(standardised))
    noise = np.array([np.mean(one) if one else np.nan for one in squares])
    return {
        "length_mean": np.array([np.mean(levels), np.mean(slopes), *np.zeros(sets)]),
        "length_covariance": np.diag([np.var(levels) + 0.05, np.var(slopes) + 0.02, *[np.var(shifts) + 0.05] * sets]),
        "length_center": center,
        "length_noise": np.where(np.isnan(noise), np.nanmean(noise), noise),
        "length_residuals": pooled[np.linspace(0, len(pooled) - 1, _RESIDUALS).astype(int)],
    }
