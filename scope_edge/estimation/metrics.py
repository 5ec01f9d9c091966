"""Scores of predictions: AUC, accuracy, Brier score, log-loss, and the calibration error with its floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.types import Floats

BINS = 10
_FLOOR_DRAWS = 50


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one model's predictions, over queries with weights."""

    auc: float
    accuracy: float
    brier: float
    logloss: float


def scores(p: Floats, y: Floats, weights: Floats | None = None, order: NDArray[np.intp] | None = None) -> Scores:
    """Score probabilities p against outcomes y, both (n,); for AUC and accuracy, right means y above one half.

    weights: (n,), 1 by default. order: argsort of p, which a caller that resamples weights computes once.
    """
    weights = np.ones(len(p)) if weights is None else weights
    order = np.argsort(p, kind="stable") if order is None else order
    right = y > 0.5
    total = weights.sum()
    return Scores(
        auc=_auc(p[order], right[order], weights[order]),
        accuracy=float((weights * ((p > 0.5) == right)).sum() / total),
        brier=float((weights * (p - y) ** 2).sum() / total),
        logloss=float(-(weights * (y * np.log(p) + (1 - y) * np.log1p(-p))).sum() / total),
    )


def _auc(p: Floats, right: NDArray[np.bool_], weights: Floats) -> float:
    """Return the weighted area under the ROC curve, ties counted half; p sorted ascending; NaN with one class only."""
    good, bad = np.where(right, weights, 0.0), np.where(right, 0.0, weights)
    starts = np.flatnonzero(np.r_[True, p[1:] != p[:-1]])
    good, bad = np.add.reduceat(good, starts), np.add.reduceat(bad, starts)
    below = np.cumsum(bad) - bad
    total = good.sum() * bad.sum()
    return float((good * (below + bad / 2)).sum() / total) if total > 0 else float("nan")


def ece(p: Floats, y: Floats) -> float:
    """Return the expected calibration error over 10 bins of equal mass."""
    order = np.argsort(p, kind="stable")
    parts = zip(np.array_split(p[order], BINS), np.array_split(y[order], BINS), strict=True)
    return float(sum(len(a) * abs(a.mean() - b.mean()) for a, b in parts if len(a)) / len(p))


def ece_floor(p: Floats, seed: int = 0) -> float:
    """Return the average error that a perfectly calibrated predictor with these p would show."""
    rng = np.random.default_rng(seed)
    return float(np.mean([ece(p, (rng.random(len(p)) < p).astype(float)) for _ in range(_FLOOR_DRAWS)]))
