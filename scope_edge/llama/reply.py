"""One stream as the worker's parent sees it: pieces of text as they come, then how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scope_edge.errors import WorkerError
from scope_edge.llama.child import GRACE_SECONDS, Gone
from scope_edge.llama.counting import refusal

if TYPE_CHECKING:
    from scope_edge.llama.child import Request
    from scope_edge.llama.jobs import Ending

_POLL_SECONDS = 0.1


class Reply:
    """What a model says to one request. `cancel` alone may be called from another thread.

    Attributes:
        ending: how it ended, None while it goes on. prompt_tokens: None until they are counted.
        reused_tokens: of the prompt, found in the cache; known at the end. completion_tokens: so far.
    """

    def __init__(self, request: Request, name: str, until: float, lost: Callable[[Gone], WorkerError]) -> None:
        """name: what errors speak of. until: by the monotonic clock; a worker that is late then is not waited for.

        lost: what to make of a worker that will not answer.
        """
        self._request, self._name, self._until, self._lost = request, name, until, lost
        self._cancelled = False
        self.ending: Ending | None = None
        self.prompt_tokens: int | None = None
        self.reused_tokens: int | None = None
        self.completion_tokens = 0

    def next(self) -> str | None:
        """The next piece, None at the end. Raises WorkerError; UsageError for what cannot be asked."""
        while self.ending is None:
            if time.monotonic() > self._until + GRACE_SECONDS:
                self.cancel()
            if self._cancelled:
                self.ending = "cancelled"
                break
            try:
                answer = self._request.next(_POLL_SECONDS)
            except Gone as gone:
                raise self._lost(gone) from gone
            if answer is not None and (text := self._take(answer)):
                return text
        return None

    def cancel(self) -> None:
        """Break it off: the worker frees what it holds, and nothing of it is waited for."""
        if self.ending is None and not self._cancelled:
            self._cancelled = True
            self._request.cancel()

    def _take(self, answer: dict[str, Any]) -> str:
        kind = answer.get("type")
        if kind == "piece":
            self.completion_tokens = int(answer["tokens"])
            return str(answer["text"])
        if kind == "begun":
            self.prompt_tokens = int(answer["prompt_tokens"])
        elif kind == "end":
            self.completion_tokens, self.reused_tokens = int(answer["tokens"]), int(answer["reused_tokens"])
            if answer["ending"] == "broken":
                raise WorkerError(f"{self._name}: the model computes numbers that are none (not finite)")
            self.ending = answer["ending"]
        else:
            raise refusal(self._name, answer)
        return ""
