"""What the server's endpoints call: a request in the wire format goes to the router of its settings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scope_edge.execution.ask_request import Asked, AskRequest
from scope_edge.policy.overrides import is_unlimited
from scope_edge.server.model_names import Names
from scope_edge.server.pipelines import PipelineCache
from scope_edge.server.sessions import Sessions
from scope_edge.storage import assets
from scope_edge.types import Query

if TYPE_CHECKING:
    from scope_edge.server.model_names import Target
    from scope_edge.server.schemas import Conversation, RequestOptions
    from scope_edge.settings.config import Settings
    from scope_edge.types import Decision

# The encoder's name as an embedding model.
ENCODER = "all-minilm-l6-v2"
_CAPS = ("max_tokens", "max_usd", "max_seconds")


class Backend:
    """Threads may share one; every method blocks."""

    def __init__(self, settings: Settings, overrides: Mapping[str, Any]) -> None:
        """overrides: the server's own options. Raises what loading raises: an unknown pool, a damaged file."""
        self.settings = settings
        self._cache = PipelineCache(settings)
        self.names = Names(settings, self._cache.catalog, overrides)
        self.conversations = Sessions()

    def check(self) -> None:
        """Check the pool, and that all files to be loaded are whole. Raises UsageError, AssetError."""
        self._cache.catalog.pool(self.settings.pool)
        for name in assets.manifest():
            assets.check(name)

    def warm(self) -> None:
        """Load what the first decision needs. Raises what `Router.load` raises."""
        if self._cache.router(self.settings).pool:
            self._cache.encode(Query("ready"))

    def close(self) -> None:
        """End all that runs."""
        self._cache.close()

    def loaded(self) -> tuple[tuple[str, ...], int]:
        """The models on the device that are loaded, and the number of requests that run there."""
        return self._cache.loaded()

    def decide(self, target: Target, query: Query, wishes: RequestOptions) -> Decision:
        """Decide where a query should go; no model runs. Raises UsageError and what loading raises."""
        settings = tightened(target.settings, wishes)
        if target.pinned is not None:
            settings = replace(settings, pool=target.pinned.id)
        preference = settings.preference(exclude=wishes.exclude)
        return self._cache.router(settings).decide(query, preference, settings.top_k)

    def ask(self, target: Target, conversation: Conversation) -> Asked:
        """Decide, and begin an answer to a conversation. Raises as `Router.start`."""
        started = time.monotonic()
        wishes, card, messages = conversation.wishes, target.pinned, conversation.messages
        settings = tightened(target.settings, wishes)
        preference = settings.preference(exclude=wishes.exclude)
        # A client that wants to see the decision sees a full one, also for a pinned model.
        at_once = card is not None and not wishes.show and is_unlimited(card, preference, settings)
        if card is not None and not at_once and card not in self._cache.catalog.pool(settings.pool):
            settings = replace(settings, pool=card.id)
        request = AskRequest(
            query=conversation.query,
            preference=preference,
            top_k=settings.top_k,
            model=None if card is None else card.id,
            estimate=not at_once,
            messages=messages,
            fields=conversation.fields,
            needs=conversation.needs,
            verify=settings.verify if not conversation.needs else 0,
            previous_model=None if card is not None else self.conversations.model_of(target.name, messages),
            stick=settings.stick,
            started=started,
        )
        return self._cache.router(settings).start(request)

    @property
    def dimension(self) -> int:
        """The length of the encoder's vectors."""
        return self._cache.load_encoder().dimension

    def embed(self, texts: tuple[str, ...]) -> list[Any]:
        """Return the encoder's unit vectors of texts."""
        return [self._cache.encode(Query(text)).vector for text in texts]


def tightened(settings: Settings, wishes: RequestOptions) -> Settings:
    """The settings with a request's options laid over them. Its limits can be narrower than the server's, never wider."""
    changes = dict(wishes.settings)
    for name in _CAPS:
        limit = getattr(settings, name)
        if name in changes and limit is not None:
            changes[name] = min(changes[name], limit)
    if settings.local_only:
        changes["local_only"] = True
    return replace(settings, **changes)
