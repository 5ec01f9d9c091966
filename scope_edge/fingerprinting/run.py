"""One model asked, graded, placed, and its fingerprint written: the whole of `scope-edge fingerprint`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from scope_edge import assets
from scope_edge.chat.client import ChatClient
from scope_edge.errors import BudgetError, RemoteError, UsageError
from scope_edge.fingerprinting.asking import Asking
from scope_edge.fingerprinting.endpoint import EndpointAsker, worst_usd
from scope_edge.fingerprinting.journal import Answer, Journal
from scope_edge.fingerprinting.local import Gguf, LocalAsker, Speed, look_at
from scope_edge.fingerprinting.purse import Purse
from scope_edge.fingerprinting.questions import digest, load_questions
from scope_edge.fingerprinting.report import Projection, Step, Summary, Wishes
from scope_edge.fingerprinting.standing import Standing, place_among
from scope_edge.fingerprinting.store import save_fingerprint
from scope_edge.fingerprints import Fingerprint, load_fingerprints
from scope_edge.pools import update_card
from scope_edge.prior import load_basis
from scope_edge.refit.use import anchors_for, refitted

if TYPE_CHECKING:
    from scope_edge.anchors import AnchorSet
    from scope_edge.catalog import Catalog

_NOTHING = Speed(None, None, None)


class Fingerprinting:
    """One model, ready to be asked."""

    def __init__(
        self,
        catalog: Catalog,
        model: str,
        wishes: Wishes,
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
        self._basis = load_basis()
        self._gguf = self._find_gguf(reading)
        self._anchors, self._questions = load_questions(self._card, self._basis.population, wishes.anchors, wishes.seed)
        name = self._card.served_as or model
        called = {"gguf": self._gguf.sha256} if self._gguf else {"endpoint": self._card.endpoint, "name": name}
        self._way = {**called, "questions": digest(self._questions), "max_tokens": wishes.max_tokens}
        self._how = str(self._gguf.path) if self._gguf else f"{name} at {self._card.endpoint}"

    def project(self) -> Projection:
        """What `run` would ask and what that costs, with nothing asked. Raises AssetError, UsageError."""
        with Journal(self._card.id, self._way) as journal:
            known: Mapping[str, Answer] = {} if self._wishes.again else journal.answers
            return self._projection(Purse(self._card, journal, self._wishes.max_usd), known)

    def run(self, progress: Callable[[Step], None] | None = None) -> Summary:
        """Ask what has no answer yet, write the fingerprint, say what came of it.

        Raises BudgetError (it is expected to cost more than the cap; nothing was asked), UsageError (a cap without a price,
        no key, offline), RemoteError (nobody answers; what was answered is kept), WorkerError, AssetError.
        """
        started = time.monotonic()
        fingerprints = dict(load_fingerprints()[1])
        others = _elsewhere(fingerprints.get(self._card.id, ()), self._anchors)
        with Journal(self._card.id, self._way, again=self._wishes.again) as journal:
            purse = Purse(self._card, journal, self._wishes.max_usd)
            self._check_cap(self._projection(purse, journal.answers))
            anchors = anchors_for(self._card.id, self._anchors, fingerprints, self._basis)
            standing = Standing(anchors, self._basis.population, others)
            asking = Asking(self._questions, self._wishes, journal, purse, standing, progress)
            speed = self._ask(asking, purse)
        if not asking.answers:
            why = next(iter(asking.missing.values()), "the cap on spending allows no call")
            raise RemoteError(f"{self._card.id} answered nothing: {why}")
        return self._finished(asking, purse, speed, fingerprints, time.monotonic() - started)

    def _finished(
        self,
        asking: Asking,
        purse: Purse,
        speed: Speed,
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

    def _find_gguf(self, reading: Callable[[str, int, int], None] | None) -> Gguf | None:
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

    def _projection(self, purse: Purse, known: Mapping[str, Answer]) -> Projection:
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

    def _ask(self, asking: Asking, purse: Purse) -> Speed:
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
        return Speed(asking.usual_speed, None, None)

    def _by_field(self, asking: Asking) -> Mapping[str, tuple[float, int]]:
        """Field -> (mean correct, answers), fields with answers only."""
        found: dict[str, list[float]] = {}
        for question, correct in zip(self._questions, asking.correct.tolist(), strict=True):
            if correct == correct:
                found.setdefault(question.spec.field, []).append(correct)
        return {name: (sum(values) / len(values), len(values)) for name, values in sorted(found.items())}

    def _write_speed(self, speed: Speed) -> bool:
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
