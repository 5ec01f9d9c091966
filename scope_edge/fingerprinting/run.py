"""One model asked, graded, placed, and its fingerprint written: the whole of `scope-edge fingerprint`."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.catalog.edit import update_card
from scope_edge.errors import BudgetError, RemoteError, UsageError
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
from scope_edge.fingerprinting.budget import SpendingBudget
from scope_edge.fingerprinting.endpoint import EndpointAsker, worst_usd
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
from scope_edge.providers.openai.client import ChatClient
from scope_edge.storage import assets
from scope_edge.storage.packs import write_pack

if TYPE_CHECKING:
    from scope_edge.catalog.cards import Catalog
    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.fingerprinting.progress import FieldAbility
    from scope_edge.fingerprinting.questions import Question
    from scope_edge.types import Floats

# The middle of a run: which question comes next, and what an answer changes.

# So many questions in a row without an answer, and the next ones are not tried.
_GIVE_UP = 3
# Shorter answers tell more of the connection than of the model's speed.
_TIMED_TOKENS = 16


class AdaptiveSession:
    """Gives questions, takes answers: each is in the journal before anything else is done with it."""

    def __init__(
        self,
        questions: Sequence[Question],
        wishes: FingerprintOptions,
        journal: AnswerLog,
        purse: SpendingBudget,
        standing: PoolRanking,
        progress: Callable[[FingerprintProgress], None] | None,
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
        self.ability: FieldAbility = standing.of(self.correct)

    @property
    def asked(self) -> int:
        """Questions of this run that came to an end."""
        return self._asked

    @property
    def answers(self) -> list[LoggedAnswer]:
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

    def take(self, answer: LoggedAnswer) -> bool:
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
        self._progress(FingerprintProgress(self._total - left, self._total, seconds, self.ability, self._purse.spent))

    def _stopped(self) -> bool:
        """Whether ability is precise enough."""
        wanted = self._wishes.precision
        precise = wanted is not None and bool(np.isfinite(self.correct).any()) and self.ability.error <= wanted
        self.ended = "precision" if precise else "all"
        return precise

    def _mark(self, answer: LoggedAnswer) -> None:
        row = self._by_anchor.get(answer.anchor)
        if row is not None and answer.text is not None:
            self.correct[row] = self._questions[row].grade(answer.text)
            if answer.completion_tokens:
                self.tokens[row] = answer.completion_tokens


# Where a fingerprint goes: a pack of the user's, found from then on by whatever reads fingerprints.


def fingerprint_file(model: str, anchor_set: str) -> Path:
    """Where a model's outcomes on a set go."""
    return assets.user_data_dir() / OWN_FINGERPRINTS / f"{file_name(model)}.{anchor_set}.pack"


def save_fingerprint(one: Fingerprint, about: Mapping[str, Any], source: str = "scope-edge fingerprint") -> Path:
    """Write a model's outcomes on a set in one step, in place of earlier ones; give the file. Raises AssetError.

    about: how they came about, for whoever opens the pack; plain types. source: the command.
    """
    path = fingerprint_file(one.model, one.anchors.name)
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    body = {
        **fingerprints_body({one.anchors.name: [one]}),
        "digests": {one.anchors.name: set_digest(one.anchors)},
        "source": source,
        "written": when,
        "about": dict(about),
    }
    write_pack(path, "fingerprints", body)
    return path


_NOTHING = GenerationSpeed(None, None, None)


