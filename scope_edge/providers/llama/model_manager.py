"""The device models that are loaded, each in a worker of its own: loaded when asked for, in turn, and dropped when not used.

scheduling.py says which is loaded next. Loading happens in threads of its own, so that a request can give up waiting for it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from scope_edge.errors import WorkerError
from scope_edge.providers.llama.client import LlamaClient
from scope_edge.providers.llama.memory import Store
from scope_edge.providers.llama.scheduling import LoadedModel, ModelRequest, in_the_way, may_start, next_load

# A wait looks around this often, should nobody wake it.
_LOOK_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class RunningModel(LoadedModel):
    """A place with its worker. cards: ids it is known by. began: when loading it did."""

    client: LlamaClient | None = None
    cards: set[str] = field(default_factory=set)
    began: float = 0.0

    @property
    def worker(self) -> LlamaClient:
        """The worker of one that is ready. Raises WorkerError: there is none."""
        if self.client is None:
            raise WorkerError(f"{self.path.name}: its worker has ended")
        return self.client

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.state == "ready" and self.client is not None and self.client.alive


@dataclass(slots=True, eq=False)
class _Waiting:
    ask: ModelRequest
    failed: WorkerError | None = None


class ModelManager:
    """Safe to use from several threads."""

    def __init__(
        self,
        open_: Callable[[ModelRequest], LlamaClient],
        start: Callable[[LlamaClient, Path], object],
        keep_alive: float,
    ) -> None:
        """open_, start: make a worker for a request's model, and start it with the model loaded; both raise WorkerError.

        keep_alive: seconds a model stays after its last use; below 0 = until its place is needed.
        """
        self._open, self._load, self._keep_alive = open_, start, keep_alive
        self._changed = threading.Condition()
        self._places: list[RunningModel] = []
        self._waiting: list[_Waiting] = []
        self._threads: set[threading.Thread] = set()
        self._closed = False
        self._start(self._clear_unused)

    @property
    def alive(self) -> tuple[RunningModel, ...]:
        """Those that can be asked."""
        with self._changed:
            return tuple(place for place in self._places if place.alive)

    def held(self, store: Store) -> int:
        """Bytes of a store that models take."""
        with self._changed:
            return sum(place.needs for place in self._places if place.store == store)

    def enter(self, ask: ModelRequest, until: float, gone: Callable[[], bool]) -> tuple[RunningModel, float] | None:
        """Wait until the model is loaded and this request's turn has come; `leave` must follow.

        With it comes how long that took, 0 when it was so at once. None: the time (by the monotonic clock) was up before that,
        or `gone` said that nobody waits. Raises WorkerError: it cannot be loaded, or all is closed.
        """
        waiting, begun, waited = _Waiting(ask), time.monotonic(), False
        with self._changed:
            self._waiting.append(waiting)
            try:
                while not gone() and time.monotonic() < until:
                    if self._closed:
                        raise WorkerError(f"{ask.path.name}: the host is closed")
                    if waiting.failed is not None:
                        raise WorkerError(str(waiting.failed), refused=waiting.failed.refused)
                    self._bury()
                    place = self._ready(waiting.ask)
                    if place is not None:
                        place.running += 1
                        place.used = time.monotonic()
                        place.cards.add(ask.card)
                        return place, place.used - begun if waited else 0.0
                    self._begin_turns()
                    waited = True
                    self._changed.wait(self._pause(until))
                return None
            finally:
                self._waiting.remove(waiting)
                self._changed.notify_all()

    def leave(self, place: RunningModel) -> None:
        """A request has ended."""
        with self._changed:
            place.running -= 1
            place.used = time.monotonic()
            self._changed.notify_all()

    def wake(self) -> None:
        """Have waiting requests look whether anybody still waits for them."""
        with self._changed:
            self._changed.notify_all()

    def expected_wait(self, ask: ModelRequest, load_seconds: float | None) -> float | None:
        """Seconds until a request could begin now: 0 = at once, None = unknown. load_seconds: what loading it takes."""
        now = time.monotonic()
        with self._changed:
            self._bury()
            asks = [*(one.ask for one in self._waiting), ask]
            own = next((place for place in self._places if place.path == ask.path and place.state != "leaving"), None)
            if own is not None and own.state == "loading":
                return None if load_seconds is None else max(0.0, load_seconds - (now - own.began))
            if own is not None:
                return 0.0 if may_start(own, ask, asks, self._places, now) else None
            leaving = in_the_way(ask, self._places, now)
            if load_seconds is None or len(asks) > 1 or any(place.running for place in leaving):
                return None
            return load_seconds + max((place.stays - now for place in leaving if place.stays > now), default=0.0)

    def close(self) -> None:
        """End every worker, whatever it is at, and wait for them."""
        with self._changed:
            self._closed = True
            places = list(self._places)
            self._changed.notify_all()
        for place in places:
            if place.client is not None:
                place.client.close()
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join()
        with self._changed:
            self._places.clear()

    # Under the lock

    def _ready(self, ask: ModelRequest) -> RunningModel | None:
        asks = [one.ask for one in self._waiting]
        for place in self._places:
            if place.path == ask.path and may_start(place, ask, asks, self._places, time.monotonic()):
                return place
        return None

    def _begin_turns(self) -> None:
        """Start loading what there is room for."""
        while (turn := next_load([one.ask for one in self._waiting], self._places, time.monotonic())) is not None:
            leaving = self._sent_away([place for place in self._places if place in turn.leaving])
            load_plan = turn.ask.load_plan
            place = RunningModel(
                turn.ask.path, load_plan.store, load_plan.plan.needs, cards={turn.ask.card}, began=time.monotonic()
            )
            self._places.append(place)
            self._start(partial(self._take_turn, turn.ask, place, leaving))

    def _sent_away(self, places: list[RunningModel]) -> list[RunningModel]:
        for place in places:
            place.state = "leaving"
        return places

    def _bury(self) -> None:
        """Drop workers that died while nobody looked."""
        for place in list(self._places):
            if place.state == "ready" and not place.alive and place.client is not None:
                self._places.remove(place)
                place.client.close()

    def _pause(self, until: float) -> float:
        now = time.monotonic()
        ends = [place.stays for place in self._places if place.stays > now]
        return max(0.0, min([_LOOK_SECONDS, until - now, *(end - now for end in ends)]))

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

    def _take_turn(self, ask: ModelRequest, place: RunningModel, leaving: list[RunningModel]) -> None:
        """Clear the room and load."""
        self._clear(leaving)
        begun = time.monotonic()
        failed: WorkerError | None = WorkerError(f"{ask.path.name}: loading it broke off")
        try:
            place.client = self._open(ask)
            if not self._closed:
                self._load(place.client, place.path)
            failed = None
        except WorkerError as error:
            failed = error
        finally:
            self._settle(place, failed, time.monotonic() - begun)

    def _settle(self, place: RunningModel, failed: WorkerError | None, seconds: float) -> None:
        """Loading is over; those who wait are told."""
        with self._changed:
            if failed is None and not self._closed:
                place.loaded(time.monotonic(), seconds)
            else:
                self._places.remove(place)
                for one in self._waiting:
                    if one.ask.path == place.path:
                        one.failed = failed
            self._changed.notify_all()
        if place.state != "ready" and place.client is not None:
            place.client.close()

    def _clear(self, places: list[RunningModel]) -> None:
        """End the workers of places that are leaving. They count until they are gone."""
        for place in places:
            if place.client is not None:
                place.client.close()
        with self._changed:
            self._places = [place for place in self._places if place not in places]
            self._changed.notify_all()

    def _clear_unused(self) -> None:
        """Drop models that nobody used for too long, until all is closed."""
        while not self._closed:
            with self._changed:
                now = time.monotonic()
                ends = {place: self._end(place) for place in self._places if place.state == "ready"}
                over = self._sent_away([place for place, end in ends.items() if end <= now])
                if not over:
                    first = min(ends.values(), default=math.inf)
                    self._changed.wait(None if first == math.inf else first - now)
            if over:
                self._clear(over)

    def _end(self, place: RunningModel) -> float:
        """When a model is dropped, if nobody asks it until then."""
        wanted = place.running or any(one.ask.path == place.path for one in self._waiting)
        return math.inf if wanted or self._keep_alive < 0 else place.used + self._keep_alive
