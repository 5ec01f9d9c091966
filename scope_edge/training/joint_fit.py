"""The joint fit: the difficulty of queries and the ability of models, from all outcomes at once (two-parameter IRT).

    logit P(model m right on query i) = a_i (theta_m + delta_{m,set} - b_i)

b has a mean per set and a Gaussian prior around it, log a, theta and delta Gaussian priors: the mode of the posterior, by
L-BFGS. A model measured on several sets has one theta, which ties the sets' scales; delta lets it be better at one of them.
Outcomes may be fractional; missing ones are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.types import Floats

SD_B, SD_LOG_A, SD_DELTA, SD_THETA = 2.0, 0.3, 0.4, 1.5


@dataclass(frozen=True, slots=True, eq=False)
class JointFit:
    """theta: (models,), delta: (models, sets); b, a: (queries,); error: (queries,) standard error of b."""

    theta: Floats
    delta: Floats
    b: Floats
    a: Floats
    error: Floats


def fit_joint(correct: Floats, sets: NDArray[np.int64], iterations: int = 100) -> JointFit:
    """Fit outcomes of shape (models, queries), NaN = missing; `sets` (queries,) numbers each query's set from 0."""
    from scipy.optimize import minimize  # an extra: `eval` says so before it fits

    models, queries = correct.shape
    count = int(sets.max()) + 1
    m, q = np.nonzero(np.isfinite(correct))
    y, ms = correct[m, q], m * count + sets[q]
    cuts = np.cumsum([models, models * count, count, queries])

    def loss(v: Floats) -> tuple[float, Floats]:
        theta, delta, mu, b, log_a = np.split(v, cuts)
        a = np.exp(log_a)[q]
        away = (np.repeat(theta, count) + delta)[ms] - (mu[sets] + b)[q]
        z = a * away
        e = np.exp(-np.abs(z))
        value = (np.maximum(z, 0) + np.log1p(e) - y * z).sum()
        value += (b @ b) / SD_B**2 / 2 + (log_a @ log_a) / SD_LOG_A**2 / 2
        value += (delta @ delta) / SD_DELTA**2 / 2 + (theta @ theta) / SD_THETA**2 / 2
        error = np.where(z >= 0, 1, e) / (1 + e) - y
        g_able, g_b = np.bincount(ms, error * a, models * count), np.bincount(q, error * a, queries)
        gradient = (
            g_able.reshape(models, count).sum(1) + theta / SD_THETA**2,
            g_able + delta / SD_DELTA**2,
            -np.bincount(sets, g_b, count),
            -g_b + b / SD_B**2,
            np.bincount(q, error * z, queries) + log_a / SD_LOG_A**2,
        )
        return float(value), np.concatenate(gradient)

    start = np.zeros(cuts[-1] + queries)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "maxcor": 10}).x
    theta, delta, mu, b, log_a = np.split(found, cuts)
    a, b = np.exp(log_a), mu[sets] + b
    p = 1 / (1 + np.exp(-a[q] * ((np.repeat(theta, count) + delta)[ms] - b[q])))
    information = np.bincount(q, p * (1 - p) * a[q] ** 2, queries) + 1 / SD_B**2
    return JointFit(theta, delta.reshape(models, count), b, a, 1 / np.sqrt(information))


def fit_lengths(tokens: Floats, sets: NDArray[np.int64], rounds: int = 20) -> Floats:
    """Return the log-length of a typical model's answer to each query, (queries,), from tokens (models, queries).

    An additive fit, a level per model and set and a length per query, by alternating least squares; each query is
    shrunk towards its set's mean as if that had been measured once. All 0 without any tokens (NaN = missing).
    """
    models, queries = tokens.shape
    count = int(sets.max()) + 1
    m, q = np.nonzero(tokens > 0)
    if not len(q):
        return np.zeros(queries)
    y, ms = np.log(tokens[m, q]), m * count + sets[q]
    n_ms, n_q = np.bincount(ms, minlength=models * count), np.bincount(q, minlength=queries)
    length = np.full(queries, y.mean())
    level = np.zeros(models * count)
    for _ in range(rounds):
        level = np.bincount(ms, y - length[q], models * count) / np.maximum(n_ms, 1)
        level -= (level * n_ms).sum() / n_ms.sum()
        raw = np.bincount(q, y - level[ms], queries)
        mean = np.bincount(sets, raw, count) / np.maximum(np.bincount(sets, n_q, count), 1)
        length = (raw + mean[sets]) / (n_q + 1)
    return length
