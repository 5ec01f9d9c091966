"""The query as it is given to `route` and `ask`: one argument, standard input or a file, and what goes along with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from scope_edge.errors import UsageError

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


def read_query(texts: tuple[str, ...], file: str | None, verb: str) -> str:
    """The text that is meant: an argument, standard input for "-", or a file. Raises UsageError."""
    from scope_edge.cli.inputs import read_text
    from scope_edge.router import MAX_QUERY_CHARACTERS

    if len(texts) + (file is not None) > 1:
        raise several(texts, file)
    if file is None and not texts:
        raise UsageError(
            f'nothing to {verb}; give a text, as in `scope-edge {verb} "Why is the sky blue?"`,'
            " or - to read it from standard input"
        )
    if file is not None or texts == ("-",):
        return read_text(file if file is not None else "-", MAX_QUERY_CHARACTERS)
    return _in_utf8(texts[0], "the text")


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
