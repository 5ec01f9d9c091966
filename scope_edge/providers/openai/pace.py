"""How slowly an answer may come before its call is given up. Only tokens count: a server can send other things for ever."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scope_edge.providers.openai.stream import Chunk

_CHARACTERS_PER_TOKEN = 4
# Fields beside the text that say nothing by themselves.
_LABELS = ("id", "type", "role", "index")


@dataclass(frozen=True, slots=True)
class Pace:
    """first: seconds to the first token. least: tokens per second from then on; 0 = any pace.

    pause: seconds that a server may write nothing if it was fast enough before.
    """

    first: float = math.inf
    least: float = 0.0
    pause: float = math.inf

    def due(self, now: float, due: float | None, tokens: float) -> float:
        """Return when the next token is due after some have come: each one buys time, at most `pause` in all.

        due: when these tokens were due; None = they are the first.
        """
        if not self.least:
            return math.inf
        return now + self.pause if due is None else min(now + self.pause, due + tokens / self.least)


ANY_PACE = Pace()


def tokens_in(chunk: Chunk) -> float:
    """Return about how many tokens a piece holds: 0 or at least 1. Thoughts and tool calls count."""
    size = len(chunk.text) + _size(chunk.extra)
    return max(1.0, size / _CHARACTERS_PER_TOKEN) if size else 0.0


def _size(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(_size(part) for name, part in value.items() if name not in _LABELS)
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, str) else 0
