"""Text from standard input and files: UTF-8, and never more of it in memory than a query may have."""

from __future__ import annotations

import contextlib
import select
import sys
from collections import deque
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import cast

from scope_edge.errors import UsageError

# A character takes up to 4 bytes.
_BYTES_PER_CHARACTER = 4
STANDARD_INPUT = "standard input"
_CHUNK = 1 << 16


@contextlib.contextmanager
def opened(path: str) -> Iterator[tuple[BufferedIOBase, str]]:
    """A file, or standard input for "-", and what to call it. Raises UsageError when it cannot be opened or read."""
    if path == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed; give a text or a file")
        yield cast(BufferedIOBase, sys.stdin.buffer), STANDARD_INPUT
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


def query_text(text: str | None) -> str | None:
    """A text as an option gives it: itself, or what standard input holds for "-". Raises UsageError as `read_text`."""
    if text != "-":
        return text
    from scope_edge.router import MAX_QUERY_CHARACTERS

    return read_text("-", MAX_QUERY_CHARACTERS)


class LineReader:
    """The lines of a file as they come, and whether there is one to read now. No more than one line is held back.

    Iterating gives (line number from 1, its bytes), None for a line of more than `most_bytes`; it raises UsageError when
    reading fails.
    """

    def __init__(self, file: BufferedIOBase, name: str, most_bytes: int) -> None:
        self._file, self._name, self._most_bytes = file, name, most_bytes
        self._lines: deque[bytes | None] = deque()
        self._parts: list[bytes] = []
        self._size = self._read = 0
        self._ended = False

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        return self

    def __next__(self) -> tuple[int, bytes | None]:
        while not self._lines:
            if self._ended:
                raise StopIteration
            self._fill()
        self._read += 1
        return self._read, self._lines.popleft()

    def ready(self, seconds: float) -> bool:
        """Whether a line, or the end, can be had within about `seconds`; where nobody can tell (Windows), yes."""
        while not self._lines and not self._ended:
            try:
                if not select.select([self._file], [], [], seconds)[0]:
                    return False
            except (OSError, ValueError):
                return True
            self._fill()
        return True

    def _fill(self) -> None:
        """Wait for the file's next bytes and take the lines out of them."""
        try:
            chunk = self._file.read1(_CHUNK)
        except OSError as error:
            raise _unreadable(self._name, error) from error
        if not chunk:
            self._ended = True
            if self._size:
                self._end_line()
            return
        first, *others = chunk.split(b"\n")
        self._add(first)
        for piece in others:
            self._end_line()
            self._add(piece)

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        self._parts.append(piece)
        if self._size > self._most_bytes:
            self._parts.clear()

    def _end_line(self) -> None:
        self._lines.append(None if self._size > self._most_bytes else b"".join(self._parts))
        self._parts.clear()
        self._size = 0


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
