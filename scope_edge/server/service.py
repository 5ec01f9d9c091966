"""What all endpoints share: the desk, the threads that do its work, the gates before them, and what is known of the latest work."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from scope_edge.server.doors import Doors, places
from scope_edge.server.gate import Gate
from scope_edge.server.metrics import Metrics

if TYPE_CHECKING:
    from scope_edge.records import Decision, Run
    from scope_edge.server.desk import Desk
    from scope_edge.server.pump import Pump

Result = TypeVar("Result")
_RECENT = 50
# What does not run a model is done in a moment, and goes by its own door: answers may take minutes.
_QUICK = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """at_once: answers under way. waiting: requests that wait for a turn. body_bytes: of a request, at most.

    connections: open at once, at most; fewer where the system does not let the process have so many files open.
    """

    at_once: int = 64
    waiting: int = 256
    body_bytes: int = 32 * 2**20
    connections: int = 512


class Service:
    """Lives in the event loop; whatever blocks is done by its threads."""

    def __init__(self, desk: Desk, bounds: Bounds) -> None:
        self.desk, self.bounds, self.metrics = desk, bounds, Metrics()
        self.doors = Doors(places(bounds.connections, bounds.at_once), self.metrics)
        self.answers, self.quick = Gate(bounds.at_once, bounds.waiting), Gate(_QUICK, bounds.waiting)
        self.threads = ThreadPoolExecutor(bounds.at_once, "answer")
        self._hands = ThreadPoolExecutor(_QUICK, "quick")
        self.pumps: set[Pump[Any]] = set()
        self._left: list[asyncio.Future[Any]] = []
        self.recent: deque[Mapping[str, Any]] = deque(maxlen=_RECENT)

    async def quickly(self, work: Callable[..., Result], *given: Any) -> Result:
        """Something that runs no model, in a thread. Raises Problem and what the work raises."""
        async with self.quick.turn():
            return await asyncio.get_running_loop().run_in_executor(self._hands, work, *given)

    def close_doors(self) -> None:
        """Nobody else is let in."""
        self.answers.close()
        self.quick.close()

    def cut(self) -> None:
        """End the answers that are under way."""
        for pump in tuple(self.pumps):
            pump.cut()

    def abandon(self) -> None:
        """Wait no longer for threads that do not end."""
        for pump in self.pumps:
            pump.abandoned = True
            self._left.append(pump.finished)

    async def end(self, seconds: float) -> bool:
        """End all that runs, waiting so long for threads; whether all are done."""
        self.cut()
        waiting = [pump.finished for pump in self.pumps]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)
        self.abandon()
        done = all(one.done() for one in self._left)
        await asyncio.get_running_loop().run_in_executor(None, self.desk.close)
        self.threads.shutdown(wait=False, cancel_futures=True)
        self._hands.shutdown(wait=False, cancel_futures=True)
        return done

    def ran(self, name: str, decision: Decision, run: Run, id: str | None) -> None:
        """Something has been answered, or not."""
        self.metrics.ran(run)
        row = next((one for one in decision.candidates if one.model == run.model), None)
        self.recent.appendleft(
            {
                "time": time.time(),
                "id": id,
                "asked": name,
                "model": run.model,
                "where": run.where,
                "p_correct": None if row is None else row.p_correct,
                "usd": run.usd,
                "seconds": run.seconds,
                "ending": run.ending,
            }
        )

    def gauges(self) -> dict[str, float]:
        """What is now."""
        loaded, sequences = self.desk.loaded()
        return {
            "running": self.answers.running,
            "waiting": self.answers.waiting + self.quick.waiting,
            "connections": self.doors.open,
            "conversations": len(self.desk.conversations),
            "device_models_loaded": len(loaded),
            "device_sequences": sequences,
        }
