"""Limits on answers under way, on requests that wait, and on open connections, all in the event loop.

uvicorn has no time limit for a request's head or for a client that does not read, and its `limit_concurrency` counts idle
connections, so that any local program could lock all others out. Hence `LimitedProtocol`.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from uvicorn.protocols.http.h11_impl import H11Protocol

from scope_edge.server.errors import ApiError, closing

if TYPE_CHECKING:
    from prometheus_client import Counter

# For a request's head; between requests; until a client reads what has been written.
HEAD_SECONDS, IDLE_SECONDS, SEND_SECONDS = 15.0, 30.0, 60.0
# Open files of the process itself, and of each answer: a model's connection, and the databases meanwhile.
_OWN_FILES, _FILES_PER_ANSWER = 128, 3
_LONGEST_RETRY_AFTER = 60


class RequestQueue:
    """First come, first served. The error for a full queue says when to try again."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._at_once, self._most_waiting = at_once, waiting
        self._turns = anyio.Semaphore(at_once)
        # The mean time of an answer; at first a guess.
        self._seconds = 1.0
        self.running = 0
        self.closed = False

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return self._turns.statistics().tasks_waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a turn during the block. Raises ApiError: the queue is full, or the server is shutting down."""
        if self._turns.value == 0 and self.waiting >= self._most_waiting and not self.closed:
            rounds = (self.waiting + 1) / self._at_once
            seconds = max(1, min(math.ceil(rounds * self._seconds), _LONGEST_RETRY_AFTER))
            why, headers = (
                f"too many requests are waiting; try again in {seconds} seconds",
                {"retry-after": str(seconds)},
            )
            raise ApiError(429, why, "queue_full", kind="rate_limit_error", headers=headers)
        async with self._turns:
            if self.closed:
                raise closing()
            self.running += 1
            begun = time.monotonic()
            try:
                yield
            finally:
                self.running -= 1
                self._seconds += (time.monotonic() - begun - self._seconds) / 8

    def close(self) -> None:
        """Refuse all requests that do not have a turn yet."""
        self.closed = True
        # One more than there are waiting requests: each request that comes from now on passes it on.
        for _ in range(self.waiting + 1):
            self._turns.release()


class Connections:
    """The open connections. At the limit, the one that has been idle longest is closed."""

    def __init__(self, most: int, cut: Counter) -> None:
        """cut: counts closed connections and refused requests."""
        self._most, self._cut = most, cut
        self._open: set[LimitedProtocol] = set()
        self._idle: dict[LimitedProtocol, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def full(self) -> bool:
        """Whether there are too many connections, all of them busy."""
        return len(self._open) > self._most

    def idle(self, one: LimitedProtocol) -> None:
        """Note that a connection, new or known, has no request."""
        self._open.add(one)
        self._idle.pop(one, None)
        self._make_room()
        self._idle[one] = None

    def busy(self, one: LimitedProtocol) -> None:
        """Note that a request has begun."""
        self._idle.pop(one, None)
        self._make_room()
        if self.full:
            self._cut.labels(why="crowded").inc()

    def leave(self, one: LimitedProtocol) -> None:
        """Forget a connection."""
        self._open.discard(one)
        self._idle.pop(one, None)

    def _make_room(self) -> None:
        oldest = next((one for one in self._idle if not one.unsent), None) if self.full else None
        if oldest is not None:
            self._cut.labels(why="idle").inc()
            self.leave(oldest)
            oldest.transport.abort()


class LimitedProtocol(H11Protocol):
    """uvicorn's connection, with the limits above."""

    def __init__(self, connections: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._all = connections
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def unsent(self) -> bool:
        """Whether the client has not read the end of a response yet."""
        return self.transport.get_write_buffer_size() > 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._all.idle(self)
        self._within("head", HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._within("head", None)
        self._within("send", None)
        self._all.leave(self)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._within("head", None)
            self._all.busy(self)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._within("send", SEND_SECONDS)
        elif self.cycle is None or self.cycle.response_complete:
            self._all.idle(self)
            self._within("head", IDLE_SECONDS + HEAD_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._within("send", SEND_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._within("send", None)

    def _within(self, what: str, seconds: float | None) -> None:
        """Hang up after so many seconds unless this is called again; None = stop the timer."""
        if what in self._timers:
            self._timers.pop(what).cancel()
        if seconds is not None:
            self._timers[what] = self.loop.call_later(seconds, self._late, what)

    def _late(self, what: str) -> None:
        if what == "head" and self.unsent:
            self._within("send", SEND_SECONDS)
        else:
            self.transport.abort()


def connection_limit(wanted: int, at_once: int) -> int:
    """Return how many connections the limit on open files allows, at most `wanted`; raise that limit if the system allows it."""
    if sys.platform == "win32":
        return wanted
    import resource

    others = _OWN_FILES + _FILES_PER_ANSWER * at_once
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted + others:
        return wanted
    files = wanted + others if hard == resource.RLIM_INFINITY else min(wanted + others, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    except (ValueError, OSError):
        files = soft
    return max(1, files - others)
