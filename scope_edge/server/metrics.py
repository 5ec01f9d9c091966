"""What was done, counted, in the text format of Prometheus. Nothing in it says what was asked."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scope_edge.records import Run

Labels = tuple[tuple[str, str], ...]
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_HELP = {
    "requests_total": "Requests by address and status.",
    "connections_cut_total": "Connections refused as all were at work, and idle ones that made room for others.",
    "answers_total": "Answers by model and how they ended.",
    "attempts_total": "Models that were asked and did not answer.",
    "tokens_total": "Tokens by model, as counted or estimated.",
    "usd_total": "What cloud models were paid, US dollars, where it is known.",
    "sticky_total": "Decisions that left a conversation at its model.",
    "decision_seconds": "From a request's turn to its decision.",
    "first_piece_seconds": "From a request's turn to the first piece of its answer.",
    "answer_seconds": "From a request's turn to the end of its answer.",
}


class Metrics:
    """Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self._spread: dict[str, list[int]] = {}
        self._total: defaultdict[str, float] = defaultdict(float)

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._sums[name, tuple(sorted(labels.items()))] += by

    def time(self, name: str, seconds: float) -> None:
        """Put a time into a histogram."""
        with self._lock:
            row = self._spread.setdefault(name, [0] * (len(_BOUNDS) + 1))
            row[bisect_left(_BOUNDS, seconds)] += 1
            self._total[name] += seconds

    def ran(self, run: Run) -> None:
        """An answer came to its end, whatever end."""
        model = run.model or "none"
        self.count("answers_total", model=model, ending=run.ending)
        for attempt in run.attempts:
            self.count("attempts_total", model=attempt.model)
        for kind, tokens in (("prompt", run.prompt_tokens), ("completion", run.completion_tokens)):
            if tokens:
                self.count("tokens_total", tokens, model=model, kind=kind)
        if run.usd:
            self.count("usd_total", run.usd, model=model)
        if run.seconds is not None:
            self.time("answer_seconds", run.seconds)

    def text(self, gauges: Mapping[str, float]) -> str:
        """All of it. gauges: name -> what is now."""
        return "\n".join(self._lines(gauges)) + "\n"

    def _lines(self, gauges: Mapping[str, float]) -> Iterator[str]:
        with self._lock:
            sums, spread, total = dict(self._sums), {k: list(v) for k, v in self._spread.items()}, dict(self._total)
        for name in sorted({name for name, _ in sums}):
            yield from _head(name, "counter")
            for (one, labels), value in sorted(sums.items()):
                if one == name:
                    yield f"scope_edge_{name}{_labels(labels)} {value:.10g}"
        for name, row in sorted(spread.items()):
            yield from _head(name, "histogram")
            below = 0
            for bound, count in zip((*map(str, _BOUNDS), "+Inf"), row, strict=True):
                below += count
                yield f'scope_edge_{name}_bucket{{le="{bound}"}} {below}'
            yield f"scope_edge_{name}_sum {total[name]:.10g}"
            yield f"scope_edge_{name}_count {below}"
        for name, value in gauges.items():
            yield from _head(name, "gauge")
            yield f"scope_edge_{name} {value:.10g}"


def _head(name: str, kind: str) -> Iterator[str]:
    if name in _HELP:
        yield f"# HELP scope_edge_{name} {_HELP[name]}"
    yield f"# TYPE scope_edge_{name} {kind}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{inner}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
