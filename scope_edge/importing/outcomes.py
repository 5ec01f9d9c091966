"""Outcomes gathered by model and question, whatever the format; and what an import came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import AssetError

if TYPE_CHECKING:
    from scope_edge.placing import Question
    from scope_edge.records import Floats

# Models x questions; 32 bytes each while they are gathered.
MAX_CELLS = 4_000_000


class Tally:
    """What models did on a number of questions. Repeated measurements of a pair are averaged over what each knew."""

    def __init__(self, questions: int) -> None:
        self._n = questions
        self._rows: dict[str, Floats] = {}
        self.repeated = 0

    @property
    def models(self) -> tuple[str, ...]:
        """In the order in which they came."""
        return tuple(self._rows)

    def add(self, model: str, question: int, correct: float | None, tokens: float | None) -> None:
        """One measurement; None = not known. Raises AssetError when there are too many models for so many questions."""
        row = self._rows.get(model)
        if row is None:
            if (len(self._rows) + 1) * self._n > MAX_CELLS:
                raise AssetError(f"more than {MAX_CELLS} pairs of model and question; import fewer models or questions")
            row = self._rows[model] = np.zeros((4, self._n))
        self.repeated += bool(correct is not None and row[1, question])
        for at, value in ((0, correct), (2, tokens)):
            if value is not None:
                row[at, question] += value
                row[at + 1, question] += 1

    def of(self, model: str) -> tuple[Floats, Floats]:
        """A model's (correct, tokens), each (questions,); NaN = missing."""
        row = self._rows[model]
        with np.errstate(invalid="ignore"):
            correct, tokens = (np.where(row[at + 1] > 0, row[at] / row[at + 1], np.nan) for at in (0, 2))
        return correct, tokens

    def pairs(self) -> Floats:
        """(questions,) how many pairs of models each tells apart, one right and one wrong."""
        right, known = np.zeros(self._n), np.zeros(self._n)
        for model in self._rows:
            correct, _ = self.of(model)
            right += np.nan_to_num(correct)
            known += ~np.isnan(correct)
        return right * (known - right)


@dataclass(frozen=True, slots=True)
class Material:
    """What a format gave: questions with text, outcomes on them, and what was left out (reason -> how many)."""

    source: str
    questions: tuple[Question, ...]
    tally: Tally
    dropped: Counter[str]


def most_telling(categories: Sequence[str], pairs: Floats) -> list[int]:
    """Every question's row: categories take turns, each giving the question that tells most pairs of models apart.

    Where outcomes tell nothing (one model, or all alike) that is the questions evenly by category, in their order.
    """
    by_worth = sorted(range(len(categories)), key=lambda i: (-pairs[i], i))
    turns: Counter[str] = Counter()
    turn = {}
    for i in by_worth:
        turn[i] = turns[categories[i]]
        turns[categories[i]] += 1
    return sorted(by_worth, key=lambda i: turn[i])


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import.

    Attributes:
        anchor_set: its name; `joined` says whether it was there already. anchors: in it.
        models: ids of cards that now have outcomes on it. strangers: models without a card, under the source's name.
        outcomes, missing: cells of the table models x anchors that are known and that are not.
        files: what was written. dropped: what was left out, reason -> how many.
    """

    source: str
    anchor_set: str
    joined: bool
    anchors: int
    models: tuple[str, ...]
    strangers: tuple[str, ...]
    outcomes: int
    missing: int
    files: tuple[Path, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
