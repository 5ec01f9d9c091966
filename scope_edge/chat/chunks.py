"""What one event of a streamed answer says, read with distrust; and a key kept out of what comes in pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scope_edge.chat.wire import NotAnAnswerError

DONE = "[DONE]"
_PLAIN = ("role", "content", "refusal")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer.

    Attributes:
        text: to be shown. extra: what else the server sent beside it (tool calls, thoughts), as it is.
        finish: why the answer ended; None = it goes on. usage: as sent; None = not in this one.
        problem: an error in place of a piece, as sent.
    """

    text: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    finish: str | None = None
    usage: Mapping[str, Any] | None = None
    problem: str | None = None


def read_chunk(data: str) -> Chunk:
    """An event's data. Raises NotAnAnswerError."""
    try:
        body = json.loads(data)
        if body.get("error"):
            return Chunk(problem=data)
        usage = body.get("usage")
        usage = usage if isinstance(usage, dict) else None
        choices = [one for one in body.get("choices") or [] if one.get("index", 0) == 0]
        if not choices:
            return Chunk(usage=usage)
        delta, finish = choices[0].get("delta") or {}, choices[0].get("finish_reason")
        return Chunk(
            text=_text(delta),
            extra={name: value for name, value in delta.items() if name not in _PLAIN},
            finish=None if finish is None else str(finish),
            usage=usage,
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise NotAnAnswerError("it sent an event that is no part of an answer") from error


def _text(delta: Mapping[str, Any]) -> str:
    content = delta.get("content")
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if content is None:
        content = delta.get("refusal") or ""
    if not isinstance(content, str):
        raise TypeError("content is no text")
    return content


class Clearing:
    """Replaces a key in text that comes in pieces, wherever it is cut. Holds back no more than what may become the key."""

    def __init__(self, key: str | None) -> None:
        self._key, self._held = key or "", ""

    def feed(self, text: str) -> str:
        """What of the text so far is known to be clean and was not given yet."""
        if not self._key:
            return text
        text = (self._held + text).replace(self._key, "[key]")
        longest = min(len(self._key) - 1, len(text))
        kept = next((n for n in range(longest, 0, -1) if self._key.startswith(text[-n:])), 0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def rest(self) -> str:
        """What was held back, once nothing more comes."""
        held, self._held = self._held, ""
        return held
