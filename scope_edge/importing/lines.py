"""Lines of a text file that somebody made, in bounded memory."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from scope_edge.errors import AssetError

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
