"""What an OpenAI-compatible server sends, read with distrust: a whole answer, or none; counts that can be, or none."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any

_MOST_MODELS = 10_000
# No answer has more tokens than the longest context on the market.
_MOST_TOKENS = 10_000_000
# The format has no name for the context length; these are in use.
_CONTEXT_NAMES = ("context_length", "max_model_len", "context_window", "max_context_length")


class NotAnAnswerError(ValueError):
    """The body is no answer, or only a part of one."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        text: of the answer; may be empty, which is an answer. cut: it was ended by the limit on tokens.
        prompt_tokens, completion_tokens: as the server counts them; None = it says nothing, or what cannot be.
        seconds: from the call that was answered to its answer.
    """

    text: str
    cut: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Served:
    """A model that a server says it serves: its name there; context length and number of weights, None = it does not say."""

    name: str
    context_tokens: int | None
    parameters: int | None


def read_reply(raw: bytes, asked: int, max_tokens: int | None, seconds: float, key: str | None) -> Reply:
    """The answer in a body. Raises NotAnAnswerError. asked: bytes. seconds: it took. key: to be cleared from it."""
    try:
        body = json.loads(raw)
        choice = body["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text = _text(message)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise NotAnAnswerError("what it sent is no answer, or only a part of one") from error
    prompt_tokens, completion_tokens = read_usage(
        body.get("usage"), asked, len(text.encode("utf-8", "replace")), max_tokens
    )
    return Reply(
        text=_cleared(text, key),
        cut=finish == "length",
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        seconds=seconds,
    )


def read_usage(usage: object, asked: int, wrote: int, max_tokens: int | None) -> tuple[int | None, int | None]:
    """(prompt tokens, completion tokens) as a server counts them, None for what cannot be. asked, wrote: bytes."""
    counts = usage if isinstance(usage, dict) else {}
    most = _MOST_TOKENS if max_tokens is None else max(4 * max_tokens, wrote) + 64
    # A token spells at least a byte; a chat template and a server's own words come on top. Thinking that is not shown counts.
    # A token of text hardly ever spells more than 64 bytes.
    return (
        _sane(counts.get("prompt_tokens"), 1, asked + 16384),
        _sane(counts.get("completion_tokens"), max(1, wrote // 64), most),
    )


def read_models(raw: bytes) -> tuple[Served, ...]:
    """The list of models in a body, those left out whose name no card could have. Raises NotAnAnswerError."""
    try:
        rows = json.loads(raw)["data"]
        found = [_served(row) for row in rows[:_MOST_MODELS]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise NotAnAnswerError("what it sent is no list of models; is this an OpenAI-compatible address?") from error
    return tuple({one.name: one for one in found if one is not None}.values())


def _served(row: Any) -> Served | None:
    name = row["id"]
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > 200:
        return None
    meta = row.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    contexts = (_sane(row.get(key), 1, 2**31) for key in _CONTEXT_NAMES)
    return Served(name, next(filter(None, contexts), None), _sane(meta.get("n_params"), 1, 2**50))


def _text(message: Any) -> str:
    """The text of a message; empty where it refuses or was cut off while it thought. Raises TypeError when there is none."""
    content = message["content"]
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if content is None:
        return str(message.get("refusal") or "")
    if not isinstance(content, str):
        raise TypeError("content is no text")
    return content


def _sane(number: object, least: int, most: int) -> int | None:
    return number if type(number) is int and least <= number <= most else None


def said(raw: bytes, key: str | None) -> str:
    """What a server says of an error, on one line."""
    text = raw[:4096].decode("utf-8", "replace")
    with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError):
        error = json.loads(text)["error"]
        text = f"{error.get('code') or ''} {error.get('message') or ''}" if isinstance(error, dict) else str(error)
    return " ".join("".join(one if one.isprintable() else " " for one in _cleared(text, key)).split())[:200]


def _cleared(text: str, key: str | None) -> str:
    """A server's words without the key, should it repeat that."""
    return text.replace(key, "[key]") if key else text


def retry_after(value: object) -> float | None:
    """The header in seconds; it may be a number or a date."""
    from email.utils import parsedate_to_datetime  # slow to import, and hardly ever needed

    text = str(value or "").strip()
    wait: float | None = None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        wait = parsedate_to_datetime(text).timestamp() - time.time()
    with contextlib.suppress(ValueError):
        wait = float(text)
    return max(0.0, wait) if wait is not None and wait < 1e9 else None
