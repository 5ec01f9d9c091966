"""A request in the wire format goes to the model that it names, under the settings of that name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scope_edge.catalog.cards import nearest
from scope_edge.execution.fallback import callable_now, why_not_called
from scope_edge.execution.request import Asked, AskRequest, limited
from scope_edge.policy.overrides import is_unlimited
from scope_edge.server.errors import ApiError, bad
from scope_edge.server.pipelines import PipelineCache
from scope_edge.server.schemas import AUTO
from scope_edge.server.sessions import Sessions
from scope_edge.settings.config import load_settings
from scope_edge.storage import assets
from scope_edge.types import Budget, Preference, Query

if TYPE_CHECKING:
    from scope_edge.catalog.cards import Catalog
    from scope_edge.server.schemas import Conversation, RequestOptions
    from scope_edge.settings.config import Settings
    from scope_edge.types import Decision, ModelCard

# The encoder's name as an embedding model.
ENCODER = "all-minilm-l6-v2"
_CAPS = ("max_tokens", "max_usd", "max_seconds", "max_answer_tokens")
# At a fifth of the way, a twenty-fifth of what the most accurate choice would spend (docs/alpha.md).
CHEAP_ALPHA = 0.2


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a request names: a virtual one, under whose settings the router decides, or `pinned`, a real one."""

    name: str
    settings: Settings
    pinned: ModelCard | None = None


class ModelNames:
    """The names that a request may give as its model."""

    def __init__(self, settings: Settings, catalog: Catalog, overrides: Mapping[str, Any]) -> None:
        """overrides: options of the server, which no profile changes. Raises ConfigError."""
        self._catalog = catalog
        self._auto = Target(AUTO, settings)
        self.virtual: dict[str, Target] = {
            AUTO: self._auto,
            f"{AUTO}:cheap": Target(f"{AUTO}:cheap", replace(settings, alpha=CHEAP_ALPHA)),
            f"{AUTO}:best": Target(f"{AUTO}:best", replace(settings, alpha=1.0)),
            f"{AUTO}:local": Target(f"{AUTO}:local", replace(settings, local_only=True)),
        }
        given = {key: value for key, value in overrides.items() if value is not None and key != "profile"}
        for profile in settings.profiles:
            if profile not in self.virtual and profile not in catalog.by_id:
                self.virtual[profile] = Target(profile, load_settings({**given, "profile": profile}))

    @property
    def real(self) -> tuple[ModelCard, ...]:
        """The cards of all models that can be called."""
        return tuple(card for card in self._catalog.cards if callable_now(card))

    def find(self, name: str) -> Target:
        """Return the model of a name. Raises ApiError: it is unknown, or cannot be called."""
        target = self.virtual.get(name)
        if target is not None:
            return target
        card = self._catalog.by_id.get(name)
        if card is not None and callable_now(card):
            return Target(name, self._auto.settings, card)
        if card is not None:
            why = f"{name} cannot be called: {why_not_called(card, local_only=False)}"
        else:
            known = (*self.virtual, *(one.id for one in self.real))
            why = f"there is no model {name!r}{nearest(name, known)}; /v1/models lists them"
        raise ApiError(404, why, "model_not_found", param="model")


class Backend:
    """Decides and answers requests. Threads may share one; every method blocks."""

    def __init__(self, settings: Settings, overrides: Mapping[str, Any]) -> None:
        """overrides: the server's own options. Raises UsageError (an unknown pool), AssetError."""
        self.settings = settings
        self.cache = PipelineCache(settings)
        self.names = ModelNames(settings, self.cache.catalog, overrides)
        self.conversations = Sessions()

    def check(self) -> None:
        """Check the pool, and that all files to be loaded are whole. Raises UsageError, AssetError."""
        self.cache.catalog.pool(self.settings.pool)
        for name in assets.manifest():
            assets.check(name)

    def warm(self) -> None:
        """Load what the first decision needs. Raises what `Router.load` raises."""
        if self.cache.router(self.settings).pool:
            self.cache.encode(Query("ready"))

    def decide(self, target: Target, query: Query, options: RequestOptions) -> Decision:
        """Decide where a query should go; no model runs. Raises UsageError, AssetError."""
        settings = tightened(target.settings, options)
        if target.pinned is not None:
            settings = replace(settings, pool=target.pinned.id)
        preference = _preference(target, settings, options)
        return self.cache.router(settings).decide(query, preference, settings.top_k)

    def ask(self, target: Target, conversation: Conversation) -> Asked:
        """Decide, and begin an answer to a conversation. Raises as `Router.start`."""
        started = time.monotonic()
        options, card, messages = conversation.options, target.pinned, conversation.messages
        settings = tightened(target.settings, options)
        preference = _preference(target, settings, options)
        # A client that asks for the decision gets a full one, also for a pinned model.
        at_once = card is not None and not options.show and is_unlimited(card, preference, settings)
        if card is not None and not at_once and card not in self.cache.catalog.pool(settings.pool):
            settings = replace(settings, pool=card.id)
        request = AskRequest(
            query=conversation.query,
            preference=preference,
            top_k=settings.top_k,
            model=None if card is None else card.id,
            estimate=not at_once,
            messages=messages,
            fields=limited(conversation.fields, settings.max_answer_tokens),
            needs=conversation.needs,
            verify=settings.verify if not conversation.needs else 0,
            previous_model=None if card is not None else self.conversations.model_of(target.name, messages),
            stick=settings.stick,
            started=started,
        )
        return self.cache.router(settings).start(request)


def tightened(settings: Settings, options: RequestOptions) -> Settings:
    """Return the settings with a request's options. A request's limits can be narrower than the server's, never wider.

    Raises ApiError for an unknown profile: each one in use has a router of its own.
    """
    changes = dict(options.settings)
    profile = changes.get("profile")
    if profile is not None and profile not in settings.profiles:
        why = (
            f"recorded_profile: the server's settings have no profile {profile!r}{nearest(profile, settings.profiles)}"
        )
        raise bad(why, "scope_edge.recorded_profile")
    for name in _CAPS:
        limit = getattr(settings, name)
        if name in changes and limit is not None:
            changes[name] = min(changes[name], limit)
    if settings.local_only:
        changes["local_only"] = True
    return replace(settings, **changes)


def _preference(target: Target, settings: Settings, options: RequestOptions) -> Preference:
    """Return the preference of a request. Only the server's own `fallback` lifts the server's own limits."""
    own = target.settings.preference()
    ceiling = own.budget if own.fallback == "none" else Budget()
    return replace(settings.preference(exclude=options.exclude), ceiling=ceiling)
