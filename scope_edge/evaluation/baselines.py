"""Learned routers: nearest neighbors and scikit-learn's, fitted to all of a model's outcomes on the training queries.

Each sees the same of a query as our estimate: its embedding, state and text features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.errors import MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.training.dataset import Pooled
    from scope_edge.types import Floats, Vector

# Axes of embedding and state that the slower routers see: the rest brings them nothing measurable.
_AXES = 64
# With fewer outcomes of either kind only their share can be learned.
_LEAST = 5
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What routers see of t training and q scored queries: in full, and on the leading axes of the training part."""

    train: Floats
    scored: Floats
    train_short: Floats
    scored_short: Floats
    similarity: Floats


def inputs(train: Pooled, scored: Pooled) -> Inputs:
    """Return what routers see of the queries of two tables."""
    # An embedding's coordinates are of size 1 / sqrt(d); those of a state and features should not outweigh it.
    size = np.sqrt(train.vectors.shape[1])
    states = [one / size for one in _standard(train.states, scored.states)]
    features = [one / size for one in _standard(train.features, scored.features)]
    wide = [np.hstack([one.vectors, state]) for one, state in zip((train, scored), states, strict=True)]
    center = wide[0].mean(axis=0)
    axes = np.linalg.svd(wide[0] - center, full_matrices=False)[2][:_AXES].T
    short = [np.hstack([(one - center) @ axes, extra]) for one, extra in zip(wide, features, strict=True)]
    full = [np.hstack([one, extra]) for one, extra in zip(wide, features, strict=True)]
    similarity = (scored.vectors @ train.vectors.T).astype(np.float64)
    return Inputs(full[0], full[1], short[0], short[1], similarity)


def _standard(train: Floats | Vector, scored: Floats | Vector) -> tuple[Floats, Floats]:
    """Standardise both by the columns of the first, clipped to 6 standard deviations."""
    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-6
    both = [np.clip((one - mean) / scale, -6, 6).astype(np.float64) for one in (train, scored)]
    return both[0], both[1]


def nearest(similarity: Floats, outcomes: Floats, k: int) -> Floats:
    """Return the mean outcome of the k most similar, (q,), moved off 0 and 1 by half an outcome, as log-loss needs."""
    closest = np.argpartition(-similarity, min(k, similarity.shape[1]) - 1, axis=1)[:, :k]
    mean: Floats = (outcomes[closest].sum(axis=1) + 0.5) / (closest.shape[1] + 1)
    return mean


def _knn(seen: Inputs, known: NDArray[np.bool_], outcomes: Floats) -> Floats:
    return nearest(seen.similarity[:, known], outcomes[known], 50)


def _fitted(name: str, seen: Inputs, known: NDArray[np.bool_], outcomes: Floats) -> Floats:
    """Return P(correct) by one of scikit-learn's classifiers, or the share right if there are too few outcomes to fit."""
    right = outcomes[known] > 0.5
    train, scored = (seen.train, seen.scored) if name == "logreg" else (seen.train_short, seen.scored_short)
    if min(right.sum(), (~right).sum()) < _LEAST:
        return np.full(len(scored), (right.sum() + 0.5) / (len(right) + 1))
    with warnings.catch_warnings():
        # A fit may stop at its limit of steps.
        warnings.simplefilter("ignore")
        p: Floats = _classifier(name).fit(train[known], right).predict_proba(scored)[:, 1]
    return p


def _classifier(name: str) -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if name == "logreg":
        return LogisticRegression(max_iter=300)
    if name == "svm":
        # Queries are sorted by kind: without shuffling, each fold would leave out a whole kind.
        folds = StratifiedKFold(3, shuffle=True, random_state=_SEED)
        return CalibratedClassifierCV(SVC(C=1.0, gamma="scale"), cv=folds, ensemble=False)
    stopping = {"early_stopping": True, "random_state": _SEED}
    if name == "mlp":
        # Without scaling, inputs as small as an embedding's keep it from learning.
        return make_pipeline(
            StandardScaler(), MLPClassifier((64,), alpha=1.0, learning_rate_init=3e-3, max_iter=200, **stopping)
        )
    return HistGradientBoostingClassifier(max_iter=100, max_leaf_nodes=8, n_iter_no_change=8, **stopping)


LEARNED: Mapping[str, Callable[[Inputs, NDArray[np.bool_], Floats], Floats]] = {
    "knn": _knn,
    **{name: partial(_fitted, name) for name in ("logreg", "svm", "mlp", "gboost")},
}


def check_installed(baselines: tuple[str, ...]) -> None:
    """Raise MissingExtraError if scipy, or scikit-learn for one of the baselines, is not installed."""
    learned = [name for name in baselines if name in LEARNED and name != "knn"]
    for name, library, module in (("eval", "scipy", "scipy"), *((one, "scikit-learn", "sklearn") for one in learned)):
        if find_spec(module) is None:
            raise MissingExtraError(f"{name} needs {library}, which is not installed; pip install 'scope-edge[eval]'")
