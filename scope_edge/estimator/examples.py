"""What the estimator is shown of a model: the anchors with text nearest to the query, and how the model did on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimator.prompt import CORRECT_FROM, Example

if TYPE_CHECKING:
    from scope_edge.anchors import AnchorSet
    from scope_edge.costs import Ints
    from scope_edge.fingerprints import Fingerprint
    from scope_edge.records import Floats, ModelCard, Vector


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """One model on one set: the rows with both outcomes known, their lengths (own tokens) and whether correct."""

    set: int
    rows: Ints
    lengths: Ints
    correct: Floats


class TextSlices:
    """Outcomes of a pool's models on the anchor sets that have text.

    An outcome that is missing, in part or whole, is never shown, neither as "no" nor as a length of 0.
    """

    def __init__(self, pool: Sequence[ModelCard], fingerprints: Mapping[str, Sequence[Fingerprint]]) -> None:
        self.names = tuple(card.id for card in pool)
        self.sets: list[AnchorSet] = []
        self._measured = [self._of(card, fingerprints.get(card.id, ())) for card in pool]
        # The models, by index in the pool, that have at least one outcome to show.
        self.models = tuple(i for i, parts in enumerate(self._measured) if parts)

    def _of(self, card: ModelCard, parts: Sequence[Fingerprint]) -> tuple[_Measured, ...]:
        found = []
        for one in parts:
            rows = np.flatnonzero(np.isfinite(one.correct) & (one.tokens > 0)) if one.anchors.texts else ()
            if not len(rows):
                continue
            names = [known.name for known in self.sets]
            if one.anchors.name not in names:
                self.sets.append(one.anchors)
                names.append(one.anchors.name)
            own = np.maximum(np.rint(one.tokens[rows] * card.token_factor), 1).astype(np.intp)
            found.append(_Measured(names.index(one.anchors.name), np.asarray(rows), own, one.correct[rows]))
        return tuple(found)

    def similarities(self, vector: Vector) -> list[Vector]:
        """Cosine of a unit vector with every anchor of every set in `sets`: computed once a query, for all models."""
        return [one.vectors @ vector for one in self.sets]

    def examples(
        self, model: int, similarities: Sequence[Vector], k: int, *, without: str | None = None
    ) -> tuple[Example, ...]:
        """The k measured anchors nearest to the query, nearest first; a question is shown once.

        model: index in the pool. without: a question that must not be shown, being the one that is asked.
        """
        near = [
            (-float(similarities[part.set][row]), part.set, int(row), int(length), float(correct))
            for part in self._measured[model]
            for row, length, correct in _nearest(part, similarities[part.set], 2 * k)
        ]
        shown: dict[str, Example] = {}
        for _, of, row, length, correct in sorted(near):
            text = self.sets[of].texts[row]
            if text != without and text not in shown and len(shown) < k:
                shown[text] = Example(text, length, correct >= CORRECT_FROM)
        return tuple(shown.values())


def _nearest(part: _Measured, similarity: Vector, k: int) -> zip[tuple[int, int, float]]:
    order = np.argsort(-similarity[part.rows], kind="stable")[:k]
    return zip(part.rows[order].tolist(), part.lengths[order].tolist(), part.correct[order].tolist(), strict=True)
