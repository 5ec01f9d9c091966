"""What a cell of somebody's table says. What it does not say is missing; what it cannot say is an error."""

from __future__ import annotations

import contextlib
import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO

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


# Lines of a text file that somebody made, in bounded memory.

# A line, in characters.
MAX_LINE = 2**20


def lines_of(path: Path, most: int, longest: int = MAX_LINE) -> Iterator[str]:
    """The lines of a file, unpacked if it is gzip; at most `most` characters in all, `longest` in one.

    Raises AssetError (cannot be read, too large); ValueError, EOFError or zlib.error where its content is damaged.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
                yield from _bounded(file, path, most, longest)
        else:
            with path.open(encoding="utf-8", newline="") as file:
                yield from _bounded(file, path, most, longest)
    except gzip.BadGzipFile as error:
        raise unreadable(path, error) from error
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); is this the right one?") from error


def unreadable(path: Path, error: Exception) -> AssetError:
    """The error for content that is damaged."""
    reason = " ".join(str(error).split())[:200]
    return AssetError(f"{path}: cannot be read ({reason}); get a fresh copy")


def _bounded(file: IO[str], path: Path, most: int, longest: int) -> Iterator[str]:
    total = 0
    while line := file.readline(longest + 1):
        total += len(line)
        if len(line) > longest or total > most:
            raise AssetError(f"{path}: a line over {longest} characters, or over {most} in all; part it")
        yield line
