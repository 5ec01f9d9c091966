"""Files with a query on each line: read line by line, as they arrive, within limits."""

from __future__ import annotations

import json
import select
from collections import deque
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any, NoReturn

from scope_edge.cli.inputs import decoded, opened, unreadable
from scope_edge.errors import UsageError
from scope_edge.execution.request import PREFERENCES
from scope_edge.pipeline import MAX_QUERY_CHARACTERS, check_query
from scope_edge.settings.validation import suggestion
from scope_edge.types import Query

KEYS = ("text", "id", "system", "exclude", *PREFERENCES)
# As many bytes as the longest query may have in UTF-8.
MAX_LINE_BYTES = 4 * MAX_QUERY_CHARACTERS
_CHUNK = 1 << 16
# A line that is longer will hardly end: it is a device, or another kind of file.
_ENDLESS = 1 << 30


class LineReader:
    """The lines of a file as they arrive. `ready` tells whether one can be read now. At most one line is held back.

    Iterating gives (line number from 1, its bytes), None for a line of more than `most_bytes`; it raises UsageError when
    reading fails or a line does not end.
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
        """Return whether a line, or the end, arrives within about `seconds`. Always true on Windows, which cannot tell."""
        while not self._lines and not self._ended:
            try:
                if not select.select([self._file], [], [], seconds)[0]:
                    return False
            except (OSError, ValueError):
                return True
            self._fill()
        return True

    def _fill(self) -> None:
        """Wait for the file's next bytes and split them into lines."""
        try:
            chunk = self._file.read1(_CHUNK)
        except OSError as error:
            raise unreadable(self._name, error) from error
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
        if self._size > _ENDLESS:
            raise UsageError(f"{self._name}: a line of more than {_ENDLESS} bytes; give a file of lines")

    def _end_line(self) -> None:
        self._lines.append(None if self._size > self._most_bytes else b"".join(self._parts))
        self._parts.clear()
        self._size = 0


def read_queries(path: str) -> Iterator[Query]:
    """Read queries without labels from a file, or from standard input for "-": one a line, as plain text or a JSON object.

    Of an object's keys, only "text" and "system" count. Blank lines are skipped. Raises UsageError, naming the line: a
    query left out would change the result without a sign.
    """
    with opened(path) as (file, name):
        for number, raw in LineReader(file, name, MAX_LINE_BYTES):
            try:
                query = _query(raw)
            except UsageError as error:
                raise UsageError(f"{name}, line {number}: {error}") from error
            if query is not None:
                yield query


def _query(raw: bytes | None) -> Query | None:
    raw = within_limit(raw)
    text = decoded(raw, "the line").strip()
    if not text:
        return None
    query = Query(text)
    if text.startswith("{"):
        fields = parse_line(raw)
        check_keys(fields)
        given, system = fields.get("text"), fields.get("system")
        if not isinstance(given, str):
            raise UsageError('a line needs a "text", which is a string')
        if system is not None and not isinstance(system, str):
            raise UsageError("system must be a string")
        query = Query(given, system=system)
    check_query(query)
    return query


def within_limit(raw: bytes | None) -> bytes:
    """Return a line's bytes. Raises UsageError: None, so it was too long."""
    if raw is None:
        raise UsageError(f"longer than the {MAX_LINE_BYTES} bytes a line may have")
    return raw


def parse_line(raw: bytes) -> dict[str, Any]:
    """Parse the JSON object of a line. Raises UsageError: not UTF-8, not JSON, not an object, a repeated key."""
    try:
        value = json.loads(decoded(raw, "the line"), object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError as error:
        raise UsageError("not usable JSON: nested too deep") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"not JSON: {error.msg} (character {error.pos})") from error
    except ValueError as error:
        # Python reads no whole numbers of thousands of digits.
        raise UsageError("not usable JSON: a number has too many digits") from error
    if not isinstance(value, dict):
        raise UsageError('a line must be a JSON object, as in {"text": "Why is the sky blue?"}')
    return value


def check_keys(fields: dict[str, Any]) -> None:
    """Raise UsageError if an object has a key that a line cannot have."""
    for key in fields:
        if key not in KEYS:
            raise UsageError(f"{key!r} is not a key of a line{suggestion(key, KEYS)}; the keys are {', '.join(KEYS)}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise UsageError(f"key {key!r} twice")
        found[key] = value
    return found


def _constant(name: str) -> NoReturn:
    raise UsageError(f"not JSON: {name}")
