"""What a run is asked for and what it tells: plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from scope_edge.chat.client import Patience
from scope_edge.fingerprinting.local import Speed
from scope_edge.fingerprinting.questions import CORE, Question
from scope_edge.fingerprinting.standing import Ability, Place

Ended = Literal["all", "precision", "max_usd"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a model is to be asked.

    Attributes:
        anchors: name of the anchor set. limit: answers there are to be, of the questions that tell most; None = all.
        precision: stop once ability's standard error is this small, in log-odds; None = never.
        max_usd: what all calls together may cost at most. max_tokens: of one answer.
        concurrency: calls at once (endpoints). patience: with an endpoint.
        again: forget earlier answers. seed: other than 0, questions made by templates get other numbers.
    """

    anchors: str = CORE
    limit: int | None = None
    precision: float | None = None
    max_usd: float | None = None
    max_tokens: int = 2048
    concurrency: int = 1
    patience: Patience = field(default_factory=Patience)
    again: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Projection:
    """What a run would do. Tokens are own tokens, of the questions still to be asked.

    Attributes:
        how: where the questions go, in words. questions: those with an answer and those an average model would be asked now,
            in the set's order. answered: anchors with an answer.
        usd: expected; usd_most: of the dearest questions, with every answer as long as it may be. None = the price is not known.
        seconds: expected; None = speed not known. spent_usd: by earlier runs, calls without an answer included.
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
class Step:
    """How far a run is. seconds_left: at the pace so far, None before there is one. usd: spent on answers."""

    done: int
    total: int
    seconds_left: float | None
    ability: Ability
    usd: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of it.

    Attributes:
        ended: why no more was asked: all were, ability is precise enough, or the next call could exceed the cap.
        asked: questions put in this run. answered: with an answer, those of earlier runs included.
        missing: anchor -> why it has no answer. cut: answers ended by the limit on tokens.
        correct: mean over the answers. fields: field -> (mean, answers).
        prompt_tokens, completion_tokens: in all, own tokens. counted: by whom -> answers.
        usd: spent on answers; usd_most: with calls that got no answer. None = the price is not known.
        seconds: of this run. speed: measured in it. fingerprint: the pack that was written.
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
    ability: Ability
    place: Place
    prompt_tokens: float
    completion_tokens: float
    counted: Mapping[str, int]
    usd: float | None
    usd_most: float | None
    seconds: float
    speed: Speed
    fingerprint: Path
    card: bool
