"""What a value must be, wherever it came from: an argument, a variable, a line of the settings file or of a stream.

Each check gives the value as it is stored, or raises UsageError saying what is allowed. `name` is what the user called it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence

from scope_edge.errors import UsageError


def check_alpha(value: object, name: str = "alpha") -> float:
    """A number from 0 to 1. Raises UsageError."""
    number = _number(name, value, "a number from 0 (cheapest) to 1 (most accurate)")
    if not 0.0 <= number <= 1.0:
        raise UsageError(f"{name} must be a number from 0 (cheapest) to 1 (most accurate), not {shown(value)}")
    return number


def check_amount(name: str, value: object) -> float:
    """A finite number of at least 0: dollars, seconds. 0 and 1e308 are valid. Raises UsageError."""
    allowed = "a finite number of at least 0"
    number = _number(name, value, allowed)
    if not (math.isfinite(number) and number >= 0):
        raise UsageError(f"{name} must be {allowed}, not {shown(value)}")
    return number


def check_count(name: str, value: object, least: int = 0) -> int:
    """A whole number of at least `least`, finite as a float; 1e308 is one. Raises UsageError."""
    allowed = f"a finite whole number of at least {least}"
    number = _number(name, value, allowed)
    if not (math.isfinite(number) and number >= least and number == math.floor(number)):
        raise UsageError(f"{name} must be {allowed}, not {shown(value)}")
    return value if isinstance(value, int) else int(number)


def check_coverage(name: str, value: object) -> float:
    """A share strictly between 0 and 1. Raises UsageError."""
    number = _number(name, value, "a number between 0 and 1")
    if not 0.0 < number < 1.0:
        raise UsageError(f"{name} must be a number between 0 and 1, neither included, not {shown(value)}")
    return number


def check_keep_alive(name: str, value: object) -> float:
    """Seconds, 0 included, or -1. Raises UsageError."""
    allowed = "a number of seconds, 0 to drop at once, or -1 to keep for ever"
    number = _number(name, value, allowed)
    if not (math.isfinite(number) and (number >= 0 or number == -1)):
        raise UsageError(f"{name} must be {allowed}, not {shown(value)}")
    return number


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """One of `choices`. Raises UsageError naming them and the nearest."""
    allowed = tuple(choices)
    if isinstance(value, str) and value in allowed:
        return value
    hint = suggestion(value, allowed) if isinstance(value, str) else ""
    raise UsageError(f"{name} must be one of {', '.join(allowed)}, not {shown(value)}{hint}")


def check_name(name: str, value: object) -> str:
    """Text that is not blank, on one line. Raises UsageError."""
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value.strip()
    raise UsageError(f"{name} must be text on one line, not blank, not {shown(value)}")


def check_flag(name: str, value: object) -> bool:
    """True or false. Raises UsageError."""
    if isinstance(value, bool):
        return value
    raise UsageError(f"{name} must be true or false, not {shown(value)}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """The words "; did you mean X?" when one of `known` is near to `word`, else nothing."""
    found = near(word.lower(), known, cutoff=0.6)
    return f"; did you mean {found}?" if found else ""


def label(name: str) -> str:
    """A name fit for a one-line message: as it is, or quoted where it would break the line."""
    return name if name.isprintable() else repr(name)


def _number(name: str, value: object, allowed: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    raise UsageError(f"{name} must be {allowed}, not {shown(value)}")


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def join_some(names: Sequence[str], most: int) -> str:
    """Join names with commas, the first `most` of them: "a, b and 3 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def near(word: str, known: Iterable[str], cutoff: float) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)
