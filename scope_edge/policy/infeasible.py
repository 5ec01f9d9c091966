"""One line on the limit that left no model to choose, with the smallest value that is enough."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scope_edge.types import BindingConstraint

_UNSIZED = {
    "exclude": "every model that could be chosen is excluded; exclude fewer",
    "reference": "no model of this pool can be called; `scope-edge models add` adds one that can",
    "needs": "no model of this pool is known to support what the request needs; `supports` on a card says what its model can do",
    "model": "the model that was asked for is not in this pool",
    "cannot_load": "no model that could be chosen can be loaded on this machine; `scope-edge doctor` says why",
}


def explain_infeasible(bound: BindingConstraint | None, spelled: Callable[[str], str] = str) -> str:
    """Explain the limit. spelled: turns a setting's name into the reader's spelling, such as an option."""
    if bound is None:
        return "no model may be chosen"
    if bound.limit == "local_only":
        lift = f"lift {spelled('local_only')} or offline"
        return f"no model on the device can be chosen, and only those may; add one to the pool, or {lift}"
    if bound.limit in _UNSIZED:
        return _UNSIZED[bound.limit]
    if bound.limit == "context":
        need = f"{round_up(bound.needed or 0.0)} tokens are needed where the context length is {round_up(bound.value or 0.0)}"
        return f"too long for every model: {need}; shorten the query"
    limit, value = spelled(bound.limit), f"{bound.value or 0.0:.10g}"
    if bound.needed is None and bound.limit == "max_seconds":
        return (
            f"no model is known to keep to {limit} {value}: the speed of every model within the other limits is unknown;"
            " an answer of a GGUF measures it, `scope-edge fingerprint` that of any model"
        )
    if bound.needed is None:
        return f"no model is known to keep to {limit} {value}; a limit holds for known values only"
    return f"no model keeps to {limit} {value}; {limit} {round_up(bound.needed)} is enough"


def round_up(value: float, digits: int = 3) -> str:
    """Round a limit that is enough up to `digits` digits, so that it still does when typed in."""
    exact = Decimal(repr(float(value)))
    if not exact:
        return "0"
    step = Decimal(1).scaleb(min(exact.adjusted() - digits + 1, 0))
    rounded = exact.quantize(step, ROUND_CEILING) if exact.adjusted() < 20 else exact
    return plainly(rounded) if abs(rounded.adjusted()) < 15 else f"{float(rounded)!r}"


def plainly(value: Decimal) -> str:
    """Write a number out, without trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
