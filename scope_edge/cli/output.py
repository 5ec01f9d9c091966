"""Printing: results go to standard output at once, everything else to standard error."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import click

from scope_edge.cli.format import clipped, duration, facts, grid, is_terminal, plural, screen_width
from scope_edge.errors import ScopeEdgeError

# Characters of at most four bytes each, so that a piece fits Python's smallest buffer.
_PIECE = 2048
_SECONDS_BETWEEN = 0.1
_SECONDS_BETWEEN_LINES = 30.0


def out(text: str) -> None:
    """Print text for people, in colour if the terminal supports it. Raises BrokenPipeError if the output was closed."""
    with _output_errors():
        click.echo(text)


def out_line(text: str) -> None:
    """Print a line for programs, complete even if a signal arrives in the middle of it. Raises as `out`."""
    if sys.stdout is not None:
        with _output_errors():
            _write_pieces(text + "\n")


def out_piece(text: str) -> None:
    """Print a piece of a model's answer. On a terminal, control characters are escaped. Raises as `out`."""
    if sys.stdout is None:
        return
    if is_terminal(sys.stdout):
        text = "".join(one if one.isprintable() or one in "\n\t" else repr(one)[1:-1] for one in text)
    with _output_errors():
        _write_pieces(text)


def out_json(body: Any) -> None:
    """Print an object on one line of ASCII JSON, which no terminal or pipe can garble."""
    import json

    out_line(json.dumps(body, allow_nan=False))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, as `format.grid` makes it, under a dimmed head."""
    head, *lines = grid(titles, rows)
    out("\n".join([click.style(head, dim=True), *lines]))


def print_facts(values: Mapping[str, str]) -> None:
    """Print names and values below each other, each on one line, without those that have no value."""
    if lines := facts({name: one_line(value) for name, value in values.items()}):
        out("\n".join(lines))


def flush() -> None:
    """Flush standard output. Raises as `out`."""
    if sys.stdout is not None:
        with _output_errors():
            sys.stdout.flush()


def one_line(text: str) -> str:
    """Return text of unknown origin on one line, its control characters escaped."""
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


def _write_pieces(text: str) -> None:
    # CPython loses 8 kB of a write that is larger than its buffer when a signal interrupts it (seen in 3.11 on Linux).
    for start in range(0, len(text), _PIECE):
        sys.stdout.write(text[start : start + _PIECE])
        sys.stdout.flush()


@contextlib.contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Windows says EINVAL where others say EPIPE.
        if isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL):
            raise BrokenPipeError(*error.args) from error
        raise ScopeEdgeError(
            f"the output cannot be written ({error.strerror or error}); check where it goes"
        ) from error


class Interruptions:
    """While it is active, Ctrl-C waits for the line being printed, so that a full pipe gets whole lines. A second Ctrl-C does not."""

    def __init__(self) -> None:
        self._printing = self._requested = False
        self._before: Any = None

    def __enter__(self) -> Interruptions:
        # Only the main thread is interrupted and may set signal handlers.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Delay an interruption until the end of the block, then raise KeyboardInterrupt."""
        self._printing = True
        try:
            yield
        finally:
            self._printing = False
        if self._requested:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._printing and not self._requested:
            self._requested = True
        else:
            raise KeyboardInterrupt


class ProgressLine:
    """One line on standard error that shows the progress of a long job. It is removed at the end of the block.

    Without a terminal, as in a log file, a line is printed every half minute and stays. Call it with the step, the amount done
    and the total.
    """

    def __init__(self, *, announce: bool = False) -> None:
        """announce: without a terminal, print the first line at once: the job will take long."""
        self._terminal = is_terminal(sys.stderr)
        self._what, self._written = "", False
        self._next = 0.0 if self._terminal or announce else time.monotonic() + _SECONDS_BETWEEN_LINES

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._written:
            self._write("\r\033[K")

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show a step of which `done` of `total` is finished."""
        share = f"{100 * min(done / total, 1):3.0f} %" if total > 0 else ""
        size = f" of {total / 1e9:.1f} GB" if total >= 1e8 else ""
        text = clipped(one_line(what), screen_width() - 20) + f": {share}{size}"
        self.show(text, always=what != self._what or done >= total)
        self._what = what

    def count(self, done: int, total: int, word: str, seconds_left: float | None, *more: str) -> None:
        """Show "3 of 9 questions, about 2 minutes left", and `more`."""
        left = [] if seconds_left is None else [f"about {duration(seconds_left)} left"]
        self.show(", ".join([f"{done} of {plural(total, word)}", *left, *more]), always=True)

    def show(self, text: str, *, always: bool = False) -> None:
        """Show a text, at most ten times a second unless `always` is true; without a terminal, at most every half minute."""
        now = time.monotonic()
        if not self._terminal:
            if now >= self._next:
                self._next = now + _SECONDS_BETWEEN_LINES
                self._write(f"{one_line(text)}\n")
        elif always or now >= self._next:
            self._next, self._written = now + _SECONDS_BETWEEN, True
            self._write("\r\033[K" + clipped(one_line(text), screen_width() - 1))

    def _write(self, line: str) -> None:
        # If standard error is closed, the line is not needed.
        with contextlib.suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.write(line)
                sys.stderr.flush()
