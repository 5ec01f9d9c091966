"""What a server means by a status, and by a complaint about an option."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scope_edge.chat.failed import Failed
from scope_edge.chat.wire import retry_after, said

if TYPE_CHECKING:
    from scope_edge.chat.connection import Connection

# A server that asks for more patience than this is asked again another day.
LONGEST_RETRY_AFTER = 120.0
_AGAIN = (408, 409, 425, 429)
# Refusals of a question that another model may well take.
_OF_THIS_MODEL = re.compile(
    r"context.length|context.window|maximum context|too (?:long|large|many)|prompt is too|not support|unsupported|"
    r"unrecognized|unknown (?:field|parameter|argument|name)|extra inputs|\bmodel\b.{0,60}(?:not|no longer|deprecat|retire)",
    re.IGNORECASE,
)


def refusal(connection: Connection, model: str, status: int, wait: str | None, raw: bytes) -> Failed:
    """A status that is no answer, in words. wait: the header Retry-After. raw: the body, or its beginning."""
    words = said(raw, connection.secret)
    if status in (401, 403):
        key = f"check the key in {connection.key_env}" if connection.key_env else "name its key's variable in key_env"
        return Failed(f"it refuses (HTTP {status}); {key}", final=True, for_all=True, unbilled=True)
    if status == 402 or (status == 429 and "insufficient_quota" in words):
        return Failed(
            f"no credit is left (HTTP {status}); top it up, then go on", final=True, for_all=True, unbilled=True
        )
    if status in (404, 410):
        why = f"no model {model!r} at {connection.endpoint.url} (HTTP {status}); check endpoint and served_as"
        return Failed(why, final=True, for_all=True, unbilled=True)
    if status in _AGAIN or status >= 500:
        seconds = retry_after(wait)
        patient = seconds is None or seconds <= LONGEST_RETRY_AFTER
        why = f"HTTP {status}" if patient else f"HTTP {status}, to be asked again in {seconds:.0f} seconds"
        return Failed(why, final=not patient, unbilled=True, retry_after=seconds)
    return Failed(
        f"it refuses the question (HTTP {status}{': ' + words if words else ''})",
        final=True,
        content=status in (400, 422) and _OF_THIS_MODEL.search(words) is None,
        unbilled=True,
    )


class Dialect:
    """What a server calls options, and which of ours it takes, learned from its complaints. Threads may share it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """options: sent along until the server refuses them; never what a user asked for."""
        self._options = dict(options)
        self._tokens_name = "max_tokens"

    def options(self, max_tokens: int | None) -> dict[str, Any]:
        """What goes along with the messages."""
        named = {} if max_tokens is None else {self._tokens_name: max_tokens}
        return named | self._options

    def adapted(self, raw: bytes) -> bool:
        """Whether a 400 complains of an option that can be left out or has another name there; then it will be."""
        complaint = raw[:4096].decode("utf-8", "replace")
        if self._tokens_name == "max_tokens" and "max_completion_tokens" in complaint:
            self._tokens_name = "max_completion_tokens"
            return True
        unwanted = next((name for name in list(self._options) if name in complaint), None)
        return unwanted is not None and self._options.pop(unwanted, None) is not None
