"""State shared by all endpoints: the backend, threads and queues, metrics, and the latest answers."""

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
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from scope_edge.server.asgi import PieceSource, ThreadBridge, unless_disconnected
from scope_edge.server.limits import Connections, RequestQueue, connection_limit

if TYPE_CHECKING:
    from starlette.requests import Request

    from scope_edge.server.backend import Backend
    from scope_edge.types import Decision, Run

Result = TypeVar("Result")
_RECENT = 50
# Work that runs no model takes milliseconds; answers, which may take minutes, must not delay it.
_QUICK = 4
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_GAUGES = {
    "running": "Answers under way.",
    "waiting": "Requests in the queues.",
    "connections": "Open connections.",
    "conversations": "Conversations with a known model.",
    "device_models_loaded": "Models loaded on the device.",
    "device_sequences": "Requests that the device's workers have not ended.",
}


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Options of a server.

    Attributes:
        host, port: address to listen on; port 0 = any free one. names: allowed Host headers beside loopback.
        auth: whether the token is required. grace: seconds that running answers have at shutdown.
        preload: load what decisions need before listening, not with the first decision.
        at_once: answers under way. queue: requests that wait. body_bytes: of a request.
        connections: open at once; fewer if the system allows the process fewer open files.
    """

    host: str
    port: int
    names: tuple[str, ...]
    auth: bool
    grace: float
    preload: bool
    at_once: int
    queue: int
    body_bytes: int
    connections: int


class AppState:
    """Lives in the event loop; its threads run blocking work."""

    def __init__(self, backend: Backend, options: ServerOptions) -> None:
        self.backend, self.options, self.metrics = backend, options, Metrics()
        self.connections = Connections(
            connection_limit(options.connections, options.at_once), self.metrics.connections_cut
        )
        self.answers = RequestQueue(options.at_once, options.queue)
        self._quick = RequestQueue(_QUICK, options.queue)
        self._threads = ThreadPoolExecutor(options.at_once, "answer")
        self._bridges: set[ThreadBridge[Any]] = set()
        self._abandoned: set[asyncio.Future[Any]] = set()
        # Whether work under way must end, too.
        self.is_cut = False
        self.recent: deque[Mapping[str, Any]] = deque(maxlen=_RECENT)

    async def quickly(self, request: Request, work: Callable[..., Result], *given: Any) -> Result:
        """Run a function that calls no model, in a thread. Raises ApiError, ClientDisconnect and what the function raises."""

        async def in_turn() -> Result:
            async with self._quick.turn():
                return await anyio.to_thread.run_sync(partial(work, *given))

        return await unless_disconnected(request.receive, in_turn())

    @asynccontextmanager
    async def reading(self, source: PieceSource[Result]) -> AsyncIterator[ThreadBridge[Result]]:
        """Hold a turn and a thread that reads the source; at the end, wait for the thread. Raises ApiError."""
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
        """End the answers and embeddings under way."""
        self.is_cut = True
        for bridge in self._bridges:
            bridge.cut()

    def abandon(self) -> None:
        """Stop waiting for threads that hang."""
        for bridge in self._bridges:
            bridge.abandon()
            self._abandoned.add(bridge.thread)

    async def end(self, seconds: float) -> bool:
        """End everything, waiting at most so many seconds for threads; return whether all are done."""
        self.cut()
        waiting = [bridge.thread for bridge in self._bridges]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)
        self.abandon()
        done = all(one.done() for one in self._abandoned)
        await asyncio.get_running_loop().run_in_executor(None, self.backend.cache.close)
        self._threads.shutdown(wait=False, cancel_futures=True)
        return done

    def ran(self, name: str, decision: Decision, run: Run, id: str | None) -> None:
        """Record an answer, complete or not. name: of the model that was requested, or of the command that did."""
        self.metrics.ran(run)
        row = next((one for one in decision.candidates if one.model == run.model), None)
        fields = {name: getattr(run, name) for name in ("model", "where", "usd", "seconds", "ending")}
        p_correct = None if row is None else row.p_correct
        self.recent.appendleft({"time": time.time(), "id": id, "asked": name, "p_correct": p_correct, **fields})

    def gauges(self) -> dict[str, float]:
        """Return present values for the metrics."""
        loaded, sequences = self.backend.cache.loaded()
        return {
            "running": self.answers.running,
            "waiting": self.answers.waiting + self._quick.waiting,
            "connections": len(self.connections),
            "conversations": len(self.backend.conversations),
            "device_models_loaded": len(loaded),
            "device_sequences": sequences,
        }


class Metrics:
    """One server's metrics; safe to use from several threads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.requests = self._counter("requests", "Requests by address and status.", "path", "status")
        self.connections_cut = self._counter(
            "connections_cut", "Idle connections closed for others; requests refused as all were busy.", "why"
        )
        self.sticky = self._counter("sticky", "Decisions that left a conversation at its model.")
        self._answers = self._counter("answers", "Answers by model and ending.", "model", "ending")
        self._attempts = self._counter("attempts", "Failed attempts by model.", "model")
        self._tokens = self._counter("tokens", "Tokens by model, counted or estimated.", "model", "kind")
        self._usd = self._counter("usd", "Known cost of cloud models, US dollars.", "model")
        self.decision_seconds = self._histogram("decision_seconds", "From a request's turn to its decision.")
        self.first_piece_seconds = self._histogram("first_piece_seconds", "From a request's turn to the first piece.")
        self._answer_seconds = self._histogram("answer_seconds", "From a request's turn to the end of its answer.")
        self._gauges = {
            name: Gauge(name, text, namespace="scope_edge", registry=self._registry) for name, text in _GAUGES.items()
        }

    def ran(self, run: Run) -> None:
        """Count an answer that has ended in any way."""
        model = run.model or "none"
        self._answers.labels(model=model, ending=run.ending).inc()
        for attempt in run.attempts:
            self._attempts.labels(model=attempt.model).inc()
        for kind, tokens in (("prompt", run.prompt_tokens), ("completion", run.completion_tokens)):
            if tokens:
                self._tokens.labels(model=model, kind=kind).inc(tokens)
        if run.usd:
            self._usd.labels(model=model).inc(run.usd)
        if run.seconds is not None:
            self._answer_seconds.observe(run.seconds)
        if run.first_token_seconds is not None:
            self.first_piece_seconds.observe(run.first_token_seconds)

    def text(self, gauges: Mapping[str, float]) -> bytes:
        """Return all metrics in Prometheus' text format. gauges: present values by name."""
        for name, value in gauges.items():
            self._gauges[name].set(value)
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace="scope_edge", registry=self._registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, namespace="scope_edge", registry=self._registry, buckets=_BUCKETS)
