"""The calibration of an estimator beside the prior: fitted on left-out anchors, stored per estimator.

    logit p      = a0 + a1 logit(p of the estimator) + a2 logit(p of the prior)
    log tokens   = log(tokens of the prior) + b0 + b1 (log(tokens of the estimator) - log(tokens of the prior))

Both are fitted by penalised maximum likelihood, pulled towards (0, 1/2, 1/2) and (0, 1/2),
the values of an uncalibrated estimator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.errors import PackError
from scope_edge.estimation.metrics import ece
from scope_edge.estimation.newton import fit_logistic, logit, sigmoid
from scope_edge.storage.packs import read_pack, write_pack

if TYPE_CHECKING:
    from scope_edge.types import Floats

KIND = "estimator-calibration"
FILE = "calibration.pack"
# Probabilities of an estimator are clipped to [CLIP, 1 - CLIP].
CLIP = 0.01
# Strength of the pull: about the weight of fifty prompts.
_PULL = 10.0
# Residual variance of log-length that the length fit's pull is measured in; routing data has 0.3 to 0.5.
_LENGTH_NOISE = 0.4
# Until it is measured: how far, in logit, a refined p may end from the prior's. That is half-way to an estimator with 98 %
# where the prior has 88 %, or 88 % where it has 50 %.
REACH = 1.0
# The share of refined p within the measured reach.
REACH_COVERED = 0.95
_MAX_RESIDUALS = 4096
FOLDS = 5
_AGAIN = "remove the file, or calibrate again with `scope-edge calibrate --estimator gguf`"


@dataclass(frozen=True, slots=True)
class Key:
    """The estimator a calibration belongs to: another GGUF, template or mode is another one. Hashes are sha256, hex."""

    gguf: str
    template: str
    mode: str


@dataclass(frozen=True, slots=True, eq=False)
class EstimatorCalibration:
    """The map from (estimator, prior) to an estimate.

    Attributes:
        weights: (3,) a0, a1, a2. length: (2,) b0, b1.
        residuals: (r,) sorted, log of real over estimated tokens of left-out prompts; empty = not fitted.
        reach: how far, in logit, a refined p may end from the prior's. prompts: it was fitted on; 0 = not fitted.
    """

    weights: Floats
    length: Floats
    residuals: Floats
    reach: float
    prompts: int

    def logit(self, p: Floats | float, prior: Floats | float) -> Floats:
        """Return the log-odds of an estimate, from the estimator's and the prior's p."""
        a0, a1, a2 = self.weights.tolist()
        return np.asarray(a0 + a1 * logit(p, CLIP) + a2 * logit(prior, CLIP), np.float64)

    def log_tokens(self, tokens: Floats | float, prior: Floats | float) -> Floats:
        """Return the log of an estimate's tokens; where the prior's are NaN, the estimator's corrected by their bias."""
        b0, b1 = self.length.tolist()
        own = np.log(np.asarray(tokens, np.float64))
        base = np.log(np.asarray(prior, np.float64))
        return np.asarray(np.where(np.isnan(base), own + b0, base + b0 + b1 * (own - base)))

    def upper_residual(self, coverage: float) -> float | None:
        """Return the bound of a new log-residual at that probability (split conformal); None with too few residuals."""
        rank = math.ceil((len(self.residuals) + 1) * coverage)
        return float(self.residuals[rank - 1]) if 1 <= rank <= len(self.residuals) else None


def uncalibrated() -> EstimatorCalibration:
    """Return the calibration of an estimator never compared with outcomes: half-way between the prior and its answer."""
    return EstimatorCalibration(np.array([0.0, 0.5, 0.5]), np.array([0.0, 0.5]), np.zeros(0), REACH, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """Prompts with a known outcome, shape (n,): p of estimator and prior, tokens of both, and the outcome.

    Lengths are in the models' own tokens; NaN = unknown. group: the anchor of each, for cross-validation.
    """

    p: Floats
    prior: Floats
    tokens: Floats
    prior_tokens: Floats
    correct: Floats
    real_tokens: Floats
    group: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.p)

    def take(self, rows: Any) -> Observed:
        """Return these rows only."""
        columns = {one.name: np.asarray(getattr(self, one.name))[rows] for one in fields(self)}
        return Observed(**{**columns, "group": tuple(columns["group"].tolist())})


