"""Decides and asks for whoever comes: a conversation in the wire format, or one of the user's own commands under its own settings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scope_edge import assets
from scope_edge.api import Router
from scope_edge.askable import askable
from scope_edge.config import DEFAULT_POOL
from scope_edge.errors import InfeasibleError
from scope_edge.executor.request import Request
from scope_edge.prompt_tokens import query_prompt_tokens
from scope_edge.records import Budget, Candidate, Decision, EstimatorReport, Query
from scope_edge.router import check_query
from scope_edge.server.counters import Counter, Counters
from scope_edge.server.names import Names
from scope_edge.server.sticky import Conversations, kept
from scope_edge.unmet import unmet

if TYPE_CHECKING:
    from scope_edge.api import Stream
    from scope_edge.config import Settings
    from scope_edge.executor import Execution
    from scope_edge.records import EncodedQuery, ModelCard, Preference
    from scope_edge.server.names import Target
    from scope_edge.server.wire import Conversation, Wishes

# What the encoder is called where a model is named.
ENCODER = "all-minilm-l6-v2"
_CAPS = ("max_tokens", "max_usd", "max_seconds")


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer to be read. sticky: the conversation was kept at its model. deciding: seconds it took."""

    execution: Execution
    decision: Decision
    sticky: bool
    deciding: float


class Desk:
    """Safe to use from several threads; everything here blocks."""

    def __init__(self, settings: Settings, overrides: Mapping[str, Any]) -> None:
        """overrides: what the server was started with. Raises what loading raises: an unknown pool, a damaged file."""
        self.settings = settings
        self._counters = Counters(settings)
        self.names = Names(settings, self._counters.catalog, overrides)
        self.conversations = Conversations()

    def check(self) -> None:
        """See that what will be loaded is there and whole. Raises UsageError, AssetError."""
        self._counters.catalog.pool(self.settings.pool)
        for name in assets.manifest():
            assets.check(name)

    def warm(self) -> None:
        """Load what the first decision would wait for. Raises what `load_flow` raises."""
        self._counters.at(self.settings).flow.encode(Query("ready"))

    def close(self) -> None:
        """End all that runs."""
        self._counters.close()

    def loaded(self) -> tuple[tuple[str, ...], int]:
        """Models on the device that are loaded, and requests their workers have not ended."""
        return self._counters.loaded()

    def decide(self, target: Target, query: Query, wishes: Wishes) -> Decision:
        """Where a query should go; nothing is run. Raises UsageError and what loading raises."""
        settings = tightened(target.settings, wishes)
        if target.pinned is not None:
            settings = replace(settings, pool=target.pinned.id)
        return self.decide_under(settings, query, wishes.exclude)

    def decide_under(self, settings: Settings, query: Query, exclude: tuple[str, ...]) -> Decision:
        """The same under any settings: what `scope-edge route` does."""
        check_query(query)
        counter = self._counters.at(settings)
        flow = counter.flow
        self._check_known(exclude)
        begun = time.perf_counter()
        with self._counters.encoding():
            encoded = flow.encode(query)
        milliseconds = (time.perf_counter() - begun) * 1e3
        decision = flow.decide(
            encoded, settings.preference(exclude=exclude), top_k=settings.top_k, encode_ms=milliseconds
        )
        if settings.journal == "all" and counter.executor.journal is not None:
            counter.executor.journal.record(query, decision, None, encoded=encoded)
        return decision

    def stream_under(self, settings: Settings, text: str, wishes: Mapping[str, Any]) -> Stream:
        """An answer, under any settings: what `scope-edge ask` does, with parts that are loaded already."""
        counter = self._counters.at(settings)
        return Router(settings, (counter.flow, counter.executor)).stream(text, **wishes)

    def ask(self, target: Target, conversation: Conversation) -> Asked:
        """An answer to a conversation. Raises InfeasibleError, UsageError and what loading raises."""
        begun = time.monotonic()
        settings = tightened(target.settings, conversation.wishes)
        counter = self._counters.at(settings)
        self._check_known(conversation.wishes.exclude)
        preference = settings.preference(exclude=conversation.wishes.exclude)
        query, encoded, sticky = conversation.query, None, False
        if target.pinned is not None and nothing_limits(target.pinned, preference, settings):
            decision = named(target.pinned, query, preference)
        else:
            counter, decision, encoded, preference = self._chosen(target, conversation, settings, preference)
            before = decision.choice
            if target.pinned is None:
                last = self.conversations.model_of(target.name, conversation.messages)
                decision = kept(decision, last, settings.stick)
            sticky = decision.choice != before
        if decision.choice is None:
            if counter.executor.journal is not None:
                counter.executor.journal.record(query, decision, None, encoded=encoded)
            raise InfeasibleError(unmet(decision.bound), decision)
        request = Request(
            query=query,
            decision=decision,
            budget=preference.budget,
            messages=conversation.messages,
            fields=conversation.fields,
            local_only=preference.local_only,
            verify=settings.verify if not conversation.needs else 0,
            encoded=encoded,
            started=begun,
        )
        return Asked(counter.executor.start(request), decision, sticky, time.monotonic() - begun)

    @property
    def dimension(self) -> int:
        """Length of the encoder's vectors."""
        return self._counters.encoder.dimension

    def embed(self, texts: tuple[str, ...]) -> list[Any]:
        """The encoder's unit vectors."""
        return [self._counters.encode(Query(text)).vector for text in texts]

    def _chosen(
        self, target: Target, conversation: Conversation, settings: Settings, preference: Preference
    ) -> tuple[Counter, Decision, EncodedQuery, Preference]:
        counter, pinned = self._counters.at(settings), target.pinned
        if pinned is not None and pinned.id not in {card.id for card in counter.flow.pool}:
            settings = replace(settings, pool=pinned.id)
            counter = self._counters.at(settings)
        flow = counter.flow
        only, picked = None if pinned is None else pinned.id, settings.pool != DEFAULT_POOL
        can = askable(flow.pool, only, preference, conversation.needs, picked=picked)
        with self._counters.encoding():
            encoded = flow.encode(conversation.query)
        decision = can.noted(flow.decide(encoded, can.preference, top_k=settings.top_k))
        return counter, decision, encoded, can.preference

    def _check_known(self, models: tuple[str, ...]) -> None:
        """Raises UsageError naming the nearest ids for one that the catalog does not know."""
        for model in models:
            self._counters.catalog.card(model)


