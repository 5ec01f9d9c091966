"""An answer as its reader sees it: waiting for the model, its text piece by piece, how it ended, and giving it up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from scope_edge.errors import ScopeEdgeError

if TYPE_CHECKING:
    from scope_edge.llama.jobs import Job
    from scope_edge.llama.reply import Reply
    from scope_edge.llama.residents import Resident, Residents
    from scope_edge.llama.turns import Ask

StreamEnding = Literal["stop", "limit", "cancelled"]


class Stream:
    """Iterates over pieces of text. One thread reads; `close` may be called from any.

    Iterating raises WorkerError when the model cannot be loaded (refused=True: llama.cpp would not) or its worker dies, and
    UsageError when it cannot be asked this: its template refuses, or the prompt is longer than its context.

    Attributes:
        ending: None until it has ended: "stop" = the model's own end or a stop text, "limit" = max_tokens or the context,
            "cancelled" = closed, or the deadline. Still None after an error.
        prompt_tokens: None until they are counted. cached_tokens: of the prompt, not read again; None until the end.
        completion_tokens: written so far, the model's own; the token that ended its turn is not among them.
        load_seconds: waited until the model was loaded and free, 0 when it was at once; None until then.
    """

    def __init__(self, residents: Residents, ask: Callable[[], Ask], job: Job, until: float) -> None:
        """ask: what to ask for, once it is read from. until: the deadline by the monotonic clock."""
        self._residents, self._ask, self._job, self._until = residents, ask, job, until
        self._turn = threading.Lock()
        self._closed = self._over = False
        self._place: Resident | None = None
        self._reply: Reply | None = None
        self.ending: StreamEnding | None = None
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.completion_tokens = 0
        self.load_seconds: float | None = None

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str:
        with self._turn:
            piece = None if self._over else self._next()
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Give it up, wherever it is, and free what it holds. Nothing happens when it has ended."""
        self._closed = True
        reply = self._reply
        if reply is not None and not self._over:
            reply.cancel()
        self._residents.wake()
        with self._turn:
            if not self._over:
                self._end("cancelled")

    def _next(self) -> str | None:
        try:
            reply = self._reply or self._begin()
            piece = None if reply is None else reply.next()
        except ScopeEdgeError:
            self._end(None)
            raise
        if reply is None:
            self._end("cancelled")
            return None
        self._note(reply)
        if piece is None:
            ended = reply.ending
            self._end("stop" if ended == "stop" else "limit" if ended == "limit" else "cancelled")
        return piece

    def _begin(self) -> Reply | None:
        """Wait for the model, and ask it. None: given up before that."""
        entered = self._residents.enter(self._ask(), self._until, lambda: self._closed)
        if entered is None:
            return None
        self._place, self.load_seconds = entered
        left = self._until - time.monotonic()
        self._reply = self._place.worker.stream(self._job, None if left == float("inf") else max(left, 0.0))
        if self._closed:
            self._reply.cancel()
        return self._reply

    def _note(self, reply: Reply) -> None:
        self.prompt_tokens, self.cached_tokens = reply.prompt_tokens, reply.reused_tokens
        self.completion_tokens = reply.completion_tokens

    def _end(self, ending: StreamEnding | None) -> None:
        self._over, self.ending = True, ending
        if self._reply is not None:
            self._note(self._reply)
            if self._reply.ending is None:
                self._reply.cancel()
        if self._place is not None:
            self._residents.leave(self._place)
            self._place = None
