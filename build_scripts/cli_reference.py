"""Write the reference part of docs/cli.md from the commands' own --help. A test checks that it has not drifted.

python build_scripts/cli_reference.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from scope_edge.cli.group import PROGRAM, root

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
MARK = "<!-- From here on written by build_scripts/cli_reference.py: change the help texts, then run it. -->"
_WIDTH = 100


def reference() -> str:
    """Every command with its help, in the order of --help."""
    return "\n".join(section for path, command in _commands(root, PROGRAM) for section in _section(path, command))


def page(text: str) -> str:
    """The page with its reference written anew. Raises ValueError when the mark is not in it."""
    head, mark, _ = text.partition(MARK)
    if not mark:
        raise ValueError(f"{PAGE} has no line {MARK!r} to write below")
    return f"{head}{MARK}\n\n{reference()}"


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None  # it has just been listed
            yield from _commands(found, f"{path} {name}")


def _section(path: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=path, terminal_width=_WIDTH, help_option_names=["-h", "--help"])
    lines = (line.rstrip() for line in command.get_help(context).splitlines())
    yield f"## {path}\n\n```text\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    print(f"{PAGE} written")
