"""Is one router's prediction ahead of another's? Paired differences, with intervals over models *and* queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimation.metrics import scores
from scope_edge.evaluation.predict import OURS, SplitPredictions
from scope_edge.evaluation.report import PairedDifference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.types import Floats

METRICS = ("auc", "accuracy", "brier", "logloss")
RESAMPLES = 200
LEVEL = (0.025, 0.975)


def paired(found: Sequence[SplitPredictions]) -> tuple[PairedDifference, ...]:
    """Ours against every other router, on models that joined: mean over them of each metric's difference.

    The interval is a bootstrap: a draw weighs every model and every family of queries by how often it came (Poisson), the
    same query alike in all splits it stands in. Empty where no model was both right and wrong.
    """
    others = [router for router in found[0].p if router != OURS]
    if not _pairs(found):
        return ()
    drawn = {router: _drawn(found, router) for router in (OURS, *others)}
    rows = []
    for other in others:
        differences = drawn[OURS] - drawn[other]
        for k, metric in enumerate(METRICS):
            measured, draws = differences[0, :, k], differences[1:, :, k]
            weights = _model_weights(found)
            rows.append(_difference(other, metric, measured, draws, weights))
    return tuple(rows)


def query_weights(groups: NDArray[np.object_]) -> Floats:
    """(1 + resamples, queries): ones, then how often each query's family came in a draw. groups: (queries,)."""
    names, family = np.unique(groups.astype(str), return_inverse=True)
    drawn = np.random.default_rng(0).poisson(1.0, (RESAMPLES, len(names)))
    return np.vstack([np.ones(len(groups)), drawn[:, family]])


def interval(draws: Floats) -> tuple[float, float]:
    """The 95 % interval of bootstrap draws, NaN left out."""
    low, high = np.nanquantile(draws, LEVEL)
    return float(low), float(high)


def _difference(other: str, metric: str, measured: Floats, draws: Floats, weights: Floats) -> PairedDifference:
    """measured (pairs,), draws (resamples, pairs), weights (resamples, pairs) of the pairs' models."""
    known = np.isfinite(draws) & (weights > 0)
    with np.errstate(invalid="ignore"):
        means = np.where(known, draws * weights, 0.0).sum(axis=1) / np.where(known, weights, 0.0).sum(axis=1)
    low, high = interval(means)
    return PairedDifference(OURS, other, metric, float(np.nanmean(measured)), low, high)


def _pairs(found: Sequence[SplitPredictions]) -> list[tuple[SplitPredictions, int]]:
    """Every model that joined in every split; all models where none did."""
    pairs = []
    for one in found:
        pairs += [(one, int(column)) for column in np.flatnonzero(one.part.joined) if _two_kinds(one, int(column))]
    return pairs


def _two_kinds(one: SplitPredictions, column: int) -> bool:
    y = one.correct[one.known[:, column], column] > 0.5
    return bool(y.any() and not y.all())


def _drawn(found: Sequence[SplitPredictions], router: str) -> Floats:
    """(1 + resamples, pairs, metrics): as measured, then with resampled queries."""
    weights = query_weights(found[0].part.data.groups)
    out = []
    for one, column in _pairs(found):
        at = one.known[:, column]
        p, y = one.p[router][at, column], one.correct[at, column]
        order = np.argsort(p, kind="stable")
        rows = weights[:, one.part.rows[at]]
        out.append([[getattr(s, name) for name in METRICS] for s in (scores(p, y, w, order) for w in rows)])
    return np.array(out).transpose(1, 0, 2)


def _model_weights(found: Sequence[SplitPredictions]) -> Floats:
    """(resamples, pairs) how often each pair's model came."""
    names = [one.part.names[column] for one, column in _pairs(found)]
    models = sorted(set(names))
    drawn = np.random.default_rng(1).poisson(1.0, (RESAMPLES, len(models)))
    return drawn[:, [models.index(name) for name in names]].astype(np.float64)
