"""The middle of a run: which question comes next, and what an answer changes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import RemoteError
from scope_edge.fingerprinting.endpoint import worst_usd
from scope_edge.fingerprinting.report import Ended, Step

if TYPE_CHECKING:
    from scope_edge.fingerprinting.journal import Answer, Journal
    from scope_edge.fingerprinting.purse import Purse
    from scope_edge.fingerprinting.questions import Question
    from scope_edge.fingerprinting.report import Wishes
    from scope_edge.fingerprinting.standing import Ability, Standing
    from scope_edge.records import Floats

# So many questions in a row without an answer, and the next ones are not tried.
_GIVE_UP = 3
# Shorter answers tell more of the connection than of the model's speed.
_TIMED_TOKENS = 16


class Asking:
    """Gives questions, takes answers: each is in the journal before anything else is done with it."""

    def __init__(
        self,
        questions: Sequence[Question],
        wishes: Wishes,
        journal: Journal,
        purse: Purse,
        standing: Standing,
        progress: Callable[[Step], None] | None,
    ) -> None:
        """questions: the whole set; of these as many are asked as make `wishes.limit` answers with those that are there."""
        self._wishes, self._journal, self._purse = wishes, journal, purse
        self._standing, self._progress = standing, progress
        self._by_anchor = {one.anchor: i for i, one in enumerate(questions)}
        self._questions = questions
        self._open = np.array([one.anchor not in journal.answers for one in questions], bool)
        self._under_way: list[int] = []
        self._total = len(questions[: wishes.limit])
        self._left = min(max(0, self._total - len(self.answers)), int(self._open.sum()))
        self._begun = time.monotonic()
        self._asked, self._without = 0, 0
        self._rates: list[float] = []
        self.ended: Ended = "all"
        self.missing: dict[str, str] = {}
        self.correct: Floats = np.full(len(questions), np.nan)
        self.tokens: Floats = np.full(len(questions), np.nan)
        for answer in journal.answers.values():
            self._mark(answer)
        self.ability: Ability = standing.of(self.correct)

    @property
    def asked(self) -> int:
        """Questions of this run that came to an end."""
        return self._asked

    @property
    def answers(self) -> list[Answer]:
        """All there are, in the set's order."""
        known = self._journal.answers
        return [known[one.anchor] for one in self._questions if one.anchor in known]

    @property
    def usual_speed(self) -> float | None:
        """Tokens a second of an answer, the connection included: the middle one of this run's; None without any."""
        return statistics.median(self._rates) if self._rates else None

    @property
    def open(self) -> bool:
        """Whether there is anything to ask."""
        return self._left > 0 and not self._stopped()

    def following(self) -> Question | None:
        """The question that tells most now; None when enough were asked, or ability is known, or it could exceed the cap."""
        if self._left == 0:
            self.ended = "all"
            return None
        if self._stopped():
            return None
        row = self._standing.following(self.correct, self._open, self._under_way)
        question = self._questions[row]
        if not self._purse.allows(worst_usd(self._purse, question, self._wishes.max_tokens)):
            self.ended = "max_usd"
            return None
        self._open[row] = False
        self._under_way.append(row)
        self._left -= 1
        return question

    def take(self, answer: Answer) -> bool:
        """What came of a question; whether more are wanted. Raises AssetError, and RemoteError when nothing comes any more."""
        self._journal.add(answer)
        self._asked += 1
        self._under_way.remove(self._by_anchor[answer.anchor])
        if answer.text is None:
            self.missing[answer.anchor] = answer.problem or "no answer"
            self._without += 1
            if self._without >= _GIVE_UP:
                raise RemoteError(
                    f"{self._without} questions in a row got no answer; the last one: {answer.problem};"
                    " what was answered is kept, run it again to go on"
                )
        else:
            self._without = 0
            self._mark(answer)
            self.ability = self._standing.of(self.correct)
            if answer.seconds and answer.completion_tokens and answer.completion_tokens >= _TIMED_TOKENS:
                self._rates.append(answer.completion_tokens / answer.seconds)
        self.report()
        return not self._stopped()

    def report(self) -> None:
        """Tell how far it is."""
        if self._progress is None:
            return
        left = self._left + len(self._under_way)
        pace = (time.monotonic() - self._begun) / self._asked if self._asked else None
        seconds = None if pace is None else pace * left
        self._progress(Step(self._total - left, self._total, seconds, self.ability, self._purse.spent))

    def _stopped(self) -> bool:
        """Whether ability is precise enough."""
        wanted = self._wishes.precision
        precise = wanted is not None and bool(np.isfinite(self.correct).any()) and self.ability.error <= wanted
        self.ended = "precision" if precise else "all"
        return precise

    def _mark(self, answer: Answer) -> None:
        row = self._by_anchor.get(answer.anchor)
        if row is not None and answer.text is not None:
            self.correct[row] = self._questions[row].grade(answer.text)
            if answer.completion_tokens:
                self.tokens[row] = answer.completion_tokens
