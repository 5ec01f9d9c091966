"""Connections: how many are open at once, who has to go when there are more, and how long a request's head may take.

Anybody on this machine can connect, without the token, and each connection takes one of the files the process may have open. So
when all places are taken, whoever has waited longest without a request makes room; where all are at work, who comes is refused.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from scope_edge.server.exchange import SEND_SECONDS
from scope_edge.server.problems import Problem, crowded

if TYPE_CHECKING:
    from scope_edge.server.metrics import Metrics

HEADER_SECONDS, IDLE_SECONDS = 15.0, 30.0
# Who is refused may take so long to read why; more of them than this at once are not told.
_LEAVING_SECONDS, _MOST_LEAVING = 2.0, 32
# Files of the process itself, and of each answer: a model's connection, and what the databases have open meanwhile.
_OWN_FILES, _FILES_PER_ANSWER = 96, 3


class Doors:
    """Lives in the event loop."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        """most: connections that are let in at once."""
        self._most, self._metrics = most, metrics
        self._inside: set[Guest] = set()
        self._waiting: OrderedDict[Guest, None] = OrderedDict()
        self._leaving = 0

    @property
    def open(self) -> int:
        """Connections that are let in."""
        return len(self._inside)

    def enter(self, guest: Guest) -> bool:
        """Whether there is a place, or there is one now that somebody who only waited has left his."""
        if len(self._inside) >= self._most:
            oldest = next((one for one in self._waiting if not one.unsent), None)
            self._metrics.count("connections_cut_total", why="crowded" if oldest is None else "idle")
            if oldest is None:
                return False
            self.leave(oldest)
            oldest.hang_up()
        self._inside.add(guest)
        return True

    def waits(self, guest: Guest) -> None:
        """It has no request under way."""
        if guest in self._inside:
            self._waiting[guest] = None
            self._waiting.move_to_end(guest)

    def works(self, guest: Guest) -> None:
        """It has one."""
        self._waiting.pop(guest, None)

    def leave(self, guest: Guest) -> None:
        """It is gone."""
        self._inside.discard(guest)
        self._waiting.pop(guest, None)

    def turn_away(self, transport: asyncio.Transport) -> None:
        """Say that there is no place, if that can be said in passing."""
        if self._leaving >= _MOST_LEAVING:
            transport.abort()
            return
        self._leaving += 1
        transport.set_protocol(Leaving(transport, self))

    def left(self) -> None:
        """One that was turned away is gone."""
        self._leaving -= 1


class Leaving(asyncio.Protocol):
    """A connection that is told that there is no place. What it sends is not read, but taken, or it would not read either."""

    def __init__(self, transport: asyncio.Transport, doors: Doors) -> None:
        self._doors = doors
        transport.write(_whole(crowded()))
        if transport.can_write_eof():
            transport.write_eof()
        self._late = asyncio.get_running_loop().call_later(_LEAVING_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has read it, or its time is up."""
        self._late.cancel()
        self._doors.left()


class Guest(H11Protocol):
    """Uvicorn's side of a connection, which keeps a place at the doors, and hangs up on who does not send a head in time."""

    _late: asyncio.TimerHandle | None = None

    def __init__(self, doors: Doors, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._doors = doors

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if not self._doors.enter(self):
            self._doors.turn_away(transport)
            return
        super().connection_made(transport)
        self._await_head(HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._doors.leave(self)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._head_came()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._await_head(IDLE_SECONDS + HEADER_SECONDS)

    @property
    def unsent(self) -> bool:
        """Whether the end of an answer is still on its way."""
        return self.transport.get_write_buffer_size() > 0

    def hang_up(self) -> None:
        """At once, unless the end of an answer is still on its way: that gets its time."""
        self._head_came()
        if self.unsent and not self.transport.is_closing():
            self.transport.close()
            self._late = self.loop.call_later(SEND_SECONDS, self.transport.abort)
        else:
            self.transport.abort()

    def _await_head(self, seconds: float) -> None:
        self._head_came()
        self._late = self.loop.call_later(seconds, self.hang_up)
        self._doors.waits(self)

    def _head_came(self) -> None:
        self._doors.works(self)
        if self._late is not None:
            self._late.cancel()
            self._late = None


def places(wanted: int, at_once: int) -> int:
    """How many connections can be let in: those that are wanted, or as many as the system lets this process have files open."""
    others = _OWN_FILES + _MOST_LEAVING + _FILES_PER_ANSWER * at_once
    return wanted if sys.platform == "win32" else max(1, min(wanted, _files(wanted + others) - others))


def _files(needed: int) -> int:
    """How many files may be open; the limit is raised where it is lower than what is needed and the system allows it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return needed
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    except (ValueError, OSError):
        return soft
    return raised


def _whole(problem: Problem) -> bytes:
    """An answer for whom no request was read."""
    body = json.dumps(problem.body()).encode()
    fields = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    head = [
        f"HTTP/1.1 {problem.status} Service Unavailable",
        *(f"{k}: {v}" for k, v in (fields | problem.headers).items()),
    ]
    return "\r\n".join([*head, "", ""]).encode() + body
