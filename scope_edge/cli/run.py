"""One run of the command line: its exit code, and errors as one line on standard error.

Exit codes: 0 ok, 1 unexpected, 2 usage, 3 infeasible, 4 some lines failed, 5 missing or damaged file, 130 interrupted,
141 the output was closed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from types import TracebackType

import click

from scope_edge.cli.group import PROGRAM, root
from scope_edge.cli.output import flush, one_line, out
from scope_edge.errors import ScopeEdgeError

COMPLETION_VARIABLE = "_SCOPE_EDGE_COMPLETE"
DEBUG_VARIABLE = "SCOPE_EDGE_DEBUG"
USAGE, INTERRUPTED, PIPE_CLOSED = 2, 130, 141


def run(args: Sequence[str]) -> int:
    """Run one command and return its exit code. An unexpected exception is raised; the hook shows it in one line."""
    _prepare()
    try:
        code = _invoke(args)
        flush()
    except ScopeEdgeError as error:
        return complain(str(error), error.exit_code)
    except click.ClickException as error:
        return complain(_usage(error), USAGE)
    except (KeyboardInterrupt, click.Abort):
        with contextlib.suppress(OSError, ScopeEdgeError):
            flush()
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return PIPE_CLOSED
    return code


def complain(message: str, code: int) -> int:
    """Print a message as one line on standard error and return the exit code."""
    with contextlib.suppress(OSError):
        click.echo(f"{PROGRAM}: {one_line(message)}", err=True)
    return code


def _invoke(args: Sequence[str]) -> int:
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(root, {}, PROGRAM, COMPLETION_VARIABLE, instruction)
    try:
        # A copy, since click empties it.
        with root.make_context(PROGRAM, list(args) or ["--help"]) as context:
            context.color = _color()
            root.invoke(context)
    except click.exceptions.Exit as ending:
        # Without arguments the help is shown; the exit code tells a script that its arguments got lost.
        return ending.exit_code if args else USAGE
    except click.UsageError as error:
        # The same for a group without a command, where click (since 8.2) raises the whole help as an error.
        if type(error).__name__ != "NoArgsIsHelpError" or error.ctx is None:
            raise
        out(error.ctx.get_help())
        return USAGE
    return 0


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else PROGRAM
    return f"{error.format_message().rstrip('.')}; see `{path} --help`"


def _prepare() -> None:
    """Escape characters that the terminal cannot show, and show tracebacks only if the debug variable is set."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if not os.environ.get(DEBUG_VARIABLE):
        sys.excepthook = _one_line


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    place = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f" in {os.path.basename(code.co_filename)}:{trace.tb_lineno}"  # noqa: PTH119 - no pathlib in a crash
        trace = trace.tb_next
    complain(f"unexpected {kind.__name__}{place}: {error}; {DEBUG_VARIABLE}=1 shows where it came from", 1)


def _forget_output() -> None:
    """Discard the buffered output: the output was closed, and flushing it at exit would raise."""
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(null, sys.stdout.fileno())


def _color() -> bool | None:
    """Return False if the environment turns colours off; None = only on a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None
