"""The loaded parts of a server: one encoder, one host of device models, and a router for each set of settings in use."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scope_edge import factory
from scope_edge.errors import ScopeEdgeError
from scope_edge.factory import Providers, open_catalog
from scope_edge.router import Router
from scope_edge.settings.schema import CHECKS

if TYPE_CHECKING:
    from scope_edge.encoding.encoder import Encoder
    from scope_edge.execution import Executor
    from scope_edge.history import Journal
    from scope_edge.pipeline import Pipeline
    from scope_edge.settings.config import Settings
    from scope_edge.types import EncodedQuery, Query

# Settings that a call gives with it: they make no other router.
_PER_CALL = (
    "alpha", "max_tokens", "max_usd", "max_seconds", "local_only", "fallback", "policy", "top_k", "verify", "stick", "use_server",
    "max_answer_tokens",
)  # fmt: skip
_MAX_ROUTERS = 6
_ARENA_MAX = -8


class PipelineCache:
    """The latest few routers, and the parts they share. Threads may share one."""

    def __init__(self, settings: Settings) -> None:
        """Raises as `open_catalog`."""
        self.settings = settings
        self.catalog = open_catalog(settings)
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._encoder: Callable[[], Encoder] | None = None
        # A run of the encoder uses all cores: more than two at once make each slower, and take memory.
        self._encoding = threading.Semaphore(2)
        self._routers: OrderedDict[tuple[Any, ...], Router] = OrderedDict()
        self._providers: dict[tuple[float, ...], Providers] = {}

    def router(self, settings: Settings) -> Router:
        """Return the router for some settings; those of a single call make no difference."""
        key = tuple(getattr(settings, name) for name in CHECKS if name not in _PER_CALL)
        with self._lock:
            found = self._routers.setdefault(key, Router(settings, self))
            self._routers.move_to_end(key)
            evicted = [self._routers.popitem(last=False)[1] for _ in range(len(self._routers) - _MAX_ROUTERS)]
        for one in evicted:
            one.close()
        return found

    def load_flow(self, settings: Settings) -> Pipeline:
        """Load the pipeline of a router; it encodes with this. Raises as `load_pipeline`."""
        self._begin_loading()

        def encoder() -> PipelineCache:
            self.load_encoder()
            return self

        flow = factory.load_pipeline(settings, encoder)
        _glibc("malloc_trim", 0)
        return flow

    def load_executor(self, settings: Settings, journal: Journal) -> Executor:
        """Make the executor of a router; models run where those of all other routers do."""
        with self._lock:
            providers = self._providers_for(settings)
        return factory.load_executor(settings, self.catalog.cards, self.encode, journal, providers)

    def load_encoder(self) -> Encoder:
        """Load the encoder at the first call: a server whose models are all pinned never does, and needs half the memory.

        Raises AssetError, MissingExtraError.
        """
        loaded = self._begin_loading()
        try:
            return loaded()
        except ScopeEdgeError:
            # The next call may find it repaired.
            self._encoder = None
            raise

    def encode(self, query: Query) -> EncodedQuery:
        """Encode a query when it is its turn. Raises as `load_encoder`."""
        with self._encoding:
            return self.load_encoder().encode(query)

    def encode_many(self, queries: Iterable[Query]) -> Iterator[EncodedQuery]:
        """Encode queries one by one, each when it is its turn."""
        return map(self.encode, queries)

    def loaded(self) -> tuple[tuple[str, ...], int]:
        """Return the models on the device that are loaded, and the number of requests that run there."""
        with self._lock:
            device: Any = next((one.device for one in self._providers.values() if one.device is not None), None)
        return ((), 0) if device is None else (device.loaded, device.sequences)

    def close(self) -> None:
        """End all that runs."""
        with self._lock:
            routers, self._routers = tuple(self._routers.values()), OrderedDict()
            providers, self._providers = tuple(self._providers.values()), {}
        for router in routers:
            router.close()
        for one in providers:
            one.cloud.close()
        if providers and providers[0].device is not None:
            providers[0].device.close()

    def _begin_loading(self) -> Callable[[], Encoder]:
        with self._loading:
            if self._encoder is None:
                self._encoder = factory.load_encoder(self.settings)
            return self._encoder

    def _providers_for(self, settings: Settings) -> Providers:
        key = (settings.silence_seconds, settings.first_token_seconds, settings.least_pace, settings.offline)
        if key not in self._providers:
            device = next((one.device for one in self._providers.values()), None)
            # Only the first host of device models is kept: they all share one memory.
            cards = [replace(card, gguf=None) for card in self.catalog.cards] if device else self.catalog.cards
            made = factory.load_providers(settings, cards)
            self._providers[key] = Providers(device or made.device, made.cloud)
        return self._providers[key]


def share_arenas() -> None:
    """Let all threads share two of glibc's arenas, which keep freed memory; call it before there are threads."""
    _glibc("mallopt", _ARENA_MAX, 2)


def _glibc(function: str, *numbers: int) -> None:
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(AttributeError, OSError):
            getattr(ctypes.CDLL(None), function)(*numbers)
