"""A streamed answer, piece by piece. An answer that breaks off ends in an error."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from scope_edge.errors import ProviderError
from scope_edge.providers.openai.responses import (
    MISSHAPEN,
    NO_ANSWER,
    holds_error,
    read_finish,
    read_message,
    read_usage,
    said_in,
    sent_error,
    text_of,
)

if TYPE_CHECKING:
    from scope_edge.providers.openai.transport import HttpCall

_DONE = "[DONE]"
# Waiting times after the last piece of an answer: for its usage, and for the end of the stream.
_USAGE_SECONDS, _LAST_SECONDS = 5.0, 0.5
_BLANK = b"\xef\xbb\xbf \t\r\n"
_EVENT = re.compile(rb":|data|event|id|retry")
# Bytes that tell an event from all else.
_TELLING = 5
# Fields in which models write thoughts and arguments of tools.
_WRITTEN = ("reasoning_content", "reasoning", "thinking", "text", "arguments")
_PLAIN = ("role", "content", "refusal")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer's text, and further fields as sent (tool calls, reasoning)."""

    text: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def beside(self) -> str:
        """What the model wrote beside the text: thoughts, and arguments of tools. It is limited and paid for, too."""
        found, waiting = [], [dict(self.extra)]
        while waiting:
            for name, value in waiting.pop().items():
                if isinstance(value, str) and name in _WRITTEN:
                    found.append(value)
                elif isinstance(value, dict):
                    waiting.append(value)
                elif isinstance(value, list):
                    waiting += [one for one in value if isinstance(one, dict)]
        return "".join(found)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece as sent. finish: why the answer ended; None = it goes on. usage: as sent; None = missing."""

    text: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    finish: str | None = None
    usage: Mapping[str, Any] | None = None


class AnswerStream:
    """One answer: iterate once, which makes the call; its attributes hold from its end on.

    Attributes:
        finish: "stop", "length", "tool_calls", ... as the server says; None = not ended, or missing.
        prompt_tokens, completion_tokens: as the server counts; None = missing or impossible.

    Iterating raises ProviderError: the answer is missing, or breaks off after the pieces so far.
    """

    def __init__(self, call: HttpCall[Chunk], asked: int, max_tokens: int | None, key: str | None) -> None:
        """asked: bytes sent. key: removed from the text."""
        self._call, self._asked, self._max_tokens, self._key = call, asked, max_tokens, key
        self.finish: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None

    def __iter__(self) -> Iterator[Piece]:
        redactor, wrote, usage = SecretRedactor(self._key), 0, None
        try:
            for chunk in self._call:
                usage = chunk.usage or usage
                self.finish = self.finish or chunk.finish
                text = redactor.feed(chunk.text)
                if text or chunk.extra:
                    wrote += len(text.encode("utf-8", "replace"))
                    yield Piece(text, self._cleared(chunk.extra))
        finally:
            self.close()
        if rest := redactor.rest():
            yield Piece(rest)
        self.prompt_tokens, self.completion_tokens = read_usage(usage, self._asked, wrote, self._max_tokens)

    def close(self) -> None:
        """End the call, from any thread: iterating it raises ProviderError unless the answer is whole."""
        self._call.end()

    def _cleared(self, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove the key, except one split over pieces of a tool call: only the model could have written it there."""
        if not (extra and self._key):
            return extra
        text = json.dumps(extra, ensure_ascii=False)
        cleared: Mapping[str, Any] = json.loads(text.replace(self._key, "[key]")) if self._key in text else extra
        return cleared


