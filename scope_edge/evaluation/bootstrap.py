"""Paired differences between routers' predictions, with bootstrap intervals over models and queries."""

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
    """Compare ours with every other router on joining models: the mean over them of each metric's difference.

    The interval is a bootstrap: each draw weights models and query families by Poisson counts, the same query alike in all
    splits. Empty if no model was both right and wrong.
    """
    pairs = [(one, int(m)) for one in found for m in np.flatnonzero(one.part.joined) if _two_kinds(one, int(m))]
    if not pairs:
        return ()
    queries, models = query_weights(found[0].part.data.groups), _model_weights(pairs)
    ours, rows = _drawn(pairs, OURS, queries), []
    for other in found[0].p:
        if other != OURS:
            differences = ours - _drawn(pairs, other, queries)
            for k, metric in enumerate(METRICS):
                mean, draws = float(np.nanmean(differences[0, :, k])), differences[1:, :, k]
                rows.append(PairedDifference(OURS, other, metric, mean, *interval(_means(draws, models))))
    return tuple(rows)


def query_weights(groups: NDArray[np.object_]) -> Floats:
    """Return (1 + resamples, queries): ones, then how often each query's family was drawn. groups: (queries,)."""
    names, family = np.unique(groups.astype(str), return_inverse=True)
    drawn = np.random.default_rng(0).poisson(1.0, (RESAMPLES, len(names)))
    return np.vstack([np.ones(len(groups)), drawn[:, family]])


def interval(draws: Floats) -> tuple[float, float]:
    """Return the 95 % interval of bootstrap draws, NaN left out."""
    low, high = np.nanquantile(draws, LEVEL)
    return float(low), float(high)


def _means(draws: Floats, weights: Floats) -> Floats:
    """Return each draw's weighted mean over pairs, (resamples,); draws, weights: (resamples, pairs)."""
    known = np.isfinite(draws) & (weights > 0)
    with np.errstate(invalid="ignore"):
        means: Floats = np.where(known, draws * weights, 0.0).sum(axis=1) / np.where(known, weights, 0.0).sum(axis=1)
    return means


def _two_kinds(one: SplitPredictions, column: int) -> bool:
    y = one.correct[one.known[:, column], column] > 0.5
    return bool(y.any() and not y.all())


def _drawn(pairs: Sequence[tuple[SplitPredictions, int]], router: str, weights: Floats) -> Floats:
    """Return (1 + resamples, pairs, metrics): as measured, then with resampled queries."""
    out = []
    for one, column in pairs:
        at = one.known[:, column]
        p, y = one.p[router][at, column], one.correct[at, column]
        order = np.argsort(p, kind="stable")
        rows = weights[:, one.part.rows[at]]
        out.append([[getattr(s, name) for name in METRICS] for s in (scores(p, y, w, order) for w in rows)])
    return np.array(out).transpose(1, 0, 2)


def _model_weights(pairs: Sequence[tuple[SplitPredictions, int]]) -> Floats:
    """Return how often each pair's model was drawn, (resamples, pairs)."""
    names = [one.part.names[column] for one, column in pairs]
    models = sorted(set(names))
    drawn = np.random.default_rng(1).poisson(1.0, (RESAMPLES, len(models)))
    return drawn[:, [models.index(name) for name in names]].astype(np.float64)