def tightened(settings: Settings, wishes: Wishes) -> Settings:
    """The settings with what a request wishes. Its limits can be narrower than the server's, never wider."""
    changes = dict(wishes.settings)
    for name in _CAPS:
        limit = getattr(settings, name)
        if name in changes and limit is not None:
            changes[name] = min(changes[name], limit)
    if settings.local_only:
        changes["local_only"] = True
    return replace(settings, **changes)


def nothing_limits(card: ModelCard, preference: Preference, settings: Settings) -> bool:
    """Whether a model that is named can be asked at once: with no limit to keep, nothing has to be estimated."""
    here = card.where == "device" or not preference.local_only
    return here and preference.budget == Budget() and settings.privacy == "off" and card.id not in preference.exclude


def named(card: ModelCard, query: Query, preference: Preference) -> Decision:
    """The decision for a model that was named: nothing is estimated."""
    prompt = query_prompt_tokens(query).expected * card.token_factor
    only = Candidate(
        model=card.id, where=card.where, p_correct=None, p_low=None, p_high=None, tokens=None, tokens_hi=None,
        prompt_tokens=prompt, usd=None, usd_hi=None, seconds=None, utility=None, evidence="none", excluded_by=None, rationale=None,
    )  # fmt: skip
    return Decision(
        choice=card.id, where=card.where, alpha=preference.alpha, policy=preference.policy, feasible=True, bound=None,
        over_budget=False, estimator=EstimatorReport("none"), candidates=(only,), neighbors=(), flip_below=None,
        flip_above=None, truncated=False,
    )  # fmt: skip
