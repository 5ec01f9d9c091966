"""What a cell of somebody's table says. What it does not say is missing; what it cannot say is an error."""

from __future__ import annotations

import contextlib
import math

from scope_edge.errors import AssetError

_YES, _NO = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")


def text_of(value: object, column: str, where: str) -> str:
    """Text, or a whole number as text. Raises AssetError when there is none."""
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not text.strip():
        raise AssetError(f"{where}: {column} is {str(value)[:60]!r}, expected text; give the dataset's own files")
    return text


def correct_of(value: object, column: str, where: str) -> float | None:
    """A share in [0, 1]; None for an empty cell. Raises AssetError for anything else."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value.strip().lower() in (*_YES, *_NO):
        return float(value.strip().lower() in _YES)
    share = number_of(value, column, where)
    if share is not None and not 0 <= share <= 1:
        raise AssetError(f"{where}: {column} is {share:g}, expected true, false or a share from 0 to 1")
    return share


def number_of(value: object, column: str, where: str) -> float | None:
    """A number; None for an empty cell or NaN. Raises AssetError for anything else."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "null", "none", "nan")):
        return None
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
            if not math.isinf(number):
                return None if math.isnan(number) else number
    raise AssetError(f"{where}: {column} is {str(value)[:60]!r}, expected a number or nothing")


def given(correct: float | None, tokens: float | None) -> tuple[float | None, float | None]:
    """Outcome and tokens of an answer that may never have been given: one of no tokens is missing, not wrong.

    A right one was given, and its tokens were not counted. Tokens that come back are above 0.
    """
    if tokens is not None and tokens > 0:
        return correct, tokens
    return ((correct or None) if tokens == 0 else correct), None
