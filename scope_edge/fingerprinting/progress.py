"""A run's options and reports, and a model's ability and rank as its answers come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from scope_edge.estimation.ability import fit_correct, query_row
from scope_edge.estimation.fingerprints import Fingerprint
from scope_edge.estimation.irt import IrtEstimator
from scope_edge.estimation.item_selection import ItemSelector
from scope_edge.fingerprinting.gguf import GenerationSpeed
from scope_edge.fingerprinting.questions import CORE, Question
from scope_edge.providers.openai.client import RetryPolicy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.ability import Population
    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.estimation.irt import IrtModel
    from scope_edge.types import Floats, ModelCard

_COVERAGE = 0.9  # of the bound on tokens, which is not used here


@dataclass(frozen=True, slots=True)
class FieldAbility:
    """value: log-odds of a right answer to an average question of the set. error: its standard error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Rank:
    """rank: 1 = most able of `of` models, itself included. better, worse: ids of the nearest models, nearest first."""

    rank: int
    of: int
    better: tuple[str, ...]
    worse: tuple[str, ...]


class PoolRanking:
    """Fits one model whenever an answer comes in, and selects the next anchor. Milliseconds each."""

    def __init__(self, anchors: AnchorSet, population: Population, others: Sequence[Fingerprint] = ()) -> None:
        """others: the model's fingerprints on other anchor sets."""
        self._anchors, self._population, self._others = anchors, population, tuple(others)
        rows, offsets = query_row(anchors.map_difficulty, anchors.domains, anchors.traits, population)
        self._row, self._offset = rows.mean(axis=0), float(offsets.mean())
        self._selector = ItemSelector(anchors, population)

    def ability(self, correct: Floats) -> FieldAbility:
        """Estimate ability after outcomes (n,), NaN where missing."""
        mean, covariance = self._fit(correct)
        return FieldAbility(float(self._row @ mean) + self._offset, float(self._row @ covariance @ self._row) ** 0.5)

    def next_item(self, correct: Floats, open_: NDArray[np.bool_], under_way: Sequence[int]) -> int:
        """Select the most informative of the open anchors, (n,) and at least one, after these outcomes and those under way."""
        return self._selector.next_items(*self._fit(correct), open_.astype(np.float64), 1, under_way)[0]

    def _fit(self, correct: Floats) -> tuple[Floats, Floats]:
        own = Fingerprint("", self._anchors, correct, np.full(len(correct), np.nan))
        return fit_correct((*self._others, own), self._population)


def place_among(
    model: ModelCard,
    cards: Sequence[ModelCard],
    fingerprints: Mapping[str, Sequence[Fingerprint]],
    anchors: AnchorSet,
    irt: IrtModel,
) -> Rank:
    """Rank a model among the cards with a fingerprint, by the share of a set's questions it is expected to get right."""
    pool = [model, *(card for card in cards if card.id != model.id and fingerprints.get(card.id))]
    share = (
        IrtEstimator(irt, pool, fingerprints, coverage=_COVERAGE)
        .table(anchors.positions, np.ones(len(anchors)))
        .p_correct.mean(axis=0)
    )
    order = np.argsort(-share, kind="stable").tolist()
    at = order.index(0)
    names = [pool[i].id for i in order]
    return Rank(at + 1, len(pool), tuple(reversed(names[max(0, at - 2) : at])), tuple(names[at + 1 : at + 3]))


Ended = Literal["all", "precision", "max_usd", "interrupted"]


@dataclass(frozen=True, slots=True)
class FingerprintOptions:
    """How a model is asked.

    Attributes:
        anchors: name of the anchor set. limit: stop after so many answers, most informative questions first; None = all.
        precision: stop once ability's standard error is this small, in log-odds; None = never.
        max_usd: cap on the cost of all calls. max_tokens: of one answer.
        concurrency: calls at once (endpoints). patience: with an endpoint.
        again: forget earlier answers. seed: if not 0, questions made by templates get other numbers.
    """

    anchors: str = CORE
    limit: int | None = None
    precision: float | None = None
    max_usd: float | None = None
    max_tokens: int = 2048
    concurrency: int = 1
    patience: RetryPolicy = field(default_factory=RetryPolicy)
    again: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Projection:
    """What a run would do. Tokens are own tokens, of the questions still to be asked.

    Attributes:
        how: where the questions go, in words. questions: those with an answer and those an average model would be asked now,
            in the set's order. answered: anchors with an answer.
        usd: expected; usd_most: of the dearest questions, with every answer as long as allowed. None = unknown price.
        seconds: expected; None = unknown speed. spent_usd: by earlier runs, calls without an answer included.
    """

    model: str
    anchor_set: str
    how: str
    questions: tuple[Question, ...]
    answered: tuple[str, ...]
    prompt_tokens: float
    completion_tokens: float
    usd: float | None
    usd_most: float | None
    seconds: float | None
    spent_usd: float

    @property
    def left(self) -> int:
        """Questions still to be asked."""
        return len(self.questions) - len(self.answered)


@dataclass(frozen=True, slots=True)
class FingerprintProgress:
    """The progress of a run. seconds_left: at the pace so far, None before the first answer. usd: spent on answers."""

    done: int
    total: int
    seconds_left: float | None
    ability: FieldAbility
    usd: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a run.

    Attributes:
        ended: why it ended: all questions were asked, ability is precise enough, the next call could exceed the cap, or Ctrl-C.
        asked: questions of this run. answered: with an answer, those of earlier runs included.
        missing: anchor -> why it has no answer. cut: answers ended by the limit on tokens.
        correct: mean over the answers. fields: field -> (mean, answers).
        prompt_tokens, completion_tokens: total own tokens. counted: how tokens were counted -> answers.
        usd: spent on answers; usd_most: with calls that got no answer. None = unknown price.
        seconds: of this run. speed: measured in it.
        fingerprint: the pack that was written; None = interrupted, and an earlier one knows more answers.
        card: whether the speed was written on the user's card.
    """

    model: str
    anchor_set: str
    ended: Ended
    asked: int
    answered: int
    missing: Mapping[str, str]
    cut: int
    correct: float
    fields: Mapping[str, tuple[float, int]]
    ability: FieldAbility
    place: Rank
    prompt_tokens: float
    completion_tokens: float
    counted: Mapping[str, int]
    usd: float | None
    usd_most: float | None
    seconds: float
    speed: GenerationSpeed
    fingerprint: Path | None
    card: bool
