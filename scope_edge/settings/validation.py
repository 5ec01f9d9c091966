"""Checks of single values, wherever they come from: an argument, a variable, a line of the settings file or of a stream.

Each check returns the value as it is stored, or raises UsageError saying what is allowed. `name` is the user's word for it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence

from scope_edge.errors import UsageError


def check_alpha(value: object, name: str = "alpha") -> float:
    """Check a number from 0 to 1. Raises UsageError."""
    return _number(name, value, "a number from 0 (cheapest) to 1 (most accurate)", lambda number: 0.0 <= number <= 1.0)


def check_amount(name: str, value: object) -> float:
    """Check a finite number of at least 0: dollars, seconds. 0 and 1e308 are valid. Raises UsageError."""
    return _number(name, value, "a finite number of at least 0", lambda number: math.isfinite(number) and number >= 0)


def check_positive(name: str, value: object) -> float:
    """Check a finite number above 0. Raises UsageError."""
    if check_amount(name, value) == 0:
        raise UsageError(f"{name} must be above 0, not {shown(value)}")
    return check_amount(name, value)


def check_count(name: str, value: object, least: int = 0) -> int:
    """Check a whole number of at least `least`, finite as a float; 1e308 is valid. Raises UsageError."""

    def valid(number: float) -> bool:
        return math.isfinite(number) and number >= least and number == math.floor(number)

    number = _number(name, value, f"a finite whole number of at least {least}", valid)
    return value if isinstance(value, int) else int(number)


def check_coverage(name: str, value: object) -> float:
    """Check a share strictly between 0 and 1. Raises UsageError."""
    return _number(name, value, "a number between 0 and 1, neither included", lambda number: 0.0 < number < 1.0)


def check_keep_alive(name: str, value: object) -> float:
    """Check seconds, 0 included, or -1. Raises UsageError."""

    def valid(number: float) -> bool:
        return math.isfinite(number) and (number >= 0 or number == -1)

    return _number(name, value, "a number of seconds, 0 to drop at once, or -1 to keep for ever", valid)


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """Check that a value is one of `choices`. Raises UsageError naming them and the nearest."""
    allowed = tuple(choices)
    if isinstance(value, str) and value in allowed:
        return value
    hint = suggestion(value, allowed) if isinstance(value, str) else ""
    raise UsageError(f"{name} must be one of {', '.join(allowed)}, not {shown(value)}{hint}")


def check_name(name: str, value: object) -> str:
    """Check text on one line that is not blank. Raises UsageError."""
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value.strip()
    raise UsageError(f"{name} must be text on one line, not blank, not {shown(value)}")


def check_flag(name: str, value: object) -> bool:
    """Check true or false. Raises UsageError."""
    if isinstance(value, bool):
        return value
    raise UsageError(f"{name} must be true or false, not {shown(value)}")


def _number(name: str, value: object, allowed: str, valid: Callable[[float], bool]) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            if valid(number := float(value)):
                return number
    raise UsageError(f"{name} must be {allowed}, not {shown(value)}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" when one of `known` is near to `word`, else an empty text."""
    found = near(word.lower(), known, cutoff=0.6)
    return f"; did you mean {found}?" if found else ""


def label(name: str) -> str:
    """Return a name fit for a one-line message, quoted where it would break the line."""
    return name if name.isprintable() else repr(name)


def shown(value: object) -> str:
    """Return a value in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def join_some(names: Sequence[str], most: int) -> str:
    """Join names with commas, the first `most` of them: "a, b and 3 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def near(word: str, known: Iterable[str], cutoff: float) -> str | None:
    """Return the known word nearest to a word, None below the cutoff."""
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)
