"""What all endpoints share: the desk, threads and queues, metrics, and the latest answers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from scope_edge.server.asgi import unless_disconnected
from scope_edge.server.bridge import Source, ThreadBridge
from scope_edge.server.connections import Connections, connection_limit
from scope_edge.server.gate import RequestQueue
from scope_edge.server.metrics import Metrics

if TYPE_CHECKING:
    from starlette.requests import Request

    from scope_edge.records import Decision, Run
    from scope_edge.server.desk import Desk

Result = TypeVar("Result")
_RECENT = 50
# Work that runs no model takes milliseconds; answers, which may take minutes, must not delay it.
_QUICK = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a server.

    Attributes:
        at_once: answers under way. waiting: requests in the queue. body_bytes: of a request.
        connections: open at once; fewer if the system allows the process fewer open files.
    """

    at_once: int = 64
    waiting: int = 256
    body_bytes: int = 32 * 2**20
    connections: int = 512


class Service:
    """Lives in the event loop; its threads do what blocks."""

    def __init__(self, desk: Desk, bounds: Bounds) -> None:
        self.desk, self.bounds, self.metrics = desk, bounds, Metrics()
        self.connections = Connections(connection_limit(bounds.connections, bounds.at_once), self.metrics)
        self.answers, self._quick = RequestQueue(bounds.at_once, bounds.waiting), RequestQueue(_QUICK, bounds.waiting)
        self._threads = ThreadPoolExecutor(bounds.at_once, "answer")
        self._bridges: set[ThreadBridge[Any]] = set()
        self._abandoned: list[asyncio.Future[Any]] = []
        self.recent: deque[Mapping[str, Any]] = deque(maxlen=_RECENT)

    async def quickly(self, request: Request, work: Callable[..., Result], *given: Any) -> Result:
        """Run a function that runs no model, in a thread. Raises Problem, ClientDisconnect and what the function raises."""

        async def in_turn() -> Result:
            async with self._quick.turn():
                return await anyio.to_thread.run_sync(partial(work, *given))

        return await unless_disconnected(request.receive, in_turn())

    @asynccontextmanager
    async def reading(self, source: Source[Result]) -> AsyncIterator[ThreadBridge[Result]]:
        """Hold a turn and a thread that reads the source; at the end, wait until the thread is free. Raises Problem."""
        async with self.answers.turn():
            bridge = ThreadBridge(source, self._threads)
            self._bridges.add(bridge)
            try:
                yield bridge
            finally:
                await bridge.end()
                self._bridges.discard(bridge)

    def close_queues(self) -> None:
        """Refuse all requests that do not have a turn yet."""
        self.answers.close()
        self._quick.close()

    def cut(self) -> None:
        """End the answers under way."""
        for bridge in self._bridges:
            bridge.cut()

    def abandon(self) -> None:
        """Stop waiting for threads that hang."""
        for bridge in self._bridges:
            bridge.abandon()
            self._abandoned.append(bridge.thread)

    async def end(self, seconds: float) -> bool:
        """End everything, waiting at most so many seconds for threads; return whether all are done."""
        self.cut()
        waiting = [bridge.thread for bridge in self._bridges]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)
        self.abandon()
        done = all(one.done() for one in self._abandoned)
        await asyncio.get_running_loop().run_in_executor(None, self.desk.close)
        self._threads.shutdown(wait=False, cancel_futures=True)
        return done

    def ran(self, name: str, decision: Decision, run: Run, id: str | None) -> None:
        """Note an answer, complete or not, to a request for the model `name`."""
        self.metrics.ran(run)
        row = next((one for one in decision.candidates if one.model == run.model), None)
        fields = {name: getattr(run, name) for name in ("model", "where", "usd", "seconds", "ending")}
        p_correct = None if row is None else row.p_correct
        self.recent.appendleft({"time": time.time(), "id": id, "asked": name, "p_correct": p_correct, **fields})

    def gauges(self) -> dict[str, float]:
        """Return present values for the metrics."""
        loaded, sequences = self.desk.loaded()
        return {
            "running": self.answers.running,
            "waiting": self.answers.waiting + self._quick.waiting,
            "connections": len(self.connections),
            "conversations": len(self.desk.conversations),
            "device_models_loaded": len(loaded),
            "device_sequences": sequences,
        }
