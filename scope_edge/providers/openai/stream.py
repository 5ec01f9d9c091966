"""A streamed answer, piece by piece: each piece once, whole or said to be broken off."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scope_edge.errors import ProviderError
from scope_edge.providers.openai.responses import MISSHAPEN, NO_ANSWER, read_reply, read_usage, said, text_of

if TYPE_CHECKING:
    from scope_edge.providers.openai.transport import HttpCall

_DONE = "[DONE]"
# After the last words of an answer its usage may follow, and then the end.
_USAGE_SECONDS, _LAST_SECONDS = 5.0, 0.5
_EVENTS, _WHOLE = "text/event-stream", "application/json"
_PLAIN = ("role", "content", "refusal")


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of an answer's text, and what the server sent beside it (tool calls, thoughts), as it is."""

    text: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece as it comes. finish: why the answer ended; None = it goes on. usage: as sent; None = not in this one."""

    text: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    finish: str | None = None
    usage: Mapping[str, Any] | None = None


class AnswerStream:
    """One answer: iterate once, which makes the call; then look at how it ended.

    Attributes:
        finish: "stop", "length", "tool_calls", ... as the server says; None = not ended, or it does not say.
        prompt_tokens, completion_tokens: as the server counts; None = missing or impossible.

    Iterating raises ProviderError when there is no answer, or it breaks off: the pieces until then are all there is.
    """

    def __init__(self, call: HttpCall[Chunk], asked: int, max_tokens: int | None, key: str | None) -> None:
        """asked: bytes sent. key: removed from the text."""
        self._call, self._asked, self._max_tokens, self._key = call, asked, max_tokens, key
        self.finish: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None

    def __iter__(self) -> Iterator[Piece]:
        clearing, wrote, usage = SecretRedactor(self._key), 0, None
        try:
            for chunk in self._call:
                usage = chunk.usage or usage
                self.finish = self.finish or chunk.finish
                text = clearing.feed(chunk.text)
                if text or chunk.extra:
                    wrote += len(text.encode("utf-8", "replace"))
                    yield Piece(text, self._cleared(chunk.extra))
        finally:
            self.close()
        if rest := clearing.rest():
            yield Piece(rest)
        self.prompt_tokens, self.completion_tokens = read_usage(usage, self._asked, wrote, self._max_tokens)

    def close(self) -> None:
        """End the call, from any thread: iterating it raises ProviderError unless the answer is whole."""
        self._call.end()

    def _cleared(self, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove the key, except one cut in two over pieces of a tool call: there the model would have to know it."""
        if not (extra and self._key):
            return extra
        text = json.dumps(extra, ensure_ascii=False)
        cleared: Mapping[str, Any] = json.loads(text.replace(self._key, "[key]")) if self._key in text else extra
        return cleared


class SecretRedactor:
    """Replaces a key in text that comes in pieces, wherever it is cut. Holds back no more than what may become the key."""

    def __init__(self, key: str | None) -> None:
        self._key, self._held = key or "", ""

    def feed(self, text: str) -> str:
        """Return what of the text so far is clean and was not given yet."""
        if not self._key:
            return text
        text = (self._held + text).replace(self._key, "[key]")
        longest = min(len(self._key) - 1, len(text))
        kept = next((n for n in range(longest, 0, -1) if self._key.startswith(text[-n:])), 0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def rest(self) -> str:
        """Return what was held back, once nothing more comes."""
        held, self._held = self._held, ""
        return held


async def read_answer(
    call: HttpCall[Chunk], content_type: str, body: AsyncIterator[bytes], key: str | None
) -> AsyncIterator[Chunk]:
    """Yield an answer as it comes; a server that does not stream sends it at once. Raises ProviderError."""
    from scope_edge.providers.openai.transport import read_events

    kind = content_type.partition(";")[0].strip().lower()
    if kind == _WHOLE:
        yield _whole(b"".join([part async for part in body]))
        return
    if kind != _EVENTS:
        raise ProviderError(NO_ANSWER, retryable=True)
    finished = done = False
    async for data in read_events(body):
        # What follows the end is read, but ignored: only then the connection can serve again.
        if done:
            continue
        if data.strip() == _DONE:
            finished = done = True
            call.complete(_LAST_SECONDS)
            continue
        chunk = read_chunk(data, key)
        if chunk.finish is not None and not finished:
            finished = True
            call.complete(_USAGE_SECONDS)
        yield chunk
    if not finished:
        raise ProviderError("the connection was closed before the answer was whole", retryable=True)


def read_chunk(data: str, key: str | None = None) -> Chunk:
    """Return what an event says. Raises ProviderError: it is an error, or no part of an answer."""
    try:
        body = json.loads(data)
        if body.get("error"):
            raise ProviderError(f"it broke off ({said(data.encode(), key) or 'an error'})", retryable=True)
        usage = body.get("usage")
        usage = usage if isinstance(usage, dict) else None
        choices = [one for one in body.get("choices") or [] if one.get("index", 0) == 0]
        delta, finish = (choices[0].get("delta") or {}, choices[0].get("finish_reason")) if choices else ({}, None)
        extra = {name: value for name, value in delta.items() if name not in _PLAIN}
        return Chunk(text_of(delta), extra, None if finish is None else str(finish), usage)
    except MISSHAPEN as error:
        raise ProviderError("it sent an event that is no part of an answer", retryable=True) from error


def _whole(raw: bytes) -> Chunk:
    reply = read_reply(raw, len(raw), None, 0.0, None)
    usage = json.loads(raw).get("usage")
    return Chunk(reply.text, finish="length" if reply.cut else "stop", usage=usage if isinstance(usage, dict) else None)
