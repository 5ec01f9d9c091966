"""Records as JSON knows them: plain types by field name, and None for what is no number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scope_edge.records import Run


def row(record: Any) -> dict[str, Any] | None:
    """A flat record's fields by name, in order; None stays None."""
    return None if record is None else {name: plain(getattr(record, name)) for name in record.__slots__}


def run_body(run: Run) -> dict[str, Any]:
    """Give the documented JSON object of a run (docs/json.md)."""
    body = {name: plain(getattr(run, name)) for name in run.__slots__ if name != "attempts"}
    return body | {"attempts": [row(one) for one in run.attempts]}


def plain(value: Any) -> Any:
    """The value as JSON knows it: numpy's numbers as Python's, and None for what is no number."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
