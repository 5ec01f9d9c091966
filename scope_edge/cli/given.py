"""What `route` and `ask` share: the query as one argument, standard input or a file, and the router of this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from scope_edge.api import Router
    from scope_edge.config import Settings

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
    from scope_edge.cli.inputs import read_text
    from scope_edge.records import Query
    from scope_edge.router import MAX_QUERY_CHARACTERS, check_query

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
    from scope_edge.api import Router
    from scope_edge.cli.run import complain

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
