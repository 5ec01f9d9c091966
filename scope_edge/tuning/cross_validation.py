"""Known outcomes predicted as `route` would predict new ones: from abilities that were fitted without them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.estimation.anchors import AnchorSet, text_hash
from scope_edge.estimation.difficulty import MapPositions
from scope_edge.estimation.irt import IrtEstimator, IrtModel
from scope_edge.estimation.newton import logit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.ability import Population
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.estimation.irt import EstimateTable
    from scope_edge.types import Floats, ModelCard

# The most fits per model and anchor set: with more outcomes, a few are left out together.
_GROUPS = 100


@dataclass(frozen=True, slots=True, eq=False)
class LeftOutPrediction:
    """n outcomes and their predictions: shape (n,); NaN = not known.

    Attributes:
        logit: log-odds of P(correct). room: log of the upper bound over the median.
        reach: log of tokens over the median, divided by `room`; up to 1 they are covered.
        model: index of the model. fold: of the anchor.
    """

    logit: Floats
    correct: Floats
    reach: Floats
    room: Floats
    model: NDArray[np.intp]
    fold: NDArray[np.intp]

    def take(self, rows: NDArray[np.bool_]) -> LeftOutPrediction:
        """Return these rows."""
        return LeftOutPrediction(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def is_fair(part: Fingerprint) -> bool:
    """Return whether the map can be judged by the outcomes on these anchors.

    The user must have measured them, and the map must have placed the set. The bundled core sets were chosen by outcomes,
    which the map does not know: its apparent errors on them do not hold elsewhere.
    """
    return part.own and part.anchors.own


def predict(
    irt: IrtModel,
    card: ModelCard,
    parts: Sequence[Fingerprint],
    coverage: float,
    leaving: tuple[Mapping[str, int], int | None],
    taught: Collection[int] = (),
) -> LeftOutPrediction:
    """Predict a model's own outcomes, each from an ability that was fitted without it.

    leaving: the folds of the anchors, and one fold to leave out of everything. With None each outcome is left out alone (or,
    beyond `_GROUPS`, with a few others), else each other fold as a whole. taught: hashes of the map's training questions,
    whose outcomes are no evidence for new ones.
    """
    folds, left = leaving
    others = [
        one if left is None else _without(one, np.flatnonzero([folds.get(id) == left for id in one.anchors.ids]))
        for one in parts
    ]
    found = []
    for number, one in enumerate(parts):
        if not is_fair(one):
            continue
        fold = np.array([folds[id] for id in one.anchors.ids])
        fresh = np.array([text_hash(text) not in taught for text in one.anchors.texts] or [True] * len(fold))
        rows = np.flatnonzero(np.isfinite(one.correct) & fresh & (fold != left))
        if not len(rows):
            continue
        group = np.arange(len(rows)) % _GROUPS if left is None else np.unique(fold[rows], return_inverse=True)[1]
        versions = {
            f"{card.id}#{g}": [
                _without(other, rows[group == g]) if k == number else other for k, other in enumerate(others)
            ]
            for g in range(group.max() + 1)
        }
        # Every version of the model has the bank's ability of it.
        abilities = dict.fromkeys(versions, irt.abilities[card.id]) if card.id in irt.abilities else {}
        cards = [replace(card, id=name) for name in versions]
        estimator = IrtEstimator(replace(irt, abilities=abilities), cards, versions, coverage=coverage)
        table = estimator.table(_places(one.anchors, irt.population), np.ones(len(fold)))
        found.append(_compared(table, one, (rows, group), card.token_factor, fold))
    return joined(found)


def _places(anchors: AnchorSet, population: Population) -> MapPositions:
    """Return the anchors' positions on the map, without the blur that goes into fitting abilities."""
    sharp = anchors.domains @ population.discrimination / anchors.discrimination
    return MapPositions.measured(
        anchors.map_difficulty, anchors.log_length, anchors.domains, anchors.traits * sharp[:, None]
    )


def _without(part: Fingerprint, rows: NDArray[np.intp]) -> Fingerprint:
    if not len(rows) or not part.own:
        return part
    correct, tokens = part.correct.copy(), part.tokens.copy()
    correct[rows], tokens[rows] = np.nan, np.nan
    return replace(part, correct=correct, tokens=tokens)


def _compared(
    table: EstimateTable,
    part: Fingerprint,
    at: tuple[NDArray[np.intp], NDArray[np.intp]],
    factor: float,
    fold: NDArray[np.intp],
) -> LeftOutPrediction:
    """Compare outcomes with predictions. at: anchors, and for each the column of the table that does not know it."""
    rows = at[0]
    p, middle, high = table.p_correct[at], np.log(table.tokens[at]), np.log(table.tokens_hi[at])
    tokens = np.where(part.tokens[rows] > 0, part.tokens[rows] * factor, np.nan)
    room = high - middle
    return LeftOutPrediction(
        logit=logit(p),
        correct=part.correct[rows],
        reach=(np.log(tokens) - middle) / np.where(room > 0, room, np.nan),
        room=room,
        model=np.zeros(len(rows), np.intp),
        fold=fold[rows],
    )


def joined(parts: Sequence[LeftOutPrediction]) -> LeftOutPrediction:
    """Join parts; the model is the number of the part."""
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) if parts else np.zeros(0)
        for name in LeftOutPrediction.__dataclass_fields__
    }
    columns["model"] = np.repeat(np.arange(len(parts)), [len(part.model) for part in parts])
    return LeftOutPrediction(**columns)
