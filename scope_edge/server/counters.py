"""What a server keeps ready to decide and ask with: one encoder and one host of device models, and a flow for each pool asked for.

Settings that a single call may change make no difference here; for the others there is a counter each, the latest few of them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scope_edge.allowed import CHECKS
from scope_edge.assemble import Places, load_encoder, load_executor, load_flow, load_places, open_catalog
from scope_edge.errors import ScopeEdgeError
from scope_edge.server.memory import give_back

if TYPE_CHECKING:
    from scope_edge.config import Settings
    from scope_edge.encoder import Encoder
    from scope_edge.executor import Executor
    from scope_edge.records import EncodedQuery, Query
    from scope_edge.router import Flow

# What a call says for itself.
_PER_CALL = (
    "alpha", "max_tokens", "max_usd", "max_seconds", "local_only", "fallback", "policy", "top_k", "verify", "stick", "use_server",
)  # fmt: skip
_MOST = 6


class Counter:
    """One pool under one set of settings. The flow is loaded when it is first needed: a model that is named needs none."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self.settings = settings
        self._counters = counters
        self._lock = threading.Lock()
        self._flow: Flow | None = None
        self.executor: Executor = load_executor(
            settings, counters.catalog.cards, counters.encode, counters.places(settings)
        )

    @property
    def flow(self) -> Flow:
        """Raises what `load_flow` raises."""
        with self._lock:
            if self._flow is None:
                self._counters.loading()
                self._flow = load_flow(self.settings, encoder=lambda: self._counters.encoder)
                give_back()
            return self._flow

    def close(self) -> None:
        """End the estimator's process, and let go of the files. Whoever still uses it opens them again."""
        with self._lock:
            if self._flow is not None:
                self._flow.close()
        for part in (self.executor.ledger, self.executor.journal):
            if part is not None:
                part.close()


class Counters:
    """Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        """Raises what `load_catalog` raises."""
        self.settings = settings
        self._loading = threading.Lock()
        self._encoder: Callable[[], Encoder] | None = None
        self.catalog = open_catalog(settings)
        self._lock = threading.Lock()
        self._counters: OrderedDict[tuple[Any, ...], Counter] = OrderedDict()
        self._places: dict[tuple[float, bool], Places] = {}
        # A run of the encoder uses all cores: more of them at once make each slower, and take memory.
        self._encoding = threading.Semaphore(2)

    @property
    def encoder(self) -> Encoder:
        """Loaded when it is first needed: half of what a server takes, which one whose models are all named never does.

        Raises AssetError, MissingExtraError.
        """
        loaded = self.loading()
        try:
            return loaded()
        except ScopeEdgeError:
            # Whatever is mended by then, the next may have.
            self._encoder = None
            raise

    def loading(self) -> Callable[[], Encoder]:
        """Begin to load the encoder; calling what comes back waits for it. Raises as `encoder`."""
        with self._loading:
            if self._encoder is None:
                self._encoder = load_encoder(self.settings)
            return self._encoder

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """A turn at the encoder."""
        with self._encoding:
            yield

    def encode(self, query: Query) -> EncodedQuery:
        """In turn."""
        with self.encoding():
            return self.encoder.encode(query)

    def at(self, settings: Settings) -> Counter:
        """The counter for some settings."""
        key = tuple(getattr(settings, name) for name in CHECKS if name not in _PER_CALL)
        with self._lock:
            found = self._counters.get(key)
            if found is None:
                found = self._counters[key] = Counter(settings, self)
            self._counters.move_to_end(key)
            gone = [self._counters.popitem(last=False)[1] for _ in range(len(self._counters) - _MOST)]
        for one in gone:
            one.close()
        return found

    def places(self, settings: Settings) -> Places:
        """Where models run: endpoints as patiently as the settings say, GGUFs in the one host there is. Under the lock of `at`."""
        key = (settings.silence_seconds, settings.offline)
        if key not in self._places:
            device = next((one.device for one in self._places.values()), None)
            # Only the first host is kept: there is one memory, whoever asks.
            cards = [replace(card, gguf=None) for card in self.catalog.cards] if device else self.catalog.cards
            made = load_places(settings, cards)
            self._places[key] = Places(device or made.device, made.cloud)
        return self._places[key]

    def loaded(self) -> tuple[tuple[str, ...], int]:
        """Models on the device that are loaded, and requests their workers have not ended."""
        with self._lock:
            device: Any = next((one.device for one in self._places.values() if one.device is not None), None)
        return ((), 0) if device is None else (device.loaded, device.sequences)

    def close(self) -> None:
        """End all that runs."""
        with self._lock:
            counters, self._counters = tuple(self._counters.values()), OrderedDict()
            places, self._places = tuple(self._places.values()), {}
        for counter in counters:
            counter.close()
        for place in places:
            place.cloud.close()
        for place in places[:1]:
            if place.device is not None:
                place.device.close()
