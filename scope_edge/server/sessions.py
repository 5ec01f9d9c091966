"""Conversations keep their model, so that "and now commit it" does not go to another one than what it is about.

A conversation is known again by a keyed hash of all that was said before the answer that is being continued. The key is of this
process alone and nothing else is kept: no text, and no trace after the process.
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

_MOST = 10_000
_SECONDS = 6 * 3600.0
_SAID = ("role", "content", "tool_calls", "tool_call_id", "name")


class Sessions:
    """Which model answered what. Safe to use from several threads."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def model_of(self, name: str, messages: Sequence[Mapping[str, Any]]) -> str | None:
        """Who answered last in this conversation; None: it is new, or long ago. name: the model as the request says."""
        said = _before_last_answer(messages)
        if not said:
            return None
        mark = self._mark(name, said)
        with self._lock:
            model, at = self._known.get(mark, ("", 0.0))
            if not model or time.monotonic() - at > _SECONDS:
                self._known.pop(mark, None)
                return None
            return model

    def answered(self, name: str, messages: Sequence[Mapping[str, Any]], model: str) -> None:
        """A model has answered these messages."""
        mark = self._mark(name, messages)
        with self._lock:
            self._known[mark] = (model, time.monotonic())
            self._known.move_to_end(mark)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)

    def _mark(self, name: str, messages: Sequence[Mapping[str, Any]]) -> bytes:
        said = [[message.get(part) for part in _SAID] for message in messages]
        text = json.dumps([name, said], sort_keys=True, default=str)
        return hmac.new(self._key, text.encode(), hashlib.sha256).digest()


def _before_last_answer(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """What the latest answer in a conversation was an answer to; nothing where there is none."""
    end = len(messages)
    while end and messages[end - 1].get("role") != "assistant":
        end -= 1
    while end and messages[end - 1].get("role") == "assistant":
        end -= 1
    return messages[:end]
