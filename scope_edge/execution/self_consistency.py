"""Self-consistency: an answer on the device is sampled twice, and a model that contradicts itself is not trusted.

Both samples are decoded together; that still takes up to twice the time, and nothing can be shown before both are whole.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scope_edge.errors import AssetError, BudgetError, ProviderError

if TYPE_CHECKING:
    from scope_edge.execution.call import Call
    from scope_edge.execution.request import Request
    from scope_edge.providers.openai.stream import Piece

Verdict = Literal["same", "differ", "unchecked"]


@dataclass(frozen=True, slots=True)
class SelfConsistency:
    """The first answer's pieces, and whether the second agrees. why: the reason if the second is missing."""

    pieces: tuple[Piece, ...]
    verdict: Verdict
    why: str = ""


def worth_checking(request: Request) -> bool:
    """Return whether a second sample could differ and be compared: not at temperature 0, not with tools."""
    return request.verify >= 2 and request.fields.get("temperature") != 0 and not request.fields.get("tools")


def read_twice(first: Call, second: Call, request: Request, agree: Callable[[str, str], bool]) -> SelfConsistency:
    """Read both answers whole and compare them. Raises what `begin` and `pieces` of the first call raise."""
    with ThreadPoolExecutor(1, "second sample") as beside:
        other, read = beside.submit(_whole, second, request), False
        try:
            first.begin(request, request.fields)
            pieces = tuple(first.pieces())
            read = True
        finally:
            if not read:
                second.end()
        problem = other.result()
    if problem is not None:
        return SelfConsistency(pieces, "unchecked", problem)
    return SelfConsistency(pieces, "same" if agree(first.text, second.text) else "differ")


def _whole(call: Call, request: Request) -> str | None:
    """Read an answer to its end. Return why it is missing, or None."""
    try:
        seed = request.fields.get("seed")
        call.begin(request, {**request.fields, "seed": (seed if type(seed) is int else 0) + 1})
        for _ in call.pieces():
            pass
    except (ProviderError, BudgetError, AssetError) as error:
        return str(error)
    return None
