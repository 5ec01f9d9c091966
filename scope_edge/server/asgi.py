"""Request bodies within limits, and responses that end with the client: what starlette leaves to the application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from scope_edge.server.errors import ApiError
from scope_edge.server.schemas import parse

Result = TypeVar("Result")
# Longest silence within a body; longest time for a whole body.
BODY_SECONDS, WHOLE_BODY_SECONDS = 30.0, 300.0
# Bodies up to this many bytes are parsed in the event loop, and have BODY_SECONDS in all.
_SHORT = 64 * 1024


class Json(JSONResponse):
    """JSON in ASCII: lone surrogates in a model's answer are escaped instead of failing to encode."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


class Held:
    """A response whose resources stay open until it has been sent. open_: yields the response."""

    def __init__(self, open_: Callable[[], AbstractAsyncContextManager[Response]]) -> None:
        self._open = open_

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            response = await unless_disconnected(receive, stack.enter_async_context(self._open()))
            await response(scope, receive, send)


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the work's result; cancel the work if the client disconnects first. Raises ClientDisconnect."""
    working = asyncio.create_task(work)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await working
    except asyncio.CancelledError:
        if watching.done():
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()


async def read_json(request: Request, most: int, read: Callable[[dict[str, Any]], Result]) -> Result:
    """Return what `read` makes of the body, parsed in a thread if it is long.

    Raises Problem: the body exceeds `most` bytes, comes too slowly or is not a JSON object; and what `read` raises.
    """
    raw = await read_body(request, most)
    if len(raw) <= _SHORT:
        return read(parse(raw))
    return await anyio.to_thread.run_sync(lambda: read(parse(raw)))


async def read_body(request: Request, most: int) -> bytes:
    """Return the whole body. Raises Problem: it exceeds `most` bytes, or comes too slowly; ClientDisconnect.

    uvicorn drops the rest of a refused body, so a client that is still sending can read why.
    """
    length = request.headers.get("content-length", "")
    raw, chunks = bytearray(), request.stream()
    try:
        with anyio.fail_after(WHOLE_BODY_SECONDS if most > _SHORT else BODY_SECONDS):
            while len(raw) <= most and not (length.isdigit() and int(length) > most):
                with anyio.fail_after(BODY_SECONDS):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return bytes(raw)
                raw += chunk
    except TimeoutError as error:
        raise ApiError(408, "the body did not arrive in time", "timeout") from error
    limit = f"{most / 2**20:.4g} MiB" if most >= 2**20 else f"{most / 2**10:.4g} KiB"
    raise ApiError(413, f"the body is longer than {limit}", "too_long")
