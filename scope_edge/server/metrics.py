"""Counts and times for Prometheus. No metric contains text of a request or an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

if TYPE_CHECKING:
    from scope_edge.types import Run

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_GAUGES = {
    "running": "Answers under way.",
    "waiting": "Requests in the queues.",
    "connections": "Open connections.",
    "conversations": "Conversations with a known model.",
    "device_models_loaded": "Models loaded on the device.",
    "device_sequences": "Requests that the device's workers have not ended.",
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
        return Histogram(name, text, namespace="scope_edge", registry=self._registry, buckets=_BOUNDS)
