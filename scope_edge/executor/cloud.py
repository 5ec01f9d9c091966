"""Models behind endpoints, in the cloud or on this machine: one client a model, its connections kept."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from scope_edge.chat.client import ChatClient, Patience
from scope_edge.chat.failed import Failed
from scope_edge.chat.stream import AnswerStream, Piece
from scope_edge.errors import ScopeEdgeError, UsageError
from scope_edge.executor.contracts import Messages, Unanswered
from scope_edge.executor.room import TOKEN_LIMITS, Room

if TYPE_CHECKING:
    from scope_edge.records import Counted, Ending, ModelCard

# More than this much text a token, on average, no tokenizer makes of what people read: a server has then lost sight of its limit.
_BYTES_PER_TOKEN = 16
# What a request says that is decided here.
_OURS = ("model", "messages", "stream", "stream_options", "n", *TOKEN_LIMITS)


class CloudPlace:
    """Asks endpoints."""

    def __init__(self, *, silence: float, offline: bool) -> None:
        """silence: seconds a server may send nothing. offline: only loopback is called, of cards that say device."""
        self._silence, self._offline = silence, offline
        self._clients: dict[str, ChatClient] = {}
        self._left_alone: dict[str, float] = {}
        self._lock = threading.Lock()
        self._closed = False

    def prompt_tokens(self, card: ModelCard, messages: Messages) -> int | None:
        """Its tokenizer is elsewhere."""
        return None

    def begin(
        self, card: ModelCard, messages: Messages, fields: Mapping[str, Any], room: Room, until: float
    ) -> CloudAnswering:
        """One call, made when it is iterated. A server that asked to be left alone is. Raises Unanswered."""
        wait = self._left_alone.get(card.id, -math.inf) - time.monotonic()
        if wait > 0:
            raise Unanswered(
                f"asks to be left alone for {wait:.0f} more seconds", passing=True, unbilled=True, retry_after=wait
            )
        passed_on = {name: value for name, value in fields.items() if name not in _OURS}
        try:
            stream = self._client(card).stream(messages, passed_on, room.max_tokens, until)
        except ScopeEdgeError as error:
            raise Unanswered(str(error), unbilled=True) from error
        return CloudAnswering(stream, room.max_tokens, partial(self._leave_alone, card.id))

    def close(self) -> None:
        """End every connection; calls under way fail, and no other is made."""
        with self._lock:
            self._closed = True
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _leave_alone(self, model: str, seconds: float) -> None:
        self._left_alone[model] = time.monotonic() + seconds

    def _client(self, card: ModelCard) -> ChatClient:
        """Raises UsageError: its key is not there, or it may not be called, or no longer; MissingExtraError."""
        with self._lock:
            if self._closed:
                raise UsageError("nobody is asked any more")
            client = self._clients.get(card.id)
            if client is None:
                client = self._clients[card.id] = ChatClient(
                    card, Patience(self._silence, attempts=1), offline=self._offline
                )
            return client


class CloudAnswering:
    """A streamed answer, held to its limit where the server forgets it."""

    def __init__(self, stream: AnswerStream, max_tokens: int | None, leave_alone: Callable[[float], None]) -> None:
        """leave_alone: told for how many seconds the server wants no more calls."""
        self._leave_alone = leave_alone
        self._stream, self._most = stream, math.inf if max_tokens is None else max_tokens * _BYTES_PER_TOKEN
        self._overrun = False

    @property
    def ending(self) -> Ending:
        """As the server says."""
        return "cut" if self._overrun or self._stream.finish == "length" else "complete"

    @property
    def prompt_tokens(self) -> int | None:
        """As the server counts."""
        return self._stream.prompt_tokens

    @property
    def completion_tokens(self) -> int | None:
        """As the server counts."""
        return self._stream.completion_tokens

    @property
    def counted(self) -> Counted:
        """By the server."""
        return "server"

    def __iter__(self) -> Iterator[Piece]:
        wrote = 0
        try:
            for piece in self._stream:
                yield piece
                wrote += len(piece.text.encode("utf-8", "replace"))
                if wrote > self._most:
                    self._overrun = True
                    return
        except Failed as failed:
            if failed.retry_after:
                self._leave_alone(failed.retry_after)
            raise _unanswered(failed) from failed
        finally:
            self.close()

    def end(self) -> None:
        """End it, from whichever thread."""
        self._stream.end()

    def close(self) -> None:
        """Done with it."""
        self._stream.close()


def _unanswered(failed: Failed) -> Unanswered:
    """A failed call as the executor sees it: a server that wants an hour's rest is as good as gone."""
    return Unanswered(
        failed.why,
        content=failed.content,
        passing=not failed.final,
        unbilled=failed.unbilled,
        retry_after=failed.retry_after,
    )
