"""Reads the responses of OpenAI-compatible servers, and trusts no part: answers, lists of models, token counts, refusals."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scope_edge.errors import ProviderError

if TYPE_CHECKING:
    from scope_edge.providers.openai.transport import Transport

# The errors of reading a body that has another shape.
MISSHAPEN = (ValueError, LookupError, TypeError, AttributeError, RecursionError)

# What an answer may have where it has no text.
_INSTEAD_OF_TEXT = ("tool_calls", "function_call", "refusal", "reasoning_content", "reasoning")
# Where servers write the reason of a failure, besides `error`.
_REASONS = ("message", "detail", "errors", "msg", "base_resp")
# What servers that translate from other formats say where OpenAI's says the right side.
_ENDINGS = {
    **dict.fromkeys(("max_tokens", "max_output_tokens", "model_length"), "length"),
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    "tool_use": "tool_calls",
}
NO_ANSWER = "its response is not an answer, or only a part of one"
_MOST_MODELS = 10_000
# More than the longest context on the market.
_MOST_TOKENS = 10_000_000
# The format does not define a field for the context length; these are in use.
_CONTEXT_NAMES = ("context_length", "max_model_len", "context_window", "max_context_length")
# A server that demands a longer pause than this is not called again.
_LONGEST_RETRY_AFTER = 120.0
_AGAIN = (408, 409, 425, 429)
# Refusals that say something of the model, its server or the account, and nothing of the question: its length, its options,
# the roles and tools that it has, what its filter takes, what it has left.
_OF_THIS_MODEL = re.compile(
    r"context|too (?:long|large|many|high|low)|prompt (?:is|length)|input (?:token|length)|n_ctx|exceed|reduce the|max_new_tokens|"
    r"not (?:support|accept|possible|available)|unsupported|unrecogni|unknown|extra inputs|not (?:allowed|enabled)|"
    r"invalid model|\bmodel\b.{0,60}(?:not|no longer|deprecat|retire)|mandatory|cannot be|"
    r"template|jinja|alternat|\broles?\b|system message|\btools?\b|parser|\bimages?\b|"
    r"temperature|top_p|between|(?:less|greater) than|at (?:most|least) -?\d|m(?:ax|in)imum|[<>]=|"
    r"content.?(?:filter|management|policy|exists)|safety|moderat|flagged|inappropriate|sensitive|violat|usage polic|"
    r"overload|capacity|busy|try again|usage limit|limit reached|location|region|good standing|arrear|expired",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context.?(?:length|size|window)|n_ctx|(?:prompt|input)\b.{0,40}(?:too long|exceed|max)|maximum prompt|max_new_tokens|"
    r"reduce the length",
    re.IGNORECASE,
)
_NO_CREDIT = re.compile(
    r"\bcredits?\b(?! card)|insufficient.?(?:quota|balance|funds)|billing|payment|top up|recharge|arrear", re.IGNORECASE
)
# Rate limits, too, speak of quotas and billing.
_SURELY_NO_CREDIT = re.compile(r"insufficient.?(?:quota|balance|funds|credit)", re.IGNORECASE)
_BAD_KEY = re.compile(
    r"api.?key|unauthori[sz]ed|authenticat|(?:invalid|expired).{0,20}(?:token|credential)|access token", re.IGNORECASE
)
# HTTP 403 and 404 for one question: a filter, or no server behind this one that takes what the question needs.
_OF_THE_QUESTION = re.compile(r"moderat|flagged|safety|violat|content.?(?:filter|policy)|no endpoints", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ChatReply:
    """An answer.

    text: may be empty, which is an answer. cut: the limit on tokens ended it. prompt_tokens, completion_tokens: as the server
    counts them; None = missing or impossible. seconds: from the request to the end of the answer.
    """

    text: str
    cut: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Served:
    """A model in a server's list: its name there, context length and number of weights; None = missing."""

    name: str
    context_tokens: int | None
    parameters: int | None


