"""A limit on requests under way and on requests that wait, in the event loop."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from scope_edge.server.errors import busy, closing

_FIRST_GUESS = 1.0
_LONGEST = 60


class RequestQueue:
    """First come, first served. When the queue is full, a request is told when to come again."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._at_once, self._most_waiting = at_once, waiting
        self._turns = anyio.Semaphore(at_once)
        self._seconds = _FIRST_GUESS
        self.running = 0
        self.closed = False

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return self._turns.statistics().tasks_waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a turn during the block. Raises Problem: the queue is full, or the server is shutting down."""
        if self._turns.value == 0 and self.waiting >= self._most_waiting and not self.closed:
            raise busy(self._retry_after())
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
        # One more than wait: it is passed on by each request that comes from now on.
        for _ in range(self.waiting + 1):
            self._turns.release()

    def _retry_after(self) -> int:
        rounds = (self.waiting + 1) / self._at_once
        return max(1, min(math.ceil(rounds * self._seconds), _LONGEST))
