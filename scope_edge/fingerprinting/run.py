"""One model is asked, graded and ranked, and its fingerprint written: the whole of `scope-edge fingerprint`."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.catalog.edit import update_card
from scope_edge.errors import BudgetError, RemoteError, UsageError, WorkerError
from scope_edge.estimation.fingerprints import (
    OWN_FINGERPRINTS,
    Fingerprint,
    fingerprints_body,
    load_fingerprints,
    set_digest,
)
from scope_edge.estimation.irt import load_irt_model
from scope_edge.estimation.refit import anchors_for, refitted
from scope_edge.fingerprinting.answer_log import AnswerLog, LoggedAnswer, file_name
from scope_edge.fingerprinting.endpoint import EndpointAsker, SpendingBudget
from scope_edge.fingerprinting.gguf import GenerationSpeed, GgufModel, LocalAsker, look_at
from scope_edge.fingerprinting.progress import (
    Ended,
    FingerprintOptions,
    FingerprintProgress,
    PoolRanking,
    Projection,
    Summary,
    place_among,
)
from scope_edge.fingerprinting.questions import digest, load_questions
from scope_edge.providers.llama.loadable import with_speed
from scope_edge.providers.openai.client import ChatClient
from scope_edge.storage import assets
from scope_edge.storage.packs import write_pack

if TYPE_CHECKING:
    from scope_edge.catalog.cards import Catalog
    from scope_edge.fingerprinting.questions import Question
    from scope_edge.types import Floats

# After so many questions in a row without an answer, the run ends.
_GIVE_UP = 3
# The time of shorter answers depends more on the connection than on the model.
_TIMED_TOKENS = 16


class AdaptiveSession:
    """Selects questions and records answers: each is in the log before anything else is done with it.

    Attributes:
        asked: questions of this run that came to an end. missing: anchor -> why it has no answer.
        rates: tokens a second of this run's answers, the connection included.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        options: FingerprintOptions,
        log: AnswerLog,
        budget: SpendingBudget,
        ranking: PoolRanking,
        progress: Callable[[FingerprintProgress], None] | None,
    ) -> None:
        """questions: the whole set; with the answers in the log, `options.limit` of them get an answer."""
        self._questions, self._options, self._log, self._budget = questions, options, log, budget
        self._ranking, self._progress = ranking, progress
        self._row = {one.anchor: i for i, one in enumerate(questions)}
        self._open = np.array([one.anchor not in log.answers for one in questions], bool)
        self._under_way: list[int] = []
        self._total = len(questions[: options.limit])
        self._left = min(max(0, self._total - len(self.answers)), int(self._open.sum()))
        self._started, self._failures = time.monotonic(), 0
        self.asked = 0
        self.rates: list[float] = []
        self.ended: Ended = "all"
        self.missing: dict[str, str] = {}
        self.correct: Floats = np.full(len(questions), np.nan)
        self.tokens: Floats = np.full(len(questions), np.nan)
        for answer in log.answers.values():
            self._grade(answer)
        self.ability = ranking.ability(self.correct)

    @property
    def answers(self) -> list[LoggedAnswer]:
        """All answers, in the set's order."""
        known = self._log.answers
        return [known[one.anchor] for one in self._questions if one.anchor in known]

    @property
    def open(self) -> bool:
        """Whether a question is left and ability is not precise enough yet."""
        return self._left > 0 and not self._precise()

    def next_question(self) -> Question | None:
        """Select the most informative question; None at the limit, at the precision, or if it could exceed the cap."""
        if self._left == 0:
            self.ended = "all"
        if not self.open:
            return None
        row = self._ranking.next_item(self.correct, self._open, self._under_way)
        question = self._questions[row]
        if not self._budget.allows(self._budget.worst_usd(question, self._options.max_tokens)):
            self.ended = "max_usd"
            return None
        self._open[row] = False
        self._under_way.append(row)
        self._left -= 1
        return question

    def record(self, answer: LoggedAnswer) -> bool:
        """Record an answer; return whether ability is still too imprecise. Raises AssetError, RemoteError (no answers come)."""
        self._log.add(answer)
        self.asked += 1
        self._under_way.remove(self._row[answer.anchor])
        if answer.text is None:
            self.missing[answer.anchor] = answer.problem or "no answer"
            self._failures += 1
            if self._failures >= _GIVE_UP:
                raise RemoteError(
                    f"{self._failures} questions in a row got no answer; the last one: {answer.problem};"
                    " earlier answers are kept, run it again to go on"
                )
        else:
            self._failures = 0
            self._grade(answer)
            self.ability = self._ranking.ability(self.correct)
            if answer.seconds and answer.completion_tokens and answer.completion_tokens >= _TIMED_TOKENS:
                self.rates.append(answer.completion_tokens / answer.seconds)
        self.report()
        return not self._precise()

    def report(self) -> None:
        """Report the progress."""
        if self._progress is None:
            return
        left = self._left + len(self._under_way)
        seconds = (time.monotonic() - self._started) / self.asked * left if self.asked else None
        self._progress(FingerprintProgress(self._total - left, self._total, seconds, self.ability, self._budget.spent))

    def _precise(self) -> bool:
        wanted = self._options.precision
        precise = wanted is not None and bool(np.isfinite(self.correct).any()) and self.ability.error <= wanted
        self.ended = "precision" if precise else "all"
        return precise

    def _grade(self, answer: LoggedAnswer) -> None:
        row = self._row.get(answer.anchor)
        if row is not None and answer.text is not None:
            self.correct[row] = self._questions[row].grade(answer.text)
            if answer.completion_tokens:
                self.tokens[row] = answer.completion_tokens