class SecretRedactor:
    """Replaces a key in text that comes in pieces, wherever it is cut. Holds back only text that may become the key."""

    def __init__(self, key: str | None) -> None:
        self._key, self._held = key or "", ""

    def feed(self, text: str) -> str:
        """Return the next part of the text without the key."""
        if not self._key:
            return text
        text = (self._held + text).replace(self._key, "[key]")
        longest = min(len(self._key) - 1, len(text))
        kept = next((n for n in range(longest, 0, -1) if self._key.startswith(text[-n:])), 0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def rest(self) -> str:
        """Return the text that was held back, at the end."""
        held, self._held = self._held, ""
        return held


async def read_answer(call: HttpCall[Chunk], body: AsyncIterator[bytes], key: str | None) -> AsyncIterator[Chunk]:
    """Yield an answer as it comes; a server without streaming sends it at once. Raises ProviderError.

    Its first characters tell which of the two it is: content types are often wrong.
    """
    from scope_edge.providers.openai.transport import read_events

    begun = b""
    async for part in body:
        begun = (begun + part).lstrip(_BLANK)
        if len(begun) >= _TELLING:
            break
    if begun[:1] in (b"{", b"["):
        yield read_whole(begun + b"".join([part async for part in body]), key)
        return
    if not _EVENT.match(begun):
        raise ProviderError(NO_ANSWER, retryable=True)
    finished = done = said = False
    calls = ToolCallNumbers()
    async for data in read_events(_chained(begun, body)):
        # The rest is read, but ignored: only then the connection can serve again.
        if done:
            continue
        if data.strip() == _DONE:
            if not said:
                raise ProviderError(NO_ANSWER, retryable=True)
            finished = done = True
            call.complete(_LAST_SECONDS)
            continue
        chunk = calls.numbered(read_chunk(data, key))
        said = said or bool(chunk.text or chunk.extra or chunk.finish)
        if chunk.finish is not None and not finished:
            finished = True
            call.complete(_USAGE_SECONDS)
        yield chunk
    if not finished:
        raise ProviderError("the connection was closed before the answer was whole", retryable=True)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part
    # The last event counts even if the server forgets the empty line behind it.
    yield b"\n\n"


class ToolCallNumbers:
    """Numbers the calls of tools in a stream, by which clients join their pieces: some servers send none."""

    def __init__(self) -> None:
        self._ids: list[object] = []

    def numbered(self, chunk: Chunk) -> Chunk:
        """Return a chunk whose calls have numbers, and arguments as text. Raises ProviderError."""
        calls = chunk.extra.get("tool_calls")
        if not calls:
            return chunk
        try:
            numbered = [{**one, "index": self._number(one), "function": _function(one)} for one in calls]
        except MISSHAPEN as error:
            raise ProviderError("it sent an event that is not a part of an answer", retryable=True) from error
        return replace(chunk, extra={**chunk.extra, "tool_calls": numbered})

    def _number(self, call: Mapping[str, Any]) -> int:
        given, id = call.get("index"), call.get("id")
        if type(given) is int:
            return given
        if id in self._ids:
            return self._ids.index(id)
        # A piece without an id goes on with the latest call.
        if id or not self._ids:
            self._ids.append(id)
        return len(self._ids) - 1


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function") or {}
    given = function.get("arguments")
    text = given if given is None or isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return {**function, "arguments": text} if "arguments" in function else function


def read_chunk(data: str, key: str | None = None) -> Chunk:
    """Read an event. Raises ProviderError: it is an error, or not a part of an answer."""
    try:
        body = json.loads(data)
        if holds_error(body):
            raise sent_error(data.encode(), key, "it broke off")
        choices = body.get("choices") or []
        # One choice was asked for, whatever number the server gives it.
        first: dict[str, Any] = next(
            (one for one in choices if one.get("index", 0) == 0), choices[0] if choices else {}
        )
        delta, usage = said_in(first), body.get("usage") or first.get("usage")
        usage = usage if isinstance(usage, dict) else None
        return Chunk(text_of(delta), _beside_text(delta), read_finish(first, key), usage)
    except MISSHAPEN as error:
        raise ProviderError("it sent an event that is not a part of an answer", retryable=True) from error


def read_whole(raw: bytes, key: str | None) -> Chunk:
    """Read an answer that came at once. Raises ProviderError."""
    message, finish, usage = read_message(raw, key)
    try:
        usage = usage if isinstance(usage, dict) else None
        chunk = Chunk(text_of(message), _beside_text(message), finish or "stop", usage)
        return ToolCallNumbers().numbered(chunk)
    except MISSHAPEN as error:
        raise ProviderError(NO_ANSWER, retryable=True) from error


def _beside_text(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in _PLAIN and value is not None}
