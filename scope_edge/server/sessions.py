"""Conversations keep their model, so that "and now commit it" goes to the model that did the work.

A conversation is recognized by a keyed hash of all messages before the answer that it continues. The key belongs to this process
alone and nothing else is kept: no text, and no trace after the process.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

_MAX_SESSIONS = 10_000
_SECONDS = 6 * 3600.0
_HASHED_FIELDS = ("role", "content", "tool_calls", "tool_call_id", "name")


class Sessions:
    """Remembers which model answered a conversation. Safe to use from several threads."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def model_of(self, name: str, messages: Sequence[Mapping[str, Any]]) -> str | None:
        """Return the model that answered last; None = the conversation is new or old. name: the request's model."""
        earlier = _before_last_answer(messages)
        if not earlier:
            return None
        mark = self._mark(name, earlier)
        with self._lock:
            model, at = self._known.get(mark, ("", 0.0))
            if not model or time.monotonic() - at > _SECONDS:
                self._known.pop(mark, None)
                return None
            return model

    def answered(self, name: str, messages: Sequence[Mapping[str, Any]], model: str) -> None:
        """Note that a model has answered these messages."""
        mark = self._mark(name, messages)
        with self._lock:
            self._known[mark] = (model, time.monotonic())
            self._known.move_to_end(mark)
            while len(self._known) > _MAX_SESSIONS:
                self._known.popitem(last=False)

    def _mark(self, name: str, messages: Sequence[Mapping[str, Any]]) -> bytes:
        hashed = [[message.get(part) for part in _HASHED_FIELDS] for message in messages]
        text = json.dumps([name, hashed], sort_keys=True, default=str)
        return hmac.new(self._key, text.encode(), hashlib.sha256).digest()


def _before_last_answer(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the messages that the latest answer replied to; () = no answer yet."""
    end = len(messages)
    while end and messages[end - 1].get("role") != "assistant":
        end -= 1
    while end and messages[end - 1].get("role") == "assistant":
        end -= 1
    return messages[:end]
