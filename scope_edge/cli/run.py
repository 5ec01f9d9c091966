"""One run of the command line: its exit code, and the one line on standard error that an error is worth.

Exit codes: 0 ok, 1 unexpected, 2 usage, 3 infeasible, 4 some lines failed, 5 missing or damaged asset, 130 interrupted,
141 the reader of our output has gone.
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
    """Run one command and give its exit code. An unexpected exception is raised, to be shown in one line at the end."""
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
    """Print one line on standard error, whatever the message holds; give the exit code back."""
    with contextlib.suppress(OSError):
        click.echo(f"{PROGRAM}: {one_line(message)}", err=True)
    return code


def _invoke(args: Sequence[str]) -> int:
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(root, {}, PROGRAM, COMPLETION_VARIABLE, instruction)
    try:
        # A list of its own, for click empties it.
        with root.make_context(PROGRAM, list(args) or ["--help"]) as context:
            context.color = _color()
            root.invoke(context)
    except click.exceptions.Exit as ending:
        # Asked for nothing, it shows its help; but a script that meant to ask for something should notice.
        return ending.exit_code if args else USAGE
    except click.UsageError as error:
        # So should it when a group is asked for nothing, where click makes an error of the whole help (since its 8.2).
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
    """Nothing printed may fail for a character the terminal has not; and no traceback unless asked for."""
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
    """Nobody reads our output any more: what is still buffered must not raise at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(null, sys.stdout.fileno())


def _color() -> bool | None:
    """False where colour is not wanted, None to leave it to whether the output is a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None
