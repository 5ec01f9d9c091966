"""An answer carried from the thread that reads it into the event loop, no faster than its reader takes it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)
# Pieces that may be on the way to a slow reader. Then the thread waits, and with it whoever writes them.
_MOST = 256
# Between two looks at whether a thread that does not end has been given up.
_LOOK_SECONDS = 0.5


class Source(Protocol[Item_co]):
    """What is read: iterated and closed in one thread, cancelled from any."""

    def __iter__(self) -> Iterator[Item_co]: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...


class Pump(Generic[Item]):
    """Begins at once. Read `batches` to the end, or `stop`; the thread is free when `finished` is done."""

    def __init__(self, source: Source[Item], pool: ThreadPoolExecutor) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(_MOST)
        self._stopped = threading.Event()
        self._items: deque[Item] = deque()
        self._news = asyncio.Event()
        self._cut = self.abandoned = False
        """Nobody waits for its thread any more: the process ends without it."""
        self.finished: asyncio.Future[Any] = self._loop.run_in_executor(pool, self._read)
        self.finished.add_done_callback(lambda _: self._news.set())

    async def batches(self) -> AsyncIterator[list[Item]]:
        """What has come since the last look. Raises what reading raised, after all that came before it."""
        while True:
            await self._news.wait()
            self._news.clear()
            over, cut = self.finished.done(), self._cut
            batch = []
            while self._items:
                batch.append(self._items.popleft())
            if batch:
                self._room.release(len(batch))
                yield batch
            if over:
                await self.finished
                return
            if cut:
                return

    def stop(self) -> None:
        """No more of it is wanted."""
        self._stopped.set()
        self._source.cancel()
        self._room.release(_MOST)

    def cut(self) -> None:
        """End it from here: who reads is done at once, however long the thread takes."""
        self.stop()
        self._cut = True
        self._news.set()

    async def end(self) -> None:
        """Stop, and wait until the thread is free. Whoever hangs up meanwhile does not cut this short: its turn is not over yet."""
        self.stop()
        while not (self.finished.done() or self.abandoned):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((self.finished,), timeout=_LOOK_SECONDS)

    def _read(self) -> None:
        try:
            for item in self._source:
                self._room.acquire()
                if self._stopped.is_set():
                    return
                self._items.append(item)
                self._loop.call_soon_threadsafe(self._news.set)
        finally:
            self._source.close()
