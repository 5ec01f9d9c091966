"""How good estimates were, in figures, and those of a calibration judged on anchors that it was not fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimator.calibrated import CLIP, Observed, fit_calibration, uncalibrated
from scope_edge.evaluating.scores import ece
from scope_edge.newton import sigmoid

if TYPE_CHECKING:
    from scope_edge.records import Floats

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Score:
    """log_loss in nats, brier, and ece: expected calibration error over bins of equal size; smaller is better."""

    log_loss: float
    brier: float
    ece: float


def score(p: Floats, correct: Floats) -> Score:
    """Score probabilities against outcomes in [0, 1], both of shape (n,), n >= 1."""
    p = np.clip(p, CLIP, 1 - CLIP)
    loss = -(correct * np.log(p) + (1 - correct) * np.log1p(-p))
    return Score(float(loss.mean()), float(((p - correct) ** 2).mean()), ece(p, correct))


def before_and_after(seen: Observed) -> Mapping[str, Score]:
    """The prior alone, the estimator as it speaks, half-way between them (without a calibration), and calibrated.

    The last is cross-validated: each anchor, with all its models, is scored by a fit to the other anchors.
    """
    return {
        "prior": score(seen.prior, seen.correct),
        "estimator": score(seen.p, seen.correct),
        "half-way": score(sigmoid(uncalibrated().logit(seen.p, seen.prior)), seen.correct),
        "calibrated": score(_cross_validated(seen), seen.correct),
    }


def _cross_validated(seen: Observed) -> Floats:
    groups = {name: i for i, name in enumerate(dict.fromkeys(seen.group))}
    fold = np.array([groups[name] % FOLDS for name in seen.group])
    p = np.empty(len(seen))
    for f in range(FOLDS):
        here = fold == f
        if here.any():
            fitted, left = fit_calibration(seen.take(~here)), seen.take(here)
            p[here] = sigmoid(fitted.logit(left.p, left.prior))
    return p
