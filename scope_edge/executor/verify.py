"""A second look at an answer on the device: it is sampled twice, and whoever contradicts itself is not believed.

Both are asked for at once, so that the worker decodes them together; it still takes up to twice the time, and nothing can be
shown before both are whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from scope_edge.errors import AssetError, BudgetError
from scope_edge.executor.contracts import Unanswered

if TYPE_CHECKING:
    from scope_edge.chat.stream import Piece
    from scope_edge.executor.call import Call
    from scope_edge.executor.contracts import Agreement
    from scope_edge.executor.request import Request

Verdict = Literal["same", "differ", "unchecked"]


@dataclass(frozen=True, slots=True)
class Checked:
    """The first answer's pieces, and what the second said to it; why, where it could not be asked."""

    pieces: tuple[Piece, ...]
    verdict: Verdict
    why: str = ""


def worth_checking(request: Request) -> bool:
    """Whether a second sample could differ, and be compared: not at temperature 0, not where tools are called."""
    return request.verify >= 2 and request.fields.get("temperature") != 0 and not request.fields.get("tools")


def read_twice(first: Call, second: Call, request: Request, agreement: Agreement) -> Checked:
    """Both answers, whole, and whether they say the same. Raises what `Call.begin` and `pieces` raise of the first."""
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
        return Checked(pieces, "unchecked", problem)
    return Checked(pieces, "same" if agreement.agree(first.text, second.text) else "differ")


def _whole(call: Call, request: Request) -> str | None:
    """Read an answer to its end; why there is none, in words."""
    try:
        call.begin(request, _otherwise(request.fields))
        for _ in call.pieces():
            pass
    except (Unanswered, BudgetError, AssetError) as error:
        return str(error)
    return None


def _otherwise(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same request, drawn with other luck."""
    seed = fields.get("seed")
    return {**fields, "seed": (seed if type(seed) is int else 0) + 1}
