"""One request and its answer: the body read within limits, the other side hanging up, and an answer sent within a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from scope_edge.errors import ScopeEdgeError
from scope_edge.server.problems import Problem, problem_of

Result = TypeVar("Result")
# Of silence, while a body is sent; until it must be whole; and until a reader takes what is written.
BODY_SECONDS, WHOLE_BODY_SECONDS, SEND_SECONDS = 30.0, 300.0, 60.0
_DISCARD_SECONDS = 2.0
# Bytes of a body that are read in no time.
_SHORT = 64 * 1024
Headers = Iterable[tuple[bytes, bytes]]


class HungUp(Exception):
    """The other side is gone, or takes nothing any more."""


class Exchange:
    """What an endpoint has in hand."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive, self._send = receive, send
        self.begun = False
        """Whether the answer has begun: then no other status can be sent."""

    def header(self, name: str) -> str:
        """A header, "" where there is none."""
        raw = name.encode()
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key == raw), "")

    async def body(self, most: int) -> bytes:
        """All of the body. Raises Problem: it is longer than `most` bytes, or does not come; HungUp."""
        length = self.header("content-length")
        if length.isdigit() and int(length) > most:
            await self._discard()
            raise _too_long(most)
        raw = bytearray()
        until = asyncio.get_running_loop().time() + (WHOLE_BODY_SECONDS if most > _SHORT else BODY_SECONDS)
        while True:
            left = until - asyncio.get_running_loop().time()
            try:
                message = await asyncio.wait_for(self._receive(), min(left, BODY_SECONDS))
            except asyncio.TimeoutError as error:
                raise Problem(408, "the body did not come in time", "timeout") from error
            if message["type"] == "http.disconnect":
                raise HungUp
            raw += message.get("body", b"")
            if len(raw) > most:
                await self._discard()
                raise _too_long(most)
            if not message.get("more_body"):
                return bytes(raw)

    async def read(self, most: int, read: Callable[[bytes], Result]) -> Result:
        """The body, read; a long one by a thread, so that nobody waits for it. Raises as `body` and `read`."""
        raw = await self.body(most)
        return read(raw) if len(raw) <= _SHORT else await asyncio.to_thread(read, raw)

    async def _discard(self) -> None:
        """What else comes of a body, for a moment: who is still sending would not read why it is refused."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._rest(), _DISCARD_SECONDS)

    async def _rest(self) -> None:
        while (await self._receive()).get("more_body"):
            pass

    async def unless_hung_up(self, work: Awaitable[Result]) -> Result:
        """The work's result; it is cancelled where the other side hangs up first. Raises HungUp, and what the work raises."""
        working = asyncio.ensure_future(work)
        watching = asyncio.ensure_future(self._hung_up())
        try:
            await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise HungUp
            return working.result()
        finally:
            for task in (working, watching):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, HungUp, Problem, ScopeEdgeError):
                await working
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def start(self, status: int, headers: Headers) -> None:
        """Begin the answer."""
        self.begun = True
        await self._sent({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, raw: bytes, *, more: bool) -> None:
        """Some of the answer. Raises HungUp: nobody takes it."""
        await self._sent({"type": "http.response.body", "body": raw, "more_body": more})

    async def json(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        """A whole answer."""
        await self.whole(status, json.dumps(body).encode(), headers)

    async def whole(self, status: int, raw: bytes, headers: Mapping[str, str] | None = None) -> None:
        """A whole answer that is JSON already."""
        named = {"content-type": "application/json", "content-length": str(len(raw)), **(headers or {})}
        await self.start(status, encoded(named))
        await self.write(raw, more=False)

    async def problem(self, problem: Problem) -> None:
        """An error as a whole answer."""
        await self.json(problem.status, problem.body(), problem.headers)

    async def _hung_up(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _sent(self, message: dict[str, Any]) -> None:
        try:
            await asyncio.wait_for(self._send(message), SEND_SECONDS)
        except (asyncio.TimeoutError, OSError) as error:
            raise HungUp from error


Endpoint = Callable[[Exchange], Awaitable[None]]


class Asgi:
    """An endpoint as the framework takes it. A class, since of functions it would make another kind."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        problem = None
        try:
            await self._endpoint(exchange)
        except HungUp:
            return
        except Problem as error:
            problem = error
        except ScopeEdgeError as error:
            problem = problem_of(error)
        if problem is not None and not exchange.begun:
            with contextlib.suppress(HungUp):
                await exchange.problem(problem)


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as bytes; what is not ASCII in them is percent-encoded."""
    return [(name.encode(), _ascii(value).encode()) for name, value in headers.items()]


def _ascii(value: str) -> str:
    return value if value.isascii() and value.isprintable() else quote(value, safe=" :/,;.()[]=-_")


def _too_long(most: int) -> Problem:
    limit = f"{most / 2**20:.4g} MiB" if most >= 2**20 else f"{most / 2**10:.4g} KiB"
    return Problem(413, f"the body is longer than {limit}", "too_long", headers={"connection": "close"})
