"""How many requests are worked on at once, and how many may wait for that. All of it happens in the event loop."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scope_edge.server.problems import busy, closing

_FIRST_GUESS = 1.0
_LONGEST = 60


class Gate:
    """First come, first served. Who comes when too many wait is told when to come again."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._at_once, self._most_waiting = at_once, waiting
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._seconds = _FIRST_GUESS
        self.running = 0
        self.closed = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn, for as long as the block lasts. Raises Problem: too many wait, or the server is ending."""
        await self.enter()
        begun = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            self.leave(asyncio.get_running_loop().time() - begun)

    async def enter(self) -> None:
        """Wait for a turn; `leave` must follow. Raises Problem."""
        if self.closed:
            raise closing()
        if self.running < self._at_once:
            self.running += 1
            return
        if len(self._waiting) >= self._most_waiting:
            raise busy(self._retry_after())
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled() and mine.exception() is None:
                self._pass_on()
            elif mine in self._waiting:
                self._waiting.remove(mine)
            raise

    def leave(self, seconds: float) -> None:
        """The turn is over, after so many seconds."""
        self._seconds += (seconds - self._seconds) / 8
        self._pass_on()

    def close(self) -> None:
        """Nobody else gets a turn; who has one keeps it."""
        self.closed = True
        while self._waiting:
            mine = self._waiting.popleft()
            if not mine.done():
                mine.set_exception(closing())

    def _pass_on(self) -> None:
        while self._waiting:
            mine = self._waiting.popleft()
            if not mine.done():
                mine.set_result(None)
                return
        self.running -= 1

    def _retry_after(self) -> int:
        rounds = (len(self._waiting) + 1) / self._at_once
        return max(1, min(math.ceil(rounds * self._seconds), _LONGEST))
