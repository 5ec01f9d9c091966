"""Streams in the worker: requests that come and go at any time, decoded together, each told of its text as it is written.

Out, for each: {"type": "begun"} with its prompt's tokens, {"type": "piece"} with text and how many tokens there are so far,
and one {"type": "end"}, or {"type": "refused"} where it could not be run or the engine failed. What a step gives all streams is
sent in one go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scope_edge.providers.llama.batch import Batcher
    from scope_edge.providers.llama.messages import Job, JobResult
    from scope_edge.providers.llama.tasks import Task


class Streams:
    """The streams of one loaded model."""

    def __init__(
        self, batcher: Batcher, send: Callable[[Sequence[dict[str, Any]]], None], cancelled: AbstractSet[int]
    ) -> None:
        """cancelled: requests nobody waits for any more, as another thread hears of them; `drop` follows."""
        self._batcher, self._send, self._cancelled = batcher, send, cancelled
        self._unsent: list[dict[str, Any]] = []
        self._tasks: dict[int, Task] = {}
        self._until = float("inf")

    @property
    def busy(self) -> bool:
        """Whether any is under way."""
        return bool(self._tasks)

    def begin(self, number: int, job: Job, timeout: float | None) -> None:
        """Take a request; its text is told from `advance`."""

        def tell(text: str, tokens: int) -> None:
            self._unsent.append({"type": "piece", "id": number, "text": text, "tokens": tokens})

        def done(result: JobResult) -> None:
            self._tasks.pop(number, None)
            self._end(number, result)

        until = float("inf") if timeout is None else time.monotonic() + timeout
        task = self._batcher.stream(job, tell, done, until)
        if task.problem is not None:
            self._send([{"type": "refused", "id": number, "why": task.problem, "usage": True}])
            return
        self._tasks[number] = task
        self._send([{"type": "begun", "id": number, "prompt_tokens": task.prompt}])

    def drop(self, number: int) -> None:
        """Break it off. One that has ended is no matter."""
        task = self._tasks.get(number)
        if task is not None:
            self._batcher.drop(task)
            self._flush()

    def abandoned(self) -> bool:
        """Whether nobody waits for any of them: a decode may stop in the middle. Asked while decoding, many times a step."""
        if not self._tasks:
            return False
        return time.monotonic() > self._until or (bool(self._cancelled) and self._tasks.keys() <= self._cancelled)

    def advance(self) -> None:
        """One decode for all. An error of the engine's ends them all, each told of it."""
        self._until = max((task.until for task in self._tasks.values()), default=float("inf"))
        try:
            self._batcher.advance()
        except (RuntimeError, ValueError, MemoryError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            for number in list(self._tasks):
                del self._tasks[number]
                self._unsent.append({"type": "refused", "id": number, "why": why})
        self._flush()

    def _flush(self) -> None:
        if self._unsent:
            self._send(self._unsent)
            self._unsent = []

    def _end(self, number: int, result: JobResult) -> None:
        sample = result.samples[0] if result.samples else None
        self._unsent.append(
            {
                "type": "end",
                "id": number,
                "ending": "cancelled" if sample is None else sample.ending,
                "tokens": 0 if sample is None else sample.tokens,
                "prompt_tokens": result.prompt_tokens,
                "reused_tokens": result.reused_tokens,
            }
        )
