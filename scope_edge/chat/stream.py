"""A streamed answer, piece by piece, each piece once; whole, or said to be broken off."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scope_edge.chat.chunks import DONE, Chunk, Clearing, read_chunk
from scope_edge.chat.failed import Failed
from scope_edge.chat.sse import Events
from scope_edge.chat.wire import NotAnAnswerError, read_reply, read_usage, said

if TYPE_CHECKING:
    from scope_edge.chat.incoming import Incoming

# After the last words of an answer its usage may follow, and then the end.
_COUNT_SECONDS, _LAST_SECONDS = 5.0, 0.5
_EVENTS, _WHOLE = "text/event-stream", "application/json"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of an answer's text, and what the server sent beside it, as it is."""

    text: str
    extra: Mapping[str, Any] = field(default_factory=dict)


class AnswerStream:
    """One answer: iterate once, which makes the call; then look at how it ended.

    Attributes:
        finish: "stop", "length", "tool_calls", ... as the server says; None = not ended, or it does not say.
        prompt_tokens, completion_tokens: as the server counts; None = it does not, or what cannot be.

    Iterating raises Failed when there is no answer, or it breaks off: what was given until then is all there is.
    """

    def __init__(
        self, call: Callable[[], None], incoming: Incoming, asked: int, max_tokens: int | None, key: str | None
    ) -> None:
        """call: makes the call that comes in; raises Failed. asked: bytes sent."""
        self._call = call
        self._incoming, self._asked, self._max_tokens, self._key = incoming, asked, max_tokens, key
        self._clearing, self._wrote = Clearing(key), 0
        self._usage: Mapping[str, Any] | None = None
        self._whole = False
        self.finish: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None

    def __iter__(self) -> Iterator[Piece]:
        try:
            self._call()
            kind = self._incoming.header("content-type").partition(";")[0].strip().lower()
            if kind == _WHOLE:
                yield from self._unstreamed()
            elif kind == _EVENTS:
                yield from self._streamed()
            else:
                raise Failed("what it sent is no answer, or only a part of one")
        except NotAnAnswerError as error:
            raise Failed(str(error)) from error
        finally:
            self._incoming.close()

    def end(self) -> None:
        """End it, from whichever thread: who iterates gets Failed."""
        self._incoming.end()

    def close(self) -> None:
        """Done with it, for the thread that iterates. Whatever has not come yet does not."""
        self._incoming.close()

    def _streamed(self) -> Iterator[Piece]:
        for chunk in self._chunks():
            if chunk.problem is not None:
                raise Failed(f"it broke off ({said(chunk.problem.encode(), self._key) or 'an error'})")
            self._usage = chunk.usage or self._usage
            if chunk.finish is not None and self.finish is None:
                self.finish = chunk.finish
                self._incoming.expire(_COUNT_SECONDS)
            text = self._clearing.feed(chunk.text)
            if text or chunk.extra:
                self._wrote += len(text.encode("utf-8", "replace"))
                yield Piece(text, self._cleared(chunk.extra))
        if self.finish is None and not self._whole:
            raise Failed("the connection was closed before the answer was whole")
        rest = self._clearing.rest()
        if rest:
            yield Piece(rest)
        self._count()

    def _chunks(self) -> Iterator[Chunk]:
        events = Events()
        try:
            for raw in self._incoming.chunks():
                # What follows the end is read, not looked at: only then the connection can serve again.
                for data in () if self._whole else events.feed(raw):
                    if data.strip() == DONE:
                        self._whole = True
                        self._incoming.expire(_LAST_SECONDS)
                        break
                    yield read_chunk(data)
        except Failed:
            if not self._whole and self.finish is None:
                raise

    def _unstreamed(self) -> Iterator[Piece]:
        """A server that knows no streaming sends the answer at once."""
        started = time.monotonic()
        raw = b"".join(self._incoming.chunks())
        reply = read_reply(raw, self._asked, self._max_tokens, time.monotonic() - started, self._key)
        self.finish = "length" if reply.cut else "stop"
        self.prompt_tokens, self.completion_tokens = reply.prompt_tokens, reply.completion_tokens
        if reply.text:
            yield Piece(reply.text)

    def _count(self) -> None:
        self.prompt_tokens, self.completion_tokens = read_usage(self._usage, self._asked, self._wrote, self._max_tokens)

    def _cleared(self, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        """A key cut in two over pieces of a tool call is not found here; it would be the model that was told it."""
        if not (extra and self._key):
            return extra
        text = json.dumps(extra, ensure_ascii=False)
        cleared: Mapping[str, Any] = json.loads(text.replace(self._key, "[key]")) if self._key in text else extra
        return cleared
