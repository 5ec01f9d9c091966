"""Additions to starlette: limits for bodies, disconnected clients, and threads that write a response."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from scope_edge.server.errors import ApiError, closing
from scope_edge.server.schemas import parse

Result = TypeVar("Result")
Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)
# Longest silence within a body; longest time for a whole body.
BODY_SECONDS, WHOLE_BODY_SECONDS = 30.0, 300.0
# Bodies up to this many bytes are parsed in the event loop, and have BODY_SECONDS in all.
_SHORT = 64 * 1024
# Items that may wait for a slow reader. Beyond that the thread waits, and with it the model.
_MAX_WAITING_ITEMS = 256


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the work's result; cancel the work if the client disconnects first.

    Raises ClientDisconnect; ApiError: the server is shutting down.
    """
    working = asyncio.create_task(work)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await working
    except asyncio.CancelledError:
        if watching.cancelled():
            # Not by this function: the server's loop is ending, and everything in it is cancelled.
            raise closing() from None
        if watching.done():
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()


async def read_json(request: Request, most: int, read: Callable[[dict[str, Any]], Result]) -> Result:
    """Return what `read` makes of the body, parsed in a thread if it is long.

    Raises ApiError: the body exceeds `most` bytes, comes too slowly or is not a JSON object; and what `read` raises.
    """
    raw = await read_body(request, most)
    if len(raw) <= _SHORT:
        return read(parse(raw))
    return await anyio.to_thread.run_sync(lambda: read(parse(raw)))


async def read_body(request: Request, most: int) -> bytes:
    """Return the whole body. Raises ApiError: it exceeds `most` bytes, or comes too slowly; ClientDisconnect.

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


class PieceSource(Protocol[Item_co]):
    """A source that one thread iterates and closes; any thread may cancel it."""

    def __iter__(self) -> Iterator[Item_co]: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...


class ThreadBridge(Generic[Item]):
    """Reads a source in one thread of a pool, and starts at once. Iterate it, then call `end`.

    starlette's iterate_in_threadpool would change threads with each item, and could not leave a thread that hangs.
    """

    def __init__(self, source: PieceSource[Item], pool: ThreadPoolExecutor) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[tuple[Item] | None] = asyncio.Queue()
        self._room = threading.Semaphore(_MAX_WAITING_ITEMS)
        self._stopped = threading.Event()
        self._released = asyncio.Event()
        self.thread: asyncio.Future[Any] = self._loop.run_in_executor(pool, self._read)
        self.thread.add_done_callback(lambda _: self._over())

    async def __aiter__(self) -> AsyncIterator[Item]:
        """Yield all items, then raise the source's error."""
        while (item := await self._items.get()) is not None:
            self._room.release()
            yield item[0]
        if self.thread.done():
            await self.thread

    def cut(self) -> None:
        """Stop the source; the reader is done at once, however long the thread takes."""
        self._stopped.set()
        self._source.cancel()
        self._room.release(_MAX_WAITING_ITEMS)
        self._items.put_nowait(None)

    async def end(self) -> None:
        """Stop, and wait until the thread is free or abandoned; a cancelled caller waits as well."""
        self.cut()
        while not self._released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self._released.wait()

    def abandon(self) -> None:
        """Let `end` return although the thread hangs."""
        self._released.set()

    def _over(self) -> None:
        self._items.put_nowait(None)
        self._released.set()

    def _read(self) -> None:
        try:
            for item in self._source:
                self._room.acquire()
                if self._stopped.is_set():
                    return
                self._loop.call_soon_threadsafe(self._items.put_nowait, (item,))
        finally:
            self._source.close()
