"""Models behind endpoints, in the cloud or on this machine: one client a model, its connections kept."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from scope_edge.errors import ProviderError, ScopeEdgeError, UsageError
from scope_edge.execution.protocols import CompletionStream
from scope_edge.execution.request import TOKEN_LIMITS
from scope_edge.providers.openai.client import ChatClient, RetryPolicy
from scope_edge.providers.openai.pace import ANY_PACE, Pace
from scope_edge.providers.openai.stream import AnswerStream, Piece

if TYPE_CHECKING:
    from scope_edge.execution.request import Messages
    from scope_edge.execution.token_budget import TokenBudget
    from scope_edge.types import Counted, Ending, ModelCard

# Tokens of real text are shorter on average: a server that sends more per token has forgotten its limit.
_BYTES_PER_TOKEN = 16
# Fields of a request that are decided here.
_OURS = ("model", "messages", "stream", "stream_options", "n", *TOKEN_LIMITS)


class CloudProvider:
    """Calls endpoints."""

    def __init__(self, *, silence: float, pace: Pace = ANY_PACE, offline: bool) -> None:
        """silence: seconds a server may send nothing. offline: call only loopback, for cards that say device."""
        self._retry, self._offline = RetryPolicy(silence, attempts=1, pace=pace), offline
        self._clients: dict[str, ChatClient] = {}
        self._paused: dict[str, float] = {}
        self._lock = threading.Lock()
        self._closed = False

    def prompt_tokens(self, card: ModelCard, messages: Messages) -> int | None:
        """Return None: the tokenizer is not on this machine."""
        return None

    def begin(
        self, card: ModelCard, messages: Messages, fields: Mapping[str, Any], budget: TokenBudget, until: float
    ) -> CloudCompletionStream:
        """Return an answer; iterating it makes the call. Raises ProviderError, also while the server wants no calls."""
        wait = self._paused.get(card.id, -math.inf) - time.monotonic()
        if wait > 0:
            why = f"its server wants no calls for {wait:.0f} more seconds"
            raise ProviderError(why, retryable=True, unbilled=True, retry_after=wait)
        passed_on = {name: value for name, value in fields.items() if name not in _OURS}
        try:
            stream = self._client(card).stream(messages, passed_on, budget.max_tokens, until)
        except ScopeEdgeError as error:
            raise ProviderError(str(error), unbilled=True) from error
        return CloudCompletionStream(stream, budget.max_tokens, partial(self._pause, card.id))

    def close(self) -> None:
        """Close every connection; running calls fail, and no other is made."""
        with self._lock:
            self._closed = True
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _pause(self, model: str, seconds: float) -> None:
        self._paused[model] = time.monotonic() + seconds

    def _client(self, card: ModelCard) -> ChatClient:
        """Raises UsageError: its key is missing, it may not be called, or this is closed; MissingExtraError."""
        with self._lock:
            if self._closed:
                raise UsageError("the router is closed")
            client = self._clients.get(card.id)
            if client is None:
                client = self._clients[card.id] = ChatClient(card, self._retry, offline=self._offline)
            return client


class CloudCompletionStream(CompletionStream[AnswerStream]):
    """A streamed answer, held to its limit where the server forgets it."""

    counted: Counted = "server"

    def __init__(self, stream: AnswerStream, max_tokens: int | None, pause: Callable[[float], None]) -> None:
        """pause: called with the seconds for which the server wants no more calls."""
        super().__init__(stream)
        self._pause = pause
        self._most = math.inf if max_tokens is None else max_tokens * _BYTES_PER_TOKEN
        self._overrun = False

    @property
    def ending(self) -> Ending:
        """How the answer ended, as the server says."""
        return "cut" if self._overrun or self._stream.finish == "length" else "complete"

    def __iter__(self) -> Iterator[Piece]:
        wrote = 0
        try:
            for piece in self._stream:
                yield piece
                wrote += len(f"{piece.text}{piece.beside}".encode("utf-8", "replace"))
                if wrote > self._most:
                    self._overrun = True
                    return
        except ProviderError as error:
            if error.retry_after:
                self._pause(error.retry_after)
            raise
        finally:
            self.close()
