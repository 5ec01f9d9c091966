"""Fit a user's own calibration of the estimates for the user's models.

Every outcome the user measured is predicted as `route` would predict it for a new query: from the anchor's position on the
map, and from an ability fitted without that anchor. From the errors a slope and an intercept in log-odds (Platt 1999) are
fitted, and the width of the bound on length.

Two kinds of outcomes are left out. Bundled outcomes taught the bank. The bundled core sets are no random sample: a
correction fitted to them made log-loss on new queries worse by 0.004 to 0.05 in all five trials, while one fitted to as
many random queries did no harm (build_scripts/measure_tuning.py).

Scores before and after are cross-validated over anchors: neither the correction nor the abilities that score an anchor
were fitted to an outcome of its fold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import UsageError
from scope_edge.estimation.anchors import taught_by
from scope_edge.estimation.blas import one_thread
from scope_edge.estimation.fingerprints import load_fingerprints
from scope_edge.estimation.irt import load_irt_model
from scope_edge.estimation.metrics import ece, ece_floor
from scope_edge.estimation.newton import fit_platt, sigmoid
from scope_edge.estimation.refit import refitted
from scope_edge.estimation.user_calibration import Personal, file, save_personal
from scope_edge.tuning.cross_validation import LeftOutPrediction, is_fair, joined, predict

if TYPE_CHECKING:
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.estimation.irt import IrtModel
    from scope_edge.types import Floats, ModelCard

FOLDS = 5
# The weight of "no change", in outcomes: with as many of the user's own, a fit goes half-way.
PULL = 50
# With fewer outcomes a correction cannot be told from chance.
LEAST_OUTCOMES = 50


@dataclass(frozen=True, slots=True)
class Figures:
    """The quality of estimates. ece: above that of perfect estimates. width: of upper bound over median.

    The last two are None without any known length.
    """

    outcomes: int
    logloss: float
    brier: float
    ece: float
    coverage: float | None
    width: float | None


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """The result of a calibration.

    Attributes:
        personal: fitted to all outcomes; a part that did not help in cross-validation is left at no change.
        full: with every part, whether it helped or not. helps: "probability", "length", both or neither.
        before, after: model (or "all") -> figures; after is cross-validated, with every part.
    """

    personal: Personal
    full: Personal
    helps: tuple[str, ...]
    before: Mapping[str, Figures]
    after: Mapping[str, Figures]


@dataclass(frozen=True, slots=True)
class StoredCalibration:
    """A calibration, whether it was stored, and the file for it."""

    calibrated: CalibrationResult
    stored: bool
    where: Path


@one_thread()
def calibrate_own(
    cards: Sequence[ModelCard],
    coverage: float = 0.9,
    *,
    dry_run: bool = False,
    anyway: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> StoredCalibration:
    """Calibrate for a pool and store the parts that help. anyway: store every part.

    Raises UsageError (too few outcomes), AssetError (a file is missing or damaged, or cannot be written).
    """
    fingerprints, irt = load_fingerprints()[1], load_irt_model()
    # As in `route`, the difficulty of the user's anchors comes from the user's other models too.
    known = refitted(fingerprints, irt, [card.id for card in cards])
    found = calibrate_pool(irt, cards, known, coverage, progress, taught=taught_by()[1])
    store = not dry_run and (anyway or bool(found.helps))
    if store:
        save_personal(found.full if anyway else found.personal, fingerprints)
    return StoredCalibration(found, store, file())


def calibrate_pool(
    irt: IrtModel,
    cards: Sequence[ModelCard],
    fingerprints: Mapping[str, Sequence[Fingerprint]],
    coverage: float,
    progress: Callable[[str, int, int], None] | None = None,
    *,
    taught: Collection[int] = (),
) -> CalibrationResult:
    """Fit to the user's own outcomes of these models. Raises UsageError if they are too few.

    taught: hashes of the bank's training questions.
    """
    mine = [card for card in cards if any(map(is_fair, fingerprints.get(card.id, ())))]
    if not mine:
        raise UsageError(
            "no model of the pool was measured by you on questions of your own or on core-250, and the bundled outcomes"
            " cannot calibrate; `scope-edge import` brings yours, `scope-edge fingerprint MODEL` asks a model"
        )
    folds = _folds([one for card in mine for one in fingerprints[card.id] if one.own])
    jobs = (1 + FOLDS) * len(mine)
    seen: list[LeftOutPrediction] = []
    for left in (None, *range(FOLDS)):
        parts = []
        for i, card in enumerate(mine):
            if progress is not None:
                progress(f"leaving anchors of {card.id} out", len(seen) * len(mine) + i, jobs)
            parts.append(predict(irt, card, fingerprints[card.id], coverage, (folds, left), taught))
        seen.append(joined(parts))
    everything, without = seen[0], seen[1:]
    if len(everything.correct) < LEAST_OUTCOMES:
        raise UsageError(
            f"you measured {len(everything.correct)} outcomes of the pool's models on questions new to the bank; it takes"
            f" {LEAST_OUTCOMES} to tell a correction from chance, and `scope-edge fingerprint` measures more"
        )
    names = tuple(card.id for card in mine)
    after = _cross_validated(everything, without, coverage)
    full = Personal(*_fit(everything, coverage), models=names)
    helps = _helps(everything, after, coverage)
    slope, intercept = (full.slope, full.intercept) if "probability" in helps else (1.0, 0.0)
    return CalibrationResult(
        personal=replace(full, slope=slope, intercept=intercept, widening=full.widening if "length" in helps else 1.0),
        full=full,
        helps=helps,
        before=_figures(everything, names),
        after=_figures(after, names),
    )


def _folds(parts: Sequence[Fingerprint]) -> Mapping[str, int]:
    """Return the fold of each anchor: random, but the same in every run and for all models."""
    ids = sorted({id for one in parts for id in one.anchors.ids})
    order = np.random.default_rng(0).permutation(len(ids))
    return {ids[at]: place % FOLDS for place, at in enumerate(order.tolist())}


def _fit(seen: LeftOutPrediction, coverage: float) -> tuple[float, float, float]:
    """Fit (slope, intercept, widening), pulled towards no change as if by `PULL` typical ones of these outcomes."""
    rows, p = np.column_stack([seen.logit, np.ones_like(seen.logit)]), sigmoid(seen.logit)
    # A little in every direction: if all log-odds are equal, slope and intercept cannot be told apart.
    pull = PULL / len(rows) * (rows * (p * (1 - p))[:, None]).T @ rows + 1e-3 * np.eye(2)
    slope, intercept = fit_platt(seen.logit, seen.correct, pull).tolist()
    # A slope of 0 or less would reverse the order of queries.
    return max(slope, 0.05), intercept, _widening(seen.reach[np.isfinite(seen.reach)], coverage)


def _widening(reach: Floats, coverage: float) -> float:
    """Return the reach that covers a new outcome with this probability (split conformal), its log pulled towards 0."""
    n = len(reach)
    rank = int(np.ceil((n + 1) * coverage))
    if not 1 <= rank <= n:
        return 1.0
    found = float(np.clip(np.sort(reach)[rank - 1], 0.05, 20.0))
    return float(np.exp(np.log(found) * n / (n + PULL)))


def _cross_validated(
    seen: LeftOutPrediction, without: Sequence[LeftOutPrediction], coverage: float
) -> LeftOutPrediction:
    """Correct every fold by a fit without it, in the order of `seen`."""
    after = seen
    for fold, other in enumerate(without):
        here = seen.fold == fold
        if here.any() and len(other.correct):
            slope, intercept, widening = _fit(other, coverage)
            after = replace(
                after,
                logit=np.where(here, slope * seen.logit + intercept, after.logit),
                reach=np.where(here, seen.reach / widening, after.reach),
                room=np.where(here, seen.room * widening, after.room),
            )
    return after


def _helps(before: LeftOutPrediction, after: LeftOutPrediction, coverage: float) -> tuple[str, ...]:
    """Return the parts that improve by more than their standard error: log-loss, and the error of coverage."""
    gain = _losses(before) - _losses(after)
    found = ["probability"] if gain.mean() > gain.std() / np.sqrt(len(gain)) else []
    known = np.isfinite(before.reach)
    if known.any():
        off = [abs((one.reach[known] <= 1).mean() - coverage) for one in (before, after)]
        if off[0] - off[1] > np.sqrt(coverage * (1 - coverage) / known.sum()):
            found.append("length")
    return tuple(found)


def _losses(seen: LeftOutPrediction) -> Floats:
    losses: Floats = np.logaddexp(0, seen.logit) - seen.correct * seen.logit
    return losses


def _figures(seen: LeftOutPrediction, names: Sequence[str]) -> Mapping[str, Figures]:
    parts = {name: seen.take(seen.model == i) for i, name in enumerate(names)} | {"all": seen}
    return {name: _figure(part) for name, part in parts.items() if len(part.model)}


def _figure(seen: LeftOutPrediction) -> Figures:
    p, known = sigmoid(seen.logit), np.isfinite(seen.reach)
    return Figures(
        outcomes=len(p),
        logloss=float(_losses(seen).mean()),
        brier=float(((p - seen.correct) ** 2).mean()),
        ece=ece(p, seen.correct) - ece_floor(p),
        coverage=float((seen.reach[known] <= 1).mean()) if known.any() else None,
        width=float(np.exp(seen.room[known].mean())) if known.any() else None,
    )