class Fingerprinting:
    """One model, ready to be asked."""

    def __init__(
        self,
        catalog: Catalog,
        model: str,
        wishes: FingerprintOptions,
        reading: Callable[[str, int, int], None] | None = None,
        *,
        threads: int | None = None,
        offline: bool = False,
    ) -> None:
        """Nothing is asked yet. reading: told of the reading of a large file, as (what, done, in all).

        Raises UsageError (unknown model, one that does not say how it is called, no such anchor set), AssetError.
        """
        self._catalog, self._wishes, self._threads, self._offline = catalog, wishes, threads, offline
        self._card = self._catalog.card(model)
        self._basis = load_irt_model()
        self._gguf = self._find_gguf(reading)
        self._anchors, self._questions = load_questions(self._card, self._basis.population, wishes.anchors, wishes.seed)
        name = self._card.served_as or model
        called = {"gguf": self._gguf.sha256} if self._gguf else {"endpoint": self._card.endpoint, "name": name}
        self._way = {**called, "questions": digest(self._questions), "max_tokens": wishes.max_tokens}
        self._how = str(self._gguf.path) if self._gguf else f"{name} at {self._card.endpoint}"

    def project(self) -> Projection:
        """What `run` would ask and what that costs, with nothing asked. Raises AssetError, UsageError."""
        with AnswerLog(self._card.id, self._way) as journal:
            known: Mapping[str, LoggedAnswer] = {} if self._wishes.again else journal.answers
            return self._projection(SpendingBudget(self._card, journal, self._wishes.max_usd), known)

    def run(self, progress: Callable[[FingerprintProgress], None] | None = None) -> Summary:
        """Ask what has no answer yet, write the fingerprint, say what came of it.

        Raises BudgetError (it is expected to cost more than the cap; nothing was asked), UsageError (a cap without a price,
        no key, offline), RemoteError (nobody answers; what was answered is kept), WorkerError, AssetError.
        """
        started = time.monotonic()
        fingerprints = dict(load_fingerprints()[1])
        others = _elsewhere(fingerprints.get(self._card.id, ()), self._anchors)
        with AnswerLog(self._card.id, self._way, again=self._wishes.again) as journal:
            purse = SpendingBudget(self._card, journal, self._wishes.max_usd)
            self._check_cap(self._projection(purse, journal.answers))
            anchors = anchors_for(self._card.id, self._anchors, fingerprints, self._basis)
            standing = PoolRanking(anchors, self._basis.population, others)
            asking = AdaptiveSession(self._questions, self._wishes, journal, purse, standing, progress)
            speed = self._ask(asking, purse)
        if not asking.answers:
            why = next(iter(asking.missing.values()), "the cap on spending allows no call")
            raise RemoteError(f"{self._card.id} answered nothing: {why}")
        return self._finished(asking, purse, speed, fingerprints, time.monotonic() - started)

    def _finished(
        self,
        asking: AdaptiveSession,
        purse: SpendingBudget,
        speed: GenerationSpeed,
        fingerprints: dict[str, tuple[Fingerprint, ...]],
        seconds: float,
    ) -> Summary:
        """Write the fingerprint, and the speed on the card; say what came of it all. Raises PackError, ConfigError."""
        # Fingerprints count cl100k tokens; a card says how many of its own they are worth.
        own = Fingerprint(self._card.id, self._anchors, asking.correct, asking.tokens / self._card.token_factor)
        path = save_fingerprint(own, {"asked": self._how, "seed": self._wishes.seed, **self._way})
        others = _elsewhere(fingerprints.get(self._card.id, ()), self._anchors)
        fingerprints[self._card.id] = (*others, own)
        told = refitted(fingerprints, self._basis, fingerprints)
        place = place_among(self._card, self._catalog.cards, told, self._anchors, self._basis)
        written = self._write_speed(speed)
        answers, price_known = asking.answers, self._card.usd_in is not None
        return Summary(
            model=self._card.id,
            anchor_set=self._anchors.name,
            ended=asking.ended,
            asked=asking.asked,
            answered=len(answers),
            missing=asking.missing,
            cut=sum(one.cut for one in answers),
            correct=float(np.nanmean(asking.correct)),
            fields=self._by_field(asking),
            ability=asking.ability,
            place=place,
            prompt_tokens=sum(one.prompt_tokens or 0.0 for one in answers),
            completion_tokens=sum(one.completion_tokens or 0.0 for one in answers),
            counted=dict(Counter(one.counted or "estimate" for one in answers)),
            usd=purse.spent if price_known else None,
            usd_most=purse.at_most if price_known else None,
            seconds=seconds,
            speed=speed,
            fingerprint=path,
            card=written,
        )

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

    def _projection(self, purse: SpendingBudget, known: Mapping[str, LoggedAnswer]) -> Projection:
        unasked = [one for one in self._questions if one.anchor not in known]
        total = len(self._questions[: self._wishes.limit])
        # Which of them are asked, the answers will say: these are what an average model would be asked.
        left = unasked[: max(0, total - (len(self._questions) - len(unasked)))]
        expected = {one.anchor for one in left}
        prompt = sum(one.prompt_tokens for one in left)
        completion = sum(min(one.completion_tokens, self._wishes.max_tokens) for one in left)
        most = sorted((worst_usd(purse, one, self._wishes.max_tokens) or 0.0 for one in unasked), reverse=True)
        speed = self._card.tokens_per_second
        return Projection(
            model=self._card.id,
            anchor_set=self._anchors.name,
            how=self._how,
            questions=tuple(one for one in self._questions if one.anchor in known or one.anchor in expected),
            answered=tuple(one.anchor for one in self._questions if one.anchor in known),
            prompt_tokens=prompt,
            completion_tokens=completion,
            usd=purse.price.of(prompt, completion),
            usd_most=None if self._card.usd_in is None else sum(most[: len(left)]),
            seconds=None if speed is None else completion / speed / self._wishes.concurrency,
            spent_usd=purse.at_most,
        )

    def _check_cap(self, projection: Projection) -> None:
        cap, expected = self._wishes.max_usd, projection.usd
        if cap is None or expected is None or not projection.left or projection.spent_usd + expected <= cap:
            return
        spent = f", beside ${projection.spent_usd:.4g} spent already" if projection.spent_usd else ""
        raise BudgetError(
            f"{projection.left} questions are expected to cost ${expected:.4g}{spent}, more than --max-usd {cap:g};"
            " nothing was asked; raise it, or ask fewer with --limit"
        )

    def _ask(self, asking: AdaptiveSession, purse: SpendingBudget) -> GenerationSpeed:
        """Ask until no more are wanted; what was measured on the way."""
        asking.report()
        if not asking.open:
            return _NOTHING
        if self._gguf is not None:
            local = LocalAsker(self._gguf, max_tokens=self._wishes.max_tokens, threads=self._threads)
            with local:
                local.ask(asking.following, asking.take)
            return local.speed
        wishes = self._wishes
        with ChatClient(self._card, wishes.patience, offline=self._offline) as client:
            asker = EndpointAsker(
                self._card, client, purse, max_tokens=wishes.max_tokens, concurrency=wishes.concurrency
            )
            asker.ask(asking.following, asking.take)
        return GenerationSpeed(asking.usual_speed, None, None)

    def _by_field(self, asking: AdaptiveSession) -> Mapping[str, tuple[float, int]]:
        """Field -> (mean correct, answers), fields with answers only."""
        found: dict[str, list[float]] = {}
        for question, correct in zip(self._questions, asking.correct.tolist(), strict=True):
            if correct == correct:
                found.setdefault(question.spec.field, []).append(correct)
        return {name: (sum(values) / len(values), len(values)) for name, values in sorted(found.items())}

    def _write_speed(self, speed: GenerationSpeed) -> bool:
        """Put what was measured on the card, if it is one of the user's own."""
        facts = {
            "tokens_per_second": speed.tokens_per_second,
            "prompt_tokens_per_second": speed.prompt_tokens_per_second,
            "load_seconds": speed.load_seconds,
        }
        known = {name: float(f"{value:.3g}") for name, value in facts.items() if value}
        if not known or self._card.id not in self._catalog.own_cards:
            return False
        update_card(self._card.id, known)
        return True


def _elsewhere(parts: Sequence[Fingerprint], anchors: AnchorSet) -> list[Fingerprint]:
    """A model's fingerprints on other anchor sets."""
    return [one for one in parts if one.anchors.name != anchors.name]
