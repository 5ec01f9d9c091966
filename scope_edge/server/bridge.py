"""Items from a thread that blocks, read in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)
# Items that may wait for a slow reader. Beyond that the thread waits, and with it the model.
_MOST = 256


class PieceSource(Protocol[Item_co]):
    """What a thread iterates and closes; any thread may cancel it."""

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
        self._room = threading.Semaphore(_MOST)
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
        self._room.release(_MOST)
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
