"""Routers that learn a model from all its outcomes on the training queries: nearest neighbors, and scikit-learn's (its room).

Each sees what our prior sees of a query, its embedding, state and text features, and gives P(correct) of every scored query.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.errors import MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.training.dataset import Pooled
    from scope_edge.types import Floats, Vector

# Axes that the slower ones see of embedding and state: leaving out the rest costs them nothing that shows.
_AXES = 64
# Outcomes of either kind below which there is nothing to learn but the share.
_LEAST = 5
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What is seen of t training and q scored queries: whole, and on the leading axes of the training part."""

    train: Floats
    scored: Floats
    train_short: Floats
    scored_short: Floats
    similarity: Floats


def inputs(train: Pooled, scored: Pooled) -> Inputs:
    """What is seen of the queries of two tables."""
    # An embedding's coordinates are of size 1 / sqrt(d); those of a state and features should not outweigh it.
    size = np.sqrt(train.vectors.shape[1])
    states = [one / size for one in _standard(train.states, scored.states)]
    features = [one / size for one in _standard(train.features, scored.features)]
    wide = [np.hstack([one.vectors, state]) for one, state in zip((train, scored), states, strict=True)]
    center = wide[0].mean(axis=0)
    axes = np.linalg.svd(wide[0] - center, full_matrices=False)[2][:_AXES].T
    short = [np.hstack([(one - center) @ axes, extra]) for one, extra in zip(wide, features, strict=True)]
    whole = [np.hstack([one, extra]) for one, extra in zip(wide, features, strict=True)]
    similarity = (scored.vectors @ train.vectors.T).astype(np.float64)
    return Inputs(whole[0], whole[1], short[0], short[1], similarity)


def _standard(train: Floats | Vector, scored: Floats | Vector) -> tuple[Floats, Floats]:
    """Columns of both in the first one's standard deviations from its mean, at most 6."""
    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-6
    both = [np.clip((one - mean) / scale, -6, 6).astype(np.float64) for one in (train, scored)]
    return both[0], both[1]


def nearest(similarity: Floats, outcomes: Floats, k: int) -> Floats:
    """(q,) mean outcome of the k most similar, moved off 0 and 1 by half an outcome, as log-loss needs."""
    closest = np.argpartition(-similarity, min(k, similarity.shape[1]) - 1, axis=1)[:, :k]
    mean: Floats = (outcomes[closest].sum(axis=1) + 0.5) / (closest.shape[1] + 1)
    return mean


def knn(seen: Inputs, known: NDArray[np.bool_], outcomes: Floats) -> Floats:
    """The mean of the 50 nearest training queries."""
    return nearest(seen.similarity[:, known], outcomes[known], 50)


def _learned(make: Callable[[], Any], *, short: bool) -> Callable[[Inputs, NDArray[np.bool_], Floats], Floats]:
    def predict(seen: Inputs, known: NDArray[np.bool_], outcomes: Floats) -> Floats:
        right = outcomes[known] > 0.5
        train, scored = (seen.train_short, seen.scored_short) if short else (seen.train, seen.scored)
        if min(right.sum(), (~right).sum()) < _LEAST:
            return np.full(len(scored), (right.sum() + 0.5) / (len(right) + 1))
        with warnings.catch_warnings():
            # A fit that stops at its limit of steps is what it is.
            warnings.simplefilter("ignore")
            p: Floats = make().fit(train[known], right).predict_proba(scored)[:, 1]
        return p

    return predict


def _logreg() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=300)


def _svm() -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import SVC

    # Queries come in the order of their kinds: folds that are not shuffled would leave out a kind at a time.
    folds = StratifiedKFold(3, shuffle=True, random_state=_SEED)
    return CalibratedClassifierCV(SVC(C=1.0, gamma="scale"), cv=folds, ensemble=False)


def _mlp() -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Inputs of an embedding's size would keep it from learning at all.
    network = MLPClassifier(
        (64,), alpha=1.0, learning_rate_init=3e-3, early_stopping=True, max_iter=200, random_state=_SEED
    )
    return make_pipeline(StandardScaler(), network)


def _gboost() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=100, max_leaf_nodes=8, early_stopping=True, n_iter_no_change=8, random_state=_SEED
    )


LEARNED: Mapping[str, Callable[[Inputs, NDArray[np.bool_], Floats], Floats]] = {
    "knn": knn,
    "logreg": _learned(_logreg, short=False),
    "svm": _learned(_svm, short=True),
    "mlp": _learned(_mlp, short=True),
    "gboost": _learned(_gboost, short=True),
}


def check_learned(names: tuple[str, ...]) -> None:
    """Raises MissingExtraError when one of them needs scikit-learn and it is not installed."""
    from importlib.util import find_spec

    needing = [name for name in names if name in LEARNED and name != "knn"]
    if needing and find_spec("sklearn") is None:
        raise MissingExtraError(
            f"{needing[0]} needs scikit-learn, which is not installed; pip install 'scope-edge[eval]'"
        )