def fingerprint_file(model: str, anchor_set: str) -> Path:
    """Return the file of a model's outcomes on a set."""
    return assets.user_data_dir() / OWN_FINGERPRINTS / f"{file_name(model)}.{anchor_set}.pack"


def save_fingerprint(one: Fingerprint, about: Mapping[str, Any], source: str = "scope-edge fingerprint") -> Path:
    """Write a model's outcomes on a set in one step, replacing earlier ones; return the file. Raises AssetError.

    about: plain types that say how the outcomes were obtained. source: the command.
    """
    path = fingerprint_file(one.model, one.anchors.name)
    body = {
        **fingerprints_body({one.anchors.name: [one]}),
        "digests": {one.anchors.name: set_digest(one.anchors)},
        "source": source,
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "about": dict(about),
    }
    write_pack(path, "fingerprints", body)
    return path


class Fingerprinting:
    """The fingerprinting of one model: `project` its cost, or `run` it."""

    def __init__(
        self,
        catalog: Catalog,
        model: str,
        options: FingerprintOptions,
        reading: Callable[[str, int, int], None] | None = None,
        *,
        threads: int | None = None,
        offline: bool = False,
    ) -> None:
        """Ask nothing yet. reading: called while a large file is read, with (step in words, bytes done, total bytes).

        Raises UsageError (unknown model, a card without endpoint and gguf, no such anchor set), AssetError.
        """
        self._catalog, self._options, self._threads, self._offline = catalog, options, threads, offline
        self._card = card = catalog.card(model)
        self._irt = load_irt_model()
        self._gguf = self._find_gguf(reading)
        self._anchors, self._questions = load_questions(card, self._irt.population, options.anchors, options.seed)
        name = card.served_as or model
        called = {"gguf": self._gguf.sha256} if self._gguf else {"endpoint": card.endpoint, "name": name}
        # Everything that an answer depends on.
        self._conditions = {**called, "questions": digest(self._questions), "max_tokens": options.max_tokens}
        self._target = str(self._gguf.path) if self._gguf else f"{name} at {card.endpoint}"

    def project(self) -> Projection:
        """Return what `run` would ask and its cost; ask nothing. Raises AssetError, UsageError."""
        with AnswerLog(self._card.id, self._conditions) as log:
            known: Mapping[str, LoggedAnswer] = {} if self._options.again else log.answers
            return self._projection(SpendingBudget(self._card, log, self._options.max_usd), known)

    def run(self, progress: Callable[[FingerprintProgress], None] | None = None) -> Summary:
        """Ask the questions without an answer, write the fingerprint, return a summary.

        However the questions end, what the answers tell is written. Ctrl-C after the first answer ends them like a limit.

        Raises BudgetError (the expected cost exceeds the cap; nothing was asked), UsageError (a cap without a price, no key,
        offline), RemoteError (no answers come; earlier ones are kept), WorkerError, AssetError.
        """
        started = time.monotonic()
        fingerprints = dict(load_fingerprints()[1])
        others = [one for one in fingerprints.get(self._card.id, ()) if one.anchors.name != self._anchors.name]
        with AnswerLog(self._card.id, self._conditions, again=self._options.again) as log:
            budget = SpendingBudget(self._card, log, self._options.max_usd)
            self._check_cap(self._projection(budget, log.answers))
            anchors = anchors_for(self._card.id, self._anchors, fingerprints, self._irt)
            ranking = PoolRanking(anchors, self._irt.population, others)
            session = AdaptiveSession(self._questions, self._options, log, budget, ranking, progress)
            try:
                speed = self._ask(session, budget)
            except KeyboardInterrupt:
                if not session.answers:
                    raise
                session.ended, speed = "interrupted", GenerationSpeed()
            except (RemoteError, WorkerError):
                if session.answers:
                    self._save(self._fingerprint(session), fingerprints)
                raise
        if not session.answers:
            why = next(iter(session.missing.values()), "the cap on spending allows no call")
            raise RemoteError(f"{self._card.id} answered nothing: {why}")
        own = self._fingerprint(session)
        path = self._save(own, fingerprints, whole=session.ended != "interrupted")
        fingerprints[self._card.id] = (*others, own)
        refit = refitted(fingerprints, self._irt, fingerprints)
        answers, priced = session.answers, self._card.usd_in is not None
        return Summary(
            model=self._card.id,
            anchor_set=self._anchors.name,
            ended=session.ended,
            asked=session.asked,
            answered=len(answers),
            missing=session.missing,
            cut=sum(one.cut for one in answers),
            correct=float(np.nanmean(session.correct)),
            fields=self._by_field(session.correct),
            ability=session.ability,
            place=place_among(self._card, self._catalog.cards, refit, self._anchors, self._irt),
            prompt_tokens=sum(one.prompt_tokens or 0.0 for one in answers),
            completion_tokens=sum(one.completion_tokens or 0.0 for one in answers),
            counted=dict(Counter(one.counted or "estimate" for one in answers)),
            usd=budget.spent if priced else None,
            usd_most=budget.at_most if priced else None,
            seconds=time.monotonic() - started,
            speed=speed,
            fingerprint=path,
            card=self._write_speed(speed),
        )

    def _fingerprint(self, session: AdaptiveSession) -> Fingerprint:
        # Fingerprints count cl100k tokens; a card says how many of its own they are worth.
        return Fingerprint(self._card.id, self._anchors, session.correct, session.tokens / self._card.token_factor)

    def _save(
        self, own: Fingerprint, known: Mapping[str, Sequence[Fingerprint]], *, whole: bool = False
    ) -> Path | None:
        """Write the fingerprint; return its file. None: it is of a run that was broken off, and the known one has more answers."""
        answers = int(np.isfinite(own.correct).sum())
        earlier = (one for one in known.get(own.model, ()) if one.anchors.name == own.anchors.name)
        if not whole and any(int(np.isfinite(one.correct).sum()) > answers for one in earlier):
            return None
        return save_fingerprint(own, {"asked": self._target, "seed": self._options.seed, **self._conditions})

    def _find_gguf(self, reading: Callable[[str, int, int], None] | None) -> GgufModel | None:
        if self._card.endpoint is None and self._card.gguf is None:
            raise UsageError(
                f"the card of {self._card.id} does not say how it is called; add endpoint (and key_env), or gguf, to"
                f' [models."{self._card.id}"] in {assets.user_config_file()}'
            )
        if self._card.gguf is None:
            return None
        return look_at(
            self._card, None if reading is None else lambda done, total: reading("reading the GGUF", done, total)
        )

    def _projection(self, budget: SpendingBudget, known: Mapping[str, LoggedAnswer]) -> Projection:
        options, speed = self._options, with_speed(self._card).tokens_per_second
        unasked = [one for one in self._questions if one.anchor not in known]
        total = len(self._questions[: options.limit])
        # The answers will decide which of them are asked: these are what an average model would be asked.
        left = unasked[: max(0, total - (len(self._questions) - len(unasked)))]
        expected = {one.anchor for one in left}
        prompt = sum(one.prompt_tokens for one in left)
        completion = sum(min(one.completion_tokens, options.max_tokens) for one in left)
        most = sorted((budget.worst_usd(one, options.max_tokens) or 0.0 for one in unasked), reverse=True)
        return Projection(
            model=self._card.id,
            anchor_set=self._anchors.name,
            how=self._target,
            questions=tuple(one for one in self._questions if one.anchor in known or one.anchor in expected),
            answered=tuple(one.anchor for one in self._questions if one.anchor in known),
            prompt_tokens=prompt,
            completion_tokens=completion,
            usd=budget.price.of(prompt, completion),
            usd_most=None if self._card.usd_in is None else sum(most[: len(left)]),
            seconds=None if speed is None else completion / speed / options.concurrency,
            spent_usd=budget.at_most,
        )

    def _check_cap(self, projection: Projection) -> None:
        cap, expected = self._options.max_usd, projection.usd
        if cap is None or expected is None or not projection.left or projection.spent_usd + expected <= cap:
            return
        spent = f", beside ${projection.spent_usd:.4g} spent already" if projection.spent_usd else ""
        raise BudgetError(
            f"{projection.left} questions are expected to cost ${expected:.4g}{spent}, more than --max-usd {cap:g};"
            " nothing was asked; raise it, or ask fewer with --limit"
        )

    def _ask(self, session: AdaptiveSession, budget: SpendingBudget) -> GenerationSpeed:
        """Ask until the session ends; return the measured speed."""
        options = self._options
        session.report()
        if not session.open:
            return GenerationSpeed()
        if self._gguf is not None:
            local = LocalAsker(self._gguf, max_tokens=options.max_tokens, threads=self._threads)
            local.ask(session.next_question, session.record)
            return local.speed
        with ChatClient(self._card, options.patience, offline=self._offline) as client:
            asker = EndpointAsker(
                self._card, client, budget, max_tokens=options.max_tokens, concurrency=options.concurrency
            )
            asker.ask(session.next_question, session.record)
        return GenerationSpeed(statistics.median(session.rates) if session.rates else None)

    def _by_field(self, outcomes: Floats) -> Mapping[str, tuple[float, int]]:
        """Return field -> (mean correct, answers), for fields with answers."""
        found: dict[str, list[float]] = {}
        for question, correct in zip(self._questions, outcomes.tolist(), strict=True):
            if correct == correct:
                found.setdefault(question.spec.field, []).append(correct)
        return {name: (sum(values) / len(values), len(values)) for name, values in sorted(found.items())}

    def _write_speed(self, speed: GenerationSpeed) -> bool:
        """Write the measured speed on the card, if it is the user's own; return whether it was written."""
        known = {name: float(f"{value:.3g}") for name, value in asdict(speed).items() if value}
        if not known or self._card.id not in self._catalog.own_cards:
            return False
        update_card(self._card.id, known)
        return True
