"""Logistic regression with a Gaussian prior, fitted by damped Newton: every logistic fit to outcomes.

The mode of the posterior minimises

    L(w) = sum_i [log(1 + exp(z_i)) - y_i z_i] + (w - m)' P (w - m) / 2,    z = X w + offset

which is convex. Each step s solves H s = g with g = X' (p - y) + P (w - m) and H = X' diag(p (1 - p)) X + P (Bishop 2006, Pattern
Recognition and Machine Learning, 4.3.3 and 4.5.1; the inverse of H is the covariance of Laplace's approximation). It is halved until
L does not grow, and is the last where g' s / 2, the decrease it promises, is small (Boyd and Vandenberghe 2004, 9.5.2).

Two other Newton iterations solve other problems, many at once: the linking constants of `reference`, which match mean
probabilities, and the difficulties of `refit`, one number a question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scope_edge.types import Floats


_STEPS = 50
_SMALLEST_STEP = 1e-8


def sigmoid(logits: Floats) -> Floats:
    """Return log-odds as probabilities, never exactly 0 or 1: beyond 40 they do not grow."""
    value: Floats = 1 / (1 + np.exp(-np.clip(logits, -40, 40)))
    return value


def logit(p: Floats | float, clip: float = 0.0) -> Floats:
    """Return the log-odds of probabilities. They must be neither 0 nor 1, unless they are clipped to [clip, 1 - clip]."""
    p = np.clip(np.asarray(p, np.float64), clip, 1 - clip)
    return np.asarray(np.log(p) - np.log1p(-p))


def fit_logistic(
    rows: Floats,
    outcomes: Floats,
    mean: Floats,
    precision: Floats,
    offset: Floats | float = 0.0,
    tolerance: float = 1e-12,
) -> tuple[Floats, Floats]:
    """Fit by maximum a posteriori.

    Args:
        rows: X, (n, d). outcomes: y in [0, 1], (n,). mean, precision: m (d,) and P (d, d) of the prior, per squared unit of w.
        offset: added to the log-odds, (n,) or one number. tolerance: in nats; the last step is the one that promises to lower L by less.

    Returns the mode (d,) and H (d, d) at the point where the last step began. Raises numpy.linalg.LinAlgError if H is singular,
    which takes a singular precision.
    """

    def loss(at: Floats) -> float:
        logits, away = rows @ at + offset, at - mean
        return float((np.logaddexp(0, logits) - outcomes * logits).sum() + away @ precision @ away / 2)

    mode, hessian = mean.copy(), precision
    for _ in range(_STEPS):
        p = sigmoid(rows @ mode + offset)
        gradient = rows.T @ (p - outcomes) + precision @ (mode - mean)
        hessian = (rows * (p * (1 - p))[:, None]).T @ rows + precision
        step = np.linalg.solve(hessian, gradient)
        if gradient @ step / 2 < tolerance:
            return mode - step, hessian
        current, size = loss(mode), 1.0
        while loss(mode - size * step) > current and size > _SMALLEST_STEP:
            size /= 2
        mode = mode - size * step
    return mode, hessian


def fit_platt(logits: Floats, outcomes: Floats, precision: Floats) -> Floats:
    """Fit (slope, intercept) that turn log-odds (n,) into those of the outcomes (n,) (Platt 1999), under a prior around (1, 0)."""
    rows = np.column_stack([logits, np.ones_like(logits)])
    return fit_logistic(rows, outcomes, np.array([1.0, 0.0]), precision)[0]
