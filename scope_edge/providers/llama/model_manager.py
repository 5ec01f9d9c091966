"""The loaded device models, each in a worker of its own, and which is loaded next when not all fit into memory.

The rules, as functions without a clock, threads or processes:
- A model is loaded where it would go if it had the machine to itself. For that, idle models are evicted, the least recently used
  first, and no more than needed. A model with running requests is never evicted.
- Once loaded, a model stays for `STAY` times its loading time, used or not: so that two models that do not fit together are not
  swapped for every request.
- After that, requests are served in order of arrival: a request that needs the memory holds back later requests for the model in
  it, so the running ones finish and the memory becomes free, however many follow. Those held back come next, by the same rule.
- A later request's model is loaded first only if that takes no room from an earlier one, neither now nor after its turn.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from scope_edge.errors import WorkerError
from scope_edge.providers.llama.client import START_SECONDS, LlamaClient
from scope_edge.providers.llama.loadable import start_worker
from scope_edge.providers.llama.memory import LoadPlan, Store

STAY = 2.0
# A waiting request looks again this often, without being woken.
_LOOK_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class LoadedModel:
    """A model's share of memory, and its worker.

    Attributes:
        needs: bytes of `store`. state: "leaving" takes its bytes until its worker has ended.
        running: requests. stays: until when it is not evicted. used: when it was last used. began: when loading began.
        cards: ids of its cards.
    """

    path: Path
    store: Store
    needs: int
    state: Literal["loading", "ready", "leaving"] = "loading"
    running: int = 0
    stays: float = 0.0
    used: float = 0.0
    client: LlamaClient | None = None
    cards: set[str] = field(default_factory=set)
    began: float = 0.0

    def loaded(self, now: float, seconds: float) -> None:
        """Mark it as ready; loading took so long."""
        self.state, self.used, self.stays = "ready", now, now + STAY * seconds

    @property
    def worker(self) -> LlamaClient:
        """The worker of a ready model. Raises WorkerError when it has ended."""
        if self.client is None:
            raise WorkerError(f"{self.path.name}: its worker has ended")
        return self.client

    @property
    def alive(self) -> bool:
        """Whether it can serve requests."""
        return self.state == "ready" and self.client is not None and self.client.alive

    def close(self) -> None:
        """End its worker, if any."""
        if self.client is not None:
            self.client.close()


@dataclass(slots=True, eq=False)
class ModelRequest:
    """A request that waits for a model, by the id of its card. failed: why the model could not be loaded."""

    path: Path
    card: str
    load_plan: LoadPlan
    failed: WorkerError | None = None


@dataclass(frozen=True, slots=True)
class Eviction:
    """A request whose model to load now, and the models to evict for it."""

    request: ModelRequest
    evicted: tuple[LoadedModel, ...]


def may_start(
    model: LoadedModel,
    request: ModelRequest,
    waiting: Sequence[ModelRequest],
    models: Sequence[LoadedModel],
    now: float,
) -> bool:
    """Return whether a request may begin on its model. waiting: all requests, in order of arrival."""
    if model.state != "ready":
        return False
    if now < model.stays:
        return True
    earlier = waiting[: waiting.index(request)]
    return not any(model in in_the_way(one, models, now) for one in _unplaced(earlier, models))


def next_load(waiting: Sequence[ModelRequest], models: Sequence[LoadedModel], now: float) -> Eviction | None:
    """Return the request whose model to load now, if any."""
    earlier: list[ModelRequest] = []
    for request in _unplaced(waiting, models):
        evicted = in_the_way(request, models, now)
        idle = all(not model.running and now >= model.stays for model in evicted)
        if not earlier and idle and _fits(request, models, evicted):
            return Eviction(request, evicted)
        if earlier and not evicted and _fits(request, models, ()) and _fits_after(request, earlier, models, now):
            return Eviction(request, ())
        earlier.append(request)
    return None


def in_the_way(request: ModelRequest, models: Sequence[LoadedModel], now: float) -> tuple[LoadedModel, ...]:
    """Return the models to evict for a request: those that can go at once first, then the least recently used, none in vain."""
    plan = request.load_plan
    store = [model for model in models if model.store == plan.store]
    over = sum(model.needs for model in store if model.state != "leaving") + plan.plan.needs - plan.room
    chosen: list[LoadedModel] = []
    ready = [model for model in store if model.state == "ready"]
    for model in sorted(ready, key=lambda model: (model.running > 0, model.stays > now, model.used)):
        if over > 0:
            chosen.append(model)
            over -= model.needs
    for model in list(chosen):
        if over + model.needs <= 0:
            chosen.remove(model)
            over += model.needs
    return tuple(chosen)


def _unplaced(waiting: Sequence[ModelRequest], models: Sequence[LoadedModel]) -> Iterator[ModelRequest]:
    """Yield the first request for each model that is not loaded, or is leaving."""
    seen = {model.path for model in models if model.state != "leaving"}
    for request in waiting:
        if request.path not in seen:
            seen.add(request.path)
            yield request


def _fits(request: ModelRequest, models: Sequence[LoadedModel], evicted: Sequence[LoadedModel]) -> bool:
    """Return whether a model has room once `evicted` have left; others may be leaving or loading. One alone always fits."""
    plan = request.load_plan
    taken = sum(model.needs for model in models if model.store == plan.store and model not in evicted)
    return not taken or taken + plan.plan.needs <= plan.room


def _fits_after(
    request: ModelRequest, earlier: Sequence[ModelRequest], models: Sequence[LoadedModel], now: float
) -> bool:
    """Return whether it also fits after all earlier requests have had their turn."""
    gone = {model for one in earlier for model in in_the_way(one, models, now)}
    plan = request.load_plan
    stay = sum(model.needs for model in models if model.store == plan.store and model not in gone)
    come = sum(one.load_plan.plan.needs for one in earlier if one.load_plan.store == plan.store)
    return stay + come + plan.plan.needs <= plan.room


class ModelManager:
    """Loads models for requests and drops them again. Safe to use from several threads.

    Loading happens in threads of its own, so that a request can give up waiting for it.
    """

    def __init__(self, open_: Callable[[ModelRequest], LlamaClient], keep_alive: float) -> None:
        """Load nothing yet.

        Args:
            open_: makes a worker for a request's model, not started; raises WorkerError.
            keep_alive: seconds a model stays after its last use; below 0 = until its memory is needed.
        """
        self._open, self._keep_alive = open_, keep_alive
        self._changed = threading.Condition()
        self._models: list[LoadedModel] = []
        self._waiting: list[ModelRequest] = []
        self._threads: set[threading.Thread] = set()
        self._closed = False
        self._start(self._clear_unused)

    @property
    def alive(self) -> tuple[LoadedModel, ...]:
        """The models that can serve requests."""
        with self._changed:
            return tuple(model for model in self._models if model.alive)

    def held(self) -> dict[Store, int]:
        """Return the bytes of each store that models take."""
        taken: dict[Store, int] = {"gpu": 0, "memory": 0}
        with self._changed:
            for model in self._models:
                taken[model.store] += model.needs
        return taken

    def enter(self, request: ModelRequest, until: float, gone: Callable[[], bool]) -> tuple[LoadedModel, float] | None:
        """Wait until the model is loaded and this request's turn has come; `leave` must follow.

        Returns the model and the seconds waited, 0 when it was ready at once. None: the deadline (by the monotonic clock) passed,
        or `gone` returned True. Raises WorkerError when it cannot be loaded, or the manager is closed.
        """
        begun, waited = time.monotonic(), False
        with self._changed:
            self._waiting.append(request)
            try:
                while not gone() and time.monotonic() < until:
                    if self._closed:
                        raise WorkerError(f"{request.path.name}: the host is closed")
                    if request.failed is not None:
                        raise WorkerError(str(request.failed), refused=request.failed.refused)
                    self._bury()
                    now = time.monotonic()
                    for model in self._models:
                        if model.path == request.path and may_start(model, request, self._waiting, self._models, now):
                            model.running += 1
                            model.used = now
                            model.cards.add(request.card)
                            return model, now - begun if waited else 0.0
                    self._begin_loading()
                    waited = True
                    self._changed.wait(self._pause(until))
                return None
            finally:
                self._waiting.remove(request)
                self._changed.notify_all()

    def leave(self, model: LoadedModel) -> None:
        """Note that a request has ended."""
        with self._changed:
            model.running -= 1
            model.used = time.monotonic()
            self._changed.notify_all()

    def wake(self) -> None:
        """Let waiting requests check whether they were given up."""
        with self._changed:
            self._changed.notify_all()

    def expected_wait(self, request: ModelRequest, load_seconds: float | None) -> float | None:
        """Return the seconds until a request could begin: 0 = at once, None = unknown. load_seconds: its loading time."""
        now = time.monotonic()
        with self._changed:
            self._bury()
            waiting = [*self._waiting, request]
            own = next((one for one in self._models if one.path == request.path and one.state != "leaving"), None)
            if own is not None and own.state == "loading":
                return None if load_seconds is None else max(0.0, load_seconds - (now - own.began))
            if own is not None:
                return 0.0 if may_start(own, request, waiting, self._models, now) else None
            evicted = in_the_way(request, self._models, now)
            if load_seconds is None or len(waiting) > 1 or any(model.running for model in evicted):
                return None
            return load_seconds + max((model.stays - now for model in evicted if model.stays > now), default=0.0)

    def close(self) -> None:
        """End every worker, whatever it is doing, and wait for them."""
        with self._changed:
            self._closed = True
            models = list(self._models)
            self._changed.notify_all()
        for model in models:
            model.close()
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join()
        with self._changed:
            self._models.clear()

    # Under the lock

    def _begin_loading(self) -> None:
        """Start loading all models that have room."""
        while (turn := next_load(self._waiting, self._models, time.monotonic())) is not None:
            for one in turn.evicted:
                one.state = "leaving"
            request, plan = turn.request, turn.request.load_plan
            model = LoadedModel(request.path, plan.store, plan.plan.needs, cards={request.card}, began=time.monotonic())
            self._models.append(model)
            self._start(partial(self._load, request, model, turn.evicted))

    def _bury(self) -> None:
        """Drop models whose worker died while idle."""
        for model in list(self._models):
            if model.state == "ready" and not model.alive:
                self._models.remove(model)
                model.close()

    def _pause(self, until: float) -> float:
        now = time.monotonic()
        ends = [model.stays - now for model in self._models if model.stays > now]
        return max(0.0, min([_LOOK_SECONDS, until - now, *ends]))

    def _start(self, do: Callable[[], None]) -> None:
        def run() -> None:
            try:
                do()
            finally:
                self._threads.discard(thread)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.add(thread)
        thread.start()

    # In threads of their own

    def _load(self, request: ModelRequest, model: LoadedModel, evicted: Sequence[LoadedModel]) -> None:
        """End the evicted models and load; then wake the requests that wait for it."""
        self._clear(evicted)
        begun = time.monotonic()
        failed: WorkerError | None = WorkerError(f"{request.path.name}: loading it broke off")
        try:
            model.client = self._open(request)
            if not self._closed:
                start_worker(model.client, model.path, START_SECONDS)
            failed = None
        except WorkerError as error:
            failed = error
        finally:
            with self._changed:
                if failed is None and not self._closed:
                    model.loaded(time.monotonic(), time.monotonic() - begun)
                else:
                    self._models.remove(model)
                    for one in self._waiting:
                        if one.path == model.path:
                            one.failed = failed
                self._changed.notify_all()
            if model.state != "ready":
                model.close()

    def _clear(self, models: Sequence[LoadedModel]) -> None:
        """End the workers of leaving models, which count until then."""
        for model in models:
            model.close()
        with self._changed:
            self._models = [model for model in self._models if model not in models]
            self._changed.notify_all()

    def _clear_unused(self) -> None:
        """Drop models that were idle for too long, until all is closed."""
        while not self._closed:
            with self._changed:
                now = time.monotonic()
                ends = {model: self._end(model) for model in self._models if model.state == "ready"}
                over = [model for model, end in ends.items() if end <= now]
                for model in over:
                    model.state = "leaving"
                if not over:
                    first = min(ends.values(), default=math.inf)
                    self._changed.wait(None if first == math.inf else first - now)
            if over:
                self._clear(over)

    def _end(self, model: LoadedModel) -> float:
        """Return when a model is dropped if it stays idle."""
        wanted = model.running or any(one.path == model.path for one in self._waiting)
        return math.inf if wanted or self._keep_alive < 0 else model.used + self._keep_alive
