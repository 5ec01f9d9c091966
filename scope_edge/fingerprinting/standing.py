"""A model's ability on one anchor set with its standard error, and its place among the models that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.ability import fit_correct, query_row
from scope_edge.fingerprints import Fingerprint
from scope_edge.prior import Prior
from scope_edge.telling import Telling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.ability import Population
    from scope_edge.anchors import AnchorSet
    from scope_edge.prior import Basis
    from scope_edge.records import Floats, ModelCard

_COVERAGE = 0.9  # of the prior's bound on tokens, which is not looked at here


@dataclass(frozen=True, slots=True)
class Ability:
    """value: log-odds of a right answer to an average question of the set. error: its standard error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Place:
    """rank: 1 = most able of `of` models, itself included. better, worse: the nearest ones, nearest first."""

    rank: int
    of: int
    better: tuple[str, ...]
    worse: tuple[str, ...]


class Standing:
    """Fits one model again and again as its answers come in, and says what is best asked next. Milliseconds each."""

    def __init__(self, anchors: AnchorSet, population: Population, others: Sequence[Fingerprint] = ()) -> None:
        """others: what is known of the model from other anchor sets."""
        self._anchors, self._population, self._others = anchors, population, tuple(others)
        rows, offsets = query_row(anchors.map_difficulty, anchors.domains, anchors.traits, population)
        self._row, self._offset = rows.mean(axis=0), float(offsets.mean())
        self._telling = Telling(anchors, population)

    def of(self, correct: Floats) -> Ability:
        """After outcomes (n,), NaN where there is none."""
        mean, covariance = self._fit(correct)
        return Ability(float(self._row @ mean) + self._offset, float(self._row @ covariance @ self._row) ** 0.5)

    def following(self, correct: Floats, open_: NDArray[np.bool_], under_way: Sequence[int]) -> int:
        """Which of the open anchors, (n,) and at least one, tells most after these outcomes and those under way."""
        return self._telling.following(*self._fit(correct), open_.astype(np.float64), 1, under_way)[0]

    def _fit(self, correct: Floats) -> tuple[Floats, Floats]:
        own = Fingerprint("", self._anchors, correct, np.full(len(correct), np.nan))
        return fit_correct((*self._others, own), self._population)


def place_among(
    model: ModelCard,
    cards: Sequence[ModelCard],
    fingerprints: Mapping[str, Sequence[Fingerprint]],
    anchors: AnchorSet,
    basis: Basis,
) -> Place:
    """Where a model stands among cards with a fingerprint, by what each is expected to get right of a set's questions."""
    known = [card for card in cards if card.id != model.id and fingerprints.get(card.id)]
    pool = [model, *known]
    prior = Prior(basis, pool, fingerprints, coverage=_COVERAGE)
    share = prior.on(anchors).p_correct.mean(axis=0)
    order = np.argsort(-share, kind="stable").tolist()
    at = order.index(0)
    names = [pool[i].id for i in order]
    return Place(at + 1, len(pool), tuple(reversed(names[max(0, at - 2) : at])), tuple(names[at + 1 : at + 3]))
