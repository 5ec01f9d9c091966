"""Open connections: how many, which one makes room for another, and how long a client may be slow.

uvicorn has no time limit for a request's head or for a client that does not read, and its `limit_concurrency` counts idle
connections, so that any local program could shut everybody out. Hence this protocol.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from scope_edge.server.metrics import Metrics

# For a request's head; between requests; until a client reads what has been written.
HEAD_SECONDS, IDLE_SECONDS, SEND_SECONDS = 15.0, 30.0, 60.0
# Open files of the process itself, and of each answer: a model's connection, and the databases meanwhile.
_OWN_FILES, _FILES_PER_ANSWER = 128, 3


class Connections:
    """The open connections, in the event loop. At the limit, the one that has been idle longest is closed."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        self._most, self._metrics = most, metrics
        self._open: set[LimitedProtocol] = set()
        self._idle: dict[LimitedProtocol, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def full(self) -> bool:
        """Whether a request now comes from beyond the limit, all other connections being busy."""
        return len(self._open) > self._most

    def idle(self, one: LimitedProtocol) -> None:
        """Note a connection, new or known, without a request."""
        self._open.add(one)
        self._idle.pop(one, None)
        self._make_room()
        self._idle[one] = None

    def busy(self, one: LimitedProtocol) -> None:
        """Note that a request has begun."""
        self._idle.pop(one, None)
        self._make_room()
        if self.full:
            self._metrics.connections_cut.labels(why="crowded").inc()

    def leave(self, one: LimitedProtocol) -> None:
        """Forget a connection."""
        self._open.discard(one)
        self._idle.pop(one, None)

    def _make_room(self) -> None:
        oldest = next((one for one in self._idle if not one.unsent), None) if self.full else None
        if oldest is not None:
            self._metrics.connections_cut.labels(why="idle").inc()
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
        """Whether the client has yet to take the end of an answer."""
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
        """Hang up after so many seconds unless this is called again; None: stop the timer."""
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
