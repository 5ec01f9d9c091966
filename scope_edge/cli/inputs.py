"""Text from standard input and files: UTF-8, and never more of it in memory than a query may have."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from scope_edge.errors import UsageError

# A character takes up to 4 bytes.
_BYTES_PER_CHARACTER = 4
STANDARD_INPUT = "standard input"


@contextlib.contextmanager
def opened(path: str) -> Iterator[tuple[BinaryIO, str]]:
    """A file, or standard input for "-", and what to call it. Raises UsageError when it cannot be opened or read."""
    if path == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed; give a text or a file")
        yield sys.stdin.buffer, STANDARD_INPUT
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - opening and using fail in different words
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    with file:
        yield file, path


def read_text(path: str, most_characters: int) -> str:
    """The text of a file, or of standard input for "-", without its byte order mark and last line break.

    Reads no further than a text of `most_characters` can reach. Raises UsageError: unreadable, too long, not UTF-8.
    """
    with opened(path) as (file, name):
        limit = most_characters * _BYTES_PER_CHARACTER
        try:
            raw = file.read(limit + 1)
        except OSError as error:
            raise _unreadable(name, error) from error
    if len(raw) > limit:
        raise UsageError(f"{name}: longer than the {most_characters} characters a query may have; shorten it")
    text = decoded(raw, name)
    return text.removesuffix("\n").removesuffix("\r")


def read_lines(file: BinaryIO, name: str, most_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """(line number from 1, its bytes) of a file, as they come; None for a line of more than `most_bytes`.

    Raises UsageError when reading fails.
    """
    line = 0
    try:
        while raw := file.readline(most_bytes + 1):
            line += 1
            if len(raw) <= most_bytes:
                yield line, raw
                continue
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(1 << 20)
            yield line, None
    except OSError as error:
        raise _unreadable(name, error) from error


def decoded(raw: bytes, name: str) -> str:
    """UTF-8 bytes as text, without a byte order mark. Raises UsageError naming the first byte that is not UTF-8."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name}: not UTF-8 text (byte 0x{raw[error.start]:02x} at offset {error.start}); convert it to UTF-8"
        ) from error


def _unreadable(name: str, error: OSError | ValueError) -> UsageError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UsageError(f"{name}: cannot be read ({reason}); give another file, or - for standard input")
