"""What templates are made of: numbers drawn from a seed, the same on every machine and Python, and the draft they fill."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from scope_edge.estimation.anchor_spec import Kind

T = TypeVar("T")


class Draws:
    """A stream of draws. `random` promises no fixed stream across releases; sha256 of a counter does."""

    def __init__(self, name: str, seed: int) -> None:
        self._name = f"{name}:{seed}"
        self._count = 0

    def whole(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        self._count += 1
        digest = hashlib.sha256(f"{self._name}:{self._count}".encode()).digest()
        # 64 bits over a small range: what is uneven about it is far below what anyone could see.
        return low + int.from_bytes(digest[:8], "big") % (high - low + 1)

    def pick(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[self.whole(0, len(values) - 1)]

    def some(self, values: Sequence[T], n: int) -> list[T]:
        """n different ones of the values, in drawn order."""
        left = list(values)
        return [left.pop(self.whole(0, len(left) - 1)) for _ in range(n)]


@dataclass(frozen=True, slots=True)
class QuestionDraft:
    """What a template made of its draws.

    Attributes:
        tempting: plausible wrong answers. facts: the drawn numbers, for whoever works the key out another way.
        more: further fields of `AnchorSpec`.
    """

    question: str
    key: str
    tempting: tuple[str, ...]
    facts: Mapping[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QuestionTemplate:
    """A question with blanks, and how to fill them and work out the key."""

    id: str
    field: str
    tier: int
    kind: Kind
    fill: Callable[[Draws], QuestionDraft]
