"""Numbers drawn from a seed, the same on every machine and Python, and the templates that use them."""

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
        """Draw an integer from low to high, both included."""
        self._count += 1
        digest = hashlib.sha256(f"{self._name}:{self._count}".encode()).digest()
        # 64 bits over a small range: the bias is far too small to matter.
        return low + int.from_bytes(digest[:8], "big") % (high - low + 1)

    def pick(self, values: Sequence[T]) -> T:
        """Draw one of the values."""
        return values[self.whole(0, len(values) - 1)]

    def some(self, values: Sequence[T], n: int) -> list[T]:
        """Draw n different values, in drawn order."""
        left = list(values)
        return [left.pop(self.whole(0, len(left) - 1)) for _ in range(n)]


@dataclass(frozen=True, slots=True)
class QuestionDraft:
    """A filled template.

    Attributes:
        tempting: plausible wrong answers. facts: the drawn numbers, for checking the key another way.
        more: further fields of `AnchorSpec`.
    """

    question: str
    key: str
    tempting: tuple[str, ...]
    facts: Mapping[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QuestionTemplate:
    """A question with blanks. fill: fills them and works out the key."""

    id: str
    field: str
    tier: int
    kind: Kind
    fill: Callable[[Draws], QuestionDraft]