def read_message(raw: bytes, key: str | None) -> tuple[Mapping[str, Any], str | None, Any]:
    """Return (message, finish reason, usage) of a whole answer. key: removed from errors. Raises ProviderError."""
    try:
        body = json.loads(raw)
        if holds_error(body) and not body.get("choices"):
            raise sent_error(raw, key, "it sent an error")
        choice = body["choices"][0]
        message, finish = said_in(choice), read_finish(choice, key)
        if "content" not in message and not any(message.get(name) for name in _INSTEAD_OF_TEXT):
            raise LookupError("it holds no answer")
        return dict(message), finish, body.get("usage")
    except MISSHAPEN as error:
        raise ProviderError(NO_ANSWER, retryable=True) from error


def holds_error(body: Mapping[str, Any]) -> bool:
    """Return whether a server reports an error, in any of the usual forms. Raises one of `MISSHAPEN`."""
    return bool(body.get("error") or ("choices" not in body and any(body.get(name) for name in _REASONS)))


def said_in(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a choice's delta or message, or what an old server writes as its `text`. Raises one of `MISSHAPEN`."""
    # A server that sends both repeats the whole answer so far in its message.
    found = (choice.get(name) for name in ("delta", "message"))
    return next((one for one in found if one is not None), {"content": choice["text"]} if "text" in choice else {})


def read_finish(choice: Mapping[str, Any], key: str | None) -> str | None:
    """Return why an answer ended, in OpenAI's words; None = it goes on. Raises ProviderError: in an error."""
    # Some servers send an empty reason with every piece.
    finish = str(choice.get("finish_reason") or "").lower()
    if finish == "error" or choice.get("error"):
        reason = choice.get("error")
        raise sent_error(json.dumps({"error": reason}).encode() if reason else b"", key, "it broke off")
    return _ENDINGS.get(finish, finish) or None


def sent_error(raw: bytes, key: str | None, lead: str) -> ProviderError:
    """Return the error that a server has sent in place of an answer, or in the middle of one, with status 200."""
    words = error_text(raw, key)
    status = next((int(one) for one in re.findall(r"\b[45]\d\d\b", words)), None)
    passes = status is None or status in _AGAIN or status >= 500
    return ProviderError(f"{lead} ({words or 'without a reason'})", retryable=passes, unbilled=True)


def read_usage(usage: object, asked: int, wrote: int, max_tokens: int | None) -> tuple[int | None, int | None]:
    """Return (prompt tokens, completion tokens) as a server counts them; None = impossible. asked, wrote: bytes."""
    counts = usage if isinstance(usage, dict) else {}
    most = _MOST_TOKENS if max_tokens is None else max(4 * max_tokens, wrote) + 64
    # A token has at least a byte, and hardly ever more than 64. A chat template and the server's own text come on top, and hidden
    # thinking counts.
    return (
        _sane(counts.get("prompt_tokens"), 1, asked + 16384),
        _sane(counts.get("completion_tokens"), max(1, wrote // 64), most),
    )


def read_models(raw: bytes) -> tuple[Served, ...]:
    """Return the models in a list, without those whose name no card could have. Raises ProviderError."""
    try:
        body = json.loads(raw)
        # Some servers send the bare list, and some have null where they have no model.
        rows = body if isinstance(body, list) else body["data"] or []
        rows = [{"id": row} if isinstance(row, str) else row for row in rows[:_MOST_MODELS]]
        found = [_served(row) for row in rows if isinstance(row, dict) and "id" in row]
        if rows and not found:
            raise LookupError("no row has an id")
    except MISSHAPEN as error:
        raise ProviderError("its response is not a list of models; is this an OpenAI-compatible address?") from error
    return tuple({one.name: one for one in found if one is not None}.values())


def _served(row: Mapping[str, Any]) -> Served | None:
    name = row["id"]
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > 200:
        return None
    meta = row.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    contexts = (_sane(row.get(key), 1, 2**31) for key in _CONTEXT_NAMES)
    return Served(name, next(filter(None, contexts), None), _sane(meta.get("n_params"), 1, 2**50))


def text_of(message: Any) -> str:
    """Return the text of a message, or of a piece of one; "" = no text. Raises one of `MISSHAPEN`."""
    content = message.get("content")
    content = [content] if isinstance(content, dict) else content
    if isinstance(content, list):
        content = "".join(map(_part_text, content))
    if content is None:
        return str(message.get("refusal") or "")
    if not isinstance(content, str):
        raise TypeError("content is not text")
    return content


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    return str(part["text"]) if part.get("type", "text") in ("text", "output_text") else ""


def _sane(number: object, least: int, most: int) -> int | None:
    # Some servers count in strings, or in numbers with a decimal point.
    if isinstance(number, str) and number.isdecimal() and len(number) < 20:
        number = int(number)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return number if type(number) is int and least <= number <= most else None


def error_text(raw: bytes, key: str | None) -> str:
    """Return a server's error message, on one line, without the key."""
    text = raw[:4096].decode("utf-8", "replace")
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
        body = json.loads(text)
        body = body[0] if isinstance(body, list) and body else body
        error = next((body[name] for name in ("error", *_REASONS) if body.get(name)), text)
        error = error[0] if isinstance(error, list) and len(error) == 1 else error
        if isinstance(error, dict) and isinstance(error.get("message"), str):
            error = f"{error.get('code') or ''} {error['message']}"
        elif isinstance(error, str) and error is not text:
            error = f"{body.get('code') or ''} {error}"
        text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    return " ".join("".join(one if one.isprintable() else " " for one in _cleared(text, key)).split())[:200]


def _cleared(text: str, key: str | None) -> str:
    return text.replace(key, "[key]") if key else text


def retry_after(value: object) -> float | None:
    """Return the header Retry-After, a number or a date, in seconds."""
    from email.utils import parsedate_to_datetime  # slow to import, and rarely needed

    text = str(value or "").strip()
    wait: float | None = None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        wait = parsedate_to_datetime(text).timestamp() - time.time()
    with contextlib.suppress(ValueError):
        wait = float(text)
    return max(0.0, wait) if wait is not None and wait < 1e9 else None


def refusal(transport: Transport, model: str, status: int, wait: str | None, raw: bytes) -> ProviderError:
    """Return the error for a status. wait: the header Retry-After. raw: the body, or its beginning."""
    words = error_text(raw, transport.secret)
    asked = status in (400, 422) or (status in (403, 404) and _OF_THE_QUESTION.search(words) is not None)
    if (status in (401, 403) and not asked and not _SURELY_NO_CREDIT.search(words)) or (
        asked and _BAD_KEY.search(words)
    ):
        key = f"check the key in {transport.key_env}" if transport.key_env else "it has no key: set key_env"
        return ProviderError(f"it refuses the call (HTTP {status}); {key}", every_question=True, unbilled=True)
    of_account = (_SURELY_NO_CREDIT if status in (403, 429) else _NO_CREDIT).search(words) is not None
    if status == 402 or (of_account and (asked or status in (403, 429))):
        why = f"no credit is left (HTTP {status}); top it up, then go on"
        return ProviderError(why, every_question=True, unbilled=True)
    if status in (404, 410) and not asked:
        why = f"no model {model!r} at {transport.endpoint.url} (HTTP {status}); check endpoint and served_as"
        return ProviderError(why, every_question=True, unbilled=True)
    if status in _AGAIN or status >= 500:
        seconds = retry_after(wait)
        patient = seconds is None or seconds <= _LONGEST_RETRY_AFTER
        why = f"HTTP {status}" if patient else f"HTTP {status}, no calls for {seconds:.0f} seconds"
        return ProviderError(why, retryable=patient, unbilled=True, retry_after=seconds)
    too_long = status in (400, 413, 422) and _TOO_LONG.search(words) is not None
    of_model = too_long or _OF_THIS_MODEL.search(words) is not None
    return ProviderError(
        f"it refuses the question (HTTP {status}{': ' + words if words else ''})",
        content=status in (400, 422) and any(map(str.isalpha, words)) and not of_model,
        code="context_length_exceeded" if too_long else None,
        unbilled=True,
    )
