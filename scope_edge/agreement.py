"""Whether two answers agree: the graders' word, and the encoder's where they have none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from scope_edge.grading.agree import agree
from scope_edge.records import Query

if TYPE_CHECKING:
    from scope_edge.records import EncodedQuery


class Agreement:
    """Compares answers: an `executor.contracts.Agreement`."""

    def __init__(self, encode: Callable[[Query], EncodedQuery]) -> None:
        self._encode = encode

    def agree(self, first: str, second: str) -> bool:
        """Whether they say the same."""
        return agree(first, second, self._cosine)

    def _cosine(self, first: str, second: str) -> float:
        one, other = (self._encode(Query(text)).vector for text in (first, second))
        return float(one @ other)
