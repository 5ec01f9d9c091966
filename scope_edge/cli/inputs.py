"""Text from standard input and files: UTF-8, and never more of it in memory than a query may have."""

from __future__ import annotations

import contextlib
import json
import re
import select
import sys
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import click

from scope_edge.cli.options import AnyParamType
from scope_edge.cli.run import complain
from scope_edge.errors import UsageError
from scope_edge.execution.request import PREFERENCES
from scope_edge.pipeline import MAX_QUERY_CHARACTERS, check_query
from scope_edge.settings.validation import suggestion
from scope_edge.types import Query

if TYPE_CHECKING:
    from scope_edge.router import Router
    from scope_edge.settings.config import Settings

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
    from scope_edge.pipeline import MAX_QUERY_CHARACTERS

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


# What `route` and `ask` share: the query as one argument, standard input or a file, and the router of this process.

Command = TypeVar("Command", bound=Callable[..., Any])
_SYSTEM = "A system prompt that goes along; it costs tokens but is not what is asked."


def query_options(verb: str) -> Callable[[Command], Command]:
    """Give a command `texts`, `file` and `system`. verb: what it does with the text."""

    def given(command: Command) -> Command:
        for option in (
            click.option("--system", metavar="TEXT", callback=_checked, help=_SYSTEM),
            click.option("--file", metavar="F", type=click.Path(), help=f"{verb.capitalize()} the text of a file."),
            click.argument("texts", metavar="[TEXT | -]", nargs=-1),
        ):
            command = option(command)
        return command

    return given


def read_query(texts: tuple[str, ...], file: str | None, system: str | None, verb: str) -> str:
    """Return the text: an argument, standard input for "-", or a file. Raises UsageError, also for a blank or too long one."""
    from scope_edge.pipeline import MAX_QUERY_CHARACTERS, check_query
    from scope_edge.types import Query

    if len(texts) + (file is not None) > 1:
        raise several(texts, file)
    if file is None and not texts:
        raise UsageError(
            f'nothing to {verb}; give a text, as in `scope-edge {verb} "Why is the sky blue?"`,'
            " or - to read it from standard input"
        )
    if file is not None or texts == ("-",):
        text = read_text(file if file is not None else "-", MAX_QUERY_CHARACTERS)
    else:
        text = _in_utf8(texts[0], "the text")
    check_query(Query(text, system=system))
    return text


@contextlib.contextmanager
def local_router(settings: Settings) -> Iterator[Router]:
    """Load a router that decides in this process. A journal that could not be written is reported at the end, and is no error."""
    from scope_edge.router import Router

    with Router(settings) as router:
        yield router
        if router.journal_problem is not None:
            complain(router.journal_problem, 0)


def several(texts: tuple[str, ...], file: str | None, jsonl: str | None = None) -> UsageError:
    """More than one query is given."""
    if file is None and jsonl is None:
        return UsageError('more than one text; put the text in quotes, as in "Why is the sky blue?"')
    return UsageError(f"give one of: a text, - for standard input, --file{'' if jsonl is None else ', --jsonl'}")


def _checked(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return None if value is None else _in_utf8(value, "--system")


def _in_utf8(text: str, name: str) -> str:
    """The text, where the command line had it in UTF-8. Raises UsageError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{name}: not UTF-8 (at character {error.start}); convert it, or put it in a file") from error
    return text


# Moments on the command line: a date, a time, or how long ago.

_AGO = re.compile(r"(\d{1,6})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
ALLOWED = "a date as in 2026-01-31, or an age as in 12h, 30d or 8w"


class Moment(AnyParamType):
    """A moment in this machine's time zone."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The moment. Raises UsageError."""
        if isinstance(value, datetime):
            return value
        named = param.opts[0] if param is not None else "the moment"
        try:
            if found := _AGO.fullmatch(value.strip().lower()):
                return datetime.now().astimezone() - int(found[1]) * _UNITS[found[2]]
            return datetime.fromisoformat(value.strip()).astimezone()
        except (ValueError, OverflowError, OSError) as error:
            raise UsageError(f"{named} must be {ALLOWED}, not {value[:60]!r}") from error


# Queries without labels, out of a file: one a line, as plain text or as `route --jsonl` reads them.


def read_queries(path: str) -> Iterator[Query]:
    """The queries of a file, or of standard input for "-". A line that begins with { is a JSON object, whose "text" and
    "system" count; of its other keys nothing does. Blank lines are skipped.

    Raises UsageError, naming the line that cannot be used: a query left out would change what is found without a sign.
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
    if raw is None:
        raise UsageError(f"longer than the {MAX_LINE_BYTES} bytes a line may have")
    text = decoded(raw, "the line").strip()
    if not text:
        return None
    query = Query(text)
    if text.startswith("{"):
        query = _from_object(raw)
    check_query(query)
    return query


def _from_object(raw: bytes) -> Query:
    fields = parse_line(raw)
    for key in fields:
        if key not in KEYS:
            raise UsageError(f"{key!r} is not a key of a line{suggestion(key, KEYS)}; the keys are {', '.join(KEYS)}")
    text, system = fields.get("text"), fields.get("system")
    if not isinstance(text, str):
        raise UsageError('a line needs a "text", which is a string')
    if system is not None and not isinstance(system, str):
        raise UsageError("system must be a string")
    return Query(text, system=system)


KEYS = ("text", "id", "system", "exclude", *PREFERENCES)


# As many bytes as the longest query may have in UTF-8.
MAX_LINE_BYTES = 4 * MAX_QUERY_CHARACTERS


def parse_line(raw: bytes) -> dict[str, Any]:
    """The JSON object of a line. Raises UsageError: not UTF-8, not JSON, not an object, a key twice."""
    try:
        value = json.loads(decoded(raw, "the line"), object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError as error:
        raise UsageError("not JSON that makes sense: nested too deep") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"not JSON: {error.msg} (character {error.pos})") from error
    except ValueError as error:
        # Python reads no whole numbers of thousands of digits.
        raise UsageError("not JSON that makes sense: a number of too many digits") from error
    if not isinstance(value, dict):
        raise UsageError('a line must be a JSON object, as in {"text": "Why is the sky blue?"}')
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise UsageError(f"key {key!r} twice")
        found[key] = value
    return found


def _constant(name: str) -> NoReturn:
    raise UsageError(f"not JSON: {name}")