def fit_calibration(seen: Observed) -> EstimatorCalibration:
    """Fit to prompts with a known outcome; without any the result is `uncalibrated`."""
    start = uncalibrated()
    if not len(seen):
        return start
    x = np.stack([np.ones(len(seen)), logit(seen.p, CLIP), logit(seen.prior, CLIP)], axis=1)
    weights = fit_logistic(x, seen.correct, start.weights, _PULL * np.eye(3))[0]
    known = np.isfinite(seen.real_tokens) & np.isfinite(seen.prior_tokens) & (seen.tokens > 0)
    apart = np.log(seen.tokens[known]) - np.log(seen.prior_tokens[known])
    rows = np.stack([np.ones(len(apart)), apart], axis=1)
    real = np.log(seen.real_tokens[known]) - np.log(seen.prior_tokens[known])
    gram = rows.T @ rows / _LENGTH_NOISE + _PULL * np.eye(2)
    length = np.linalg.solve(gram, rows.T @ real / _LENGTH_NOISE + _PULL * start.length)
    # Residuals as if each row had been left out of the ridge fit, in closed form; evenly thinned over their ranks.
    leverage = np.einsum("ij,jk,ik->i", rows, np.linalg.inv(gram), rows) / _LENGTH_NOISE
    residuals = np.sort((real - rows @ length) / (1 - np.minimum(leverage, 0.999)))
    if len(residuals) > _MAX_RESIDUALS:
        residuals = residuals[np.linspace(0, len(residuals) - 1, _MAX_RESIDUALS).round().astype(np.intp)]
    fitted = EstimatorCalibration(weights, length, residuals, REACH, len(seen))
    moved = np.abs(fitted.logit(seen.p, seen.prior) - logit(seen.prior, CLIP))
    return replace(fitted, reach=float(np.quantile(moved, REACH_COVERED, method="higher")))


def save_calibration(folder: Path, key: Key, calibration: EstimatorCalibration) -> None:
    """Write a calibration into an estimator's folder. Raises AssetError."""
    body = {one.name: getattr(calibration, one.name) for one in fields(calibration)}
    write_pack(folder / FILE, KIND, {"key": asdict(key), **body})


def load_calibration(folder: Path, key: Key) -> EstimatorCalibration | None:
    """Read the calibration in an estimator's folder; None when missing or of another key. Raises PackError: damaged."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        body = read_pack(path, KIND)
    except PackError as error:
        raise PackError(f"{path}: not a usable calibration ({error}); {_AGAIN}") from error
    if body.get("key") != asdict(key):
        return None
    try:
        weights, length, residuals = (np.require(body[n], np.float64, "A") for n in ("weights", "length", "residuals"))
        found = EstimatorCalibration(weights, length, residuals, float(body["reach"]), int(body["prompts"]))
    except (KeyError, TypeError, ValueError) as error:
        raise PackError(f"{path}: not a usable calibration ({error!r}); {_AGAIN}") from error
    numbers = np.concatenate([weights.ravel(), length.ravel(), residuals.ravel(), [found.reach]])
    shapes = weights.shape == (3,) and length.shape == (2,) and residuals.ndim == 1
    if not shapes or not np.isfinite(numbers).all() or found.reach < 0 or (np.diff(residuals) < 0).any():
        raise PackError(f"{path}: not a usable calibration (its numbers are invalid); {_AGAIN}")
    return found


@dataclass(frozen=True, slots=True)
class Score:
    """log_loss in nats, brier, and ece: expected calibration error over bins of equal size; smaller is better."""

    log_loss: float
    brier: float
    ece: float


def score(p: Floats, correct: Floats) -> Score:
    """Score probabilities against outcomes in [0, 1], both of shape (n,), n >= 1."""
    loss, p = _losses(p, correct), np.clip(p, CLIP, 1 - CLIP)
    return Score(float(loss.mean()), float(((p - correct) ** 2).mean()), ece(p, correct))


def gains(seen: Observed) -> bool:
    """Return whether the estimator predicts better than the prior does, alone and calibrated alone, cross-validated.

    Better: the log loss of an anchor falls by more than two standard errors of the mean over anchors.
    """
    loss = _losses(_cross_validated(seen), seen.correct)
    alone = _cross_validated(replace(seen, p=np.full(len(seen), 0.5)))
    group = np.unique(seen.group, return_inverse=True)[1]
    for other in (seen.prior, alone):
        gain = np.bincount(group, _losses(other, seen.correct) - loss) / np.bincount(group)
        if len(gain) < 2 or gain.mean() <= 2 * gain.std(ddof=1) / math.sqrt(len(gain)):
            return False
    return True


def before_and_after(seen: Observed) -> Mapping[str, Score]:
    """Score the prior alone, the estimator alone, half-way between them (uncalibrated), and calibrated.

    The last is cross-validated: each anchor, with all its models, is scored by a fit to the other anchors.
    """
    return {
        "prior": score(seen.prior, seen.correct),
        "estimator": score(seen.p, seen.correct),
        "half-way": score(sigmoid(uncalibrated().logit(seen.p, seen.prior)), seen.correct),
        "calibrated": score(_cross_validated(seen), seen.correct),
    }


def _cross_validated(seen: Observed) -> Floats:
    """Return the calibrated p of each row, by a fit to the other folds' anchors."""
    groups = {name: i for i, name in enumerate(dict.fromkeys(seen.group))}
    fold = np.array([groups[name] % FOLDS for name in seen.group])
    calibrated = np.empty(len(seen))
    for f in np.unique(fold):
        fitted, left = fit_calibration(seen.take(fold != f)), seen.take(fold == f)
        calibrated[fold == f] = sigmoid(fitted.logit(left.p, left.prior))
    return calibrated


def _losses(p: Floats, correct: Floats) -> Floats:
    p = np.clip(p, CLIP, 1 - CLIP)
    return np.asarray(-(correct * np.log(p) + (1 - correct) * np.log1p(-p)))
