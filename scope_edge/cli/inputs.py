"""Input of the commands: a query as an argument, from standard input or a file, and moments such as 30d."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from scope_edge.cli import format
from scope_edge.cli.options import AnyParamType, Command
from scope_edge.cli.run import complain
from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from scope_edge.router import Router
    from scope_edge.settings.config import Settings

_AGO = re.compile(r"(\d{1,6})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@contextlib.contextmanager
def opened(path: str) -> Iterator[tuple[BufferedIOBase, str]]:
    """Open a file, or standard input for "-", and give it with its name for messages. Raises UsageError."""
    if path == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed; give a text or a file")
        yield cast(BufferedIOBase, sys.stdin.buffer), "standard input"
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - opening and using fail in different words
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    with file:
        yield file, path


def read_text(path: str) -> str:
    """Return the text of a file, or of standard input for "-", without its byte order mark and last line break.

    Reads at most what a query may have. Raises UsageError: unreadable, too long, not UTF-8.
    """
    from scope_edge.pipeline import MAX_QUERY_CHARACTERS

    with opened(path) as (file, name):
        limit = MAX_QUERY_CHARACTERS * 4  # bytes: a character takes up to four
        try:
            raw = file.read(limit + 1)
        except OSError as error:
            raise unreadable(name, error) from error
    if len(raw) > limit:
        raise UsageError(f"{name}: longer than the {MAX_QUERY_CHARACTERS} characters a query may have; shorten it")
    return decoded(raw, name).removesuffix("\n").removesuffix("\r")


def query_text(text: str | None) -> str | None:
    """Return the text of an option, or what standard input holds if it is "-". Raises UsageError as `read_text`."""
    return read_text("-") if text == "-" else text


def decoded(raw: bytes, name: str) -> str:
    """Decode UTF-8 without a byte order mark. Raises UsageError naming the first byte that is not UTF-8."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name}: not UTF-8 text (byte 0x{raw[error.start]:02x} at offset {error.start}); convert it to UTF-8"
        ) from error


def unreadable(name: str, error: OSError | ValueError) -> UsageError:
    """Return the error for a file that cannot be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UsageError(f"{name}: cannot be read ({reason}); give another file, or - for standard input")


def query_options(verb: str) -> Callable[[Command], Command]:
    """Return a decorator that adds `texts`, `file` and `system`. verb: what the command does with the text."""

    def given(command: Command) -> Command:
        for option in (
            click.option(
                "--system",
                metavar="TEXT",
                callback=_checked,
                help="A system prompt for the model. Only its length counts for the choice.",
            ),
            click.option("--file", metavar="F", type=click.Path(), help=f"{verb.capitalize()} the text of a file."),
            click.argument("texts", metavar="[TEXT | -]", nargs=-1),
        ):
            command = option(command)
        return command

    return given


def read_query(texts: tuple[str, ...], file: str | None, system: str | None, verb: str) -> str:
    """Return the text: an argument, standard input for "-", or a file. Raises UsageError, also if it is blank or too long."""
    from scope_edge.pipeline import check_query
    from scope_edge.types import Query

    if len(texts) + (file is not None) > 1:
        raise several(file)
    if file is None and not texts:
        raise UsageError(
            f'nothing to {verb}; give a text, as in `scope-edge {verb} "Why is the sky blue?"`,'
            " or - to read it from standard input"
        )
    path = "-" if file is None and texts == ("-",) else file
    text = _in_utf8(texts[0], "the text") if path is None else read_text(path)
    check_query(Query(text, system=system))
    return text


@contextlib.contextmanager
def local_router(settings: Settings) -> Iterator[Router]:
    """Load a router in this process. At the end, report a journal that could not be written; that is not an error."""
    from scope_edge.router import Router

    with Router(settings) as router:
        yield router
        if router.journal_problem is not None:
            complain(router.journal_problem, 0)


def several(file: str | None, jsonl: str | None = None) -> UsageError:
    """Return the error for more than one query."""
    if file is None and jsonl is None:
        return UsageError('more than one text; put the text in quotes, as in "Why is the sky blue?"')
    return UsageError(f"give one of: a text, - for standard input, --file{'' if jsonl is None else ', --jsonl'}")


def _checked(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return None if value is None else _in_utf8(value, "--system")


def _in_utf8(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{name}: not UTF-8 (at character {error.start}); convert it, or put it in a file") from error
    return text


def confirmed(question: str, yes: bool) -> bool:
    """Ask for confirmation on a terminal. Raises UsageError if there is no terminal and --yes is not given."""
    if yes:
        return True
    if not format.is_terminal(sys.stdin):
        raise UsageError(f"{question}? Without a terminal this cannot be confirmed; give --yes")
    return click.confirm(f"{question}?", err=True)


class Moment(AnyParamType):
    """A date, a time or an age, as a moment in this machine's time zone."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the moment. Raises UsageError."""
        if isinstance(value, datetime):
            return value
        try:
            if found := _AGO.fullmatch(value.strip().lower()):
                return datetime.now().astimezone() - int(found[1]) * _UNITS[found[2]]
            return datetime.fromisoformat(value.strip()).astimezone()
        except (ValueError, OverflowError, OSError) as error:
            named = param.opts[0] if param is not None else "the moment"
            allowed = "a date as in 2026-01-31, or an age as in 12h, 30d or 8w"
            raise UsageError(f"{named} must be {allowed}, not {value[:60]!r}") from error
