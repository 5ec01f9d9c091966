"""What is printed: results on standard output, all else on standard error, both as they come."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

import click

from scope_edge.cli.format import clipped, duration, is_terminal, plural, screen_width
from scope_edge.errors import ScopeEdgeError

# Characters; of four bytes at most, so that a piece always fits the smallest buffer Python has.
_PIECE = 2048


def out(text: str) -> None:
    """Print text for people, in colour where that is wanted. Raises BrokenPipeError when nobody reads it any more."""
    try:
        click.echo(text)
    except OSError as error:
        raise _failed(error) from error


def out_line(text: str) -> None:
    """Print a line for programs, whole even when a signal comes in the middle of it. Raises as `out`."""
    if sys.stdout is None:
        return
    line = text + "\n"
    try:
        # CPython loses 8 kB of a write that is larger than its buffer when a signal interrupts it (seen in 3.11 on Linux).
        for start in range(0, len(line), _PIECE):
            sys.stdout.write(line[start : start + _PIECE])
            sys.stdout.flush()
    except OSError as error:
        raise _failed(error) from error


def out_piece(text: str) -> None:
    """Print some of a text that somebody else wrote, as it comes. On a terminal, what could steer it is spelled out."""
    from scope_edge.cli.format import is_terminal

    if sys.stdout is None:
        return
    if is_terminal(sys.stdout):
        text = "".join(one if one.isprintable() or one in "\n\t" else repr(one)[1:-1] for one in text)
    try:
        for start in range(0, len(text), _PIECE):
            sys.stdout.write(text[start : start + _PIECE])
        sys.stdout.flush()
    except OSError as error:
        raise _failed(error) from error


def flush() -> None:
    """Let nothing wait in standard output's buffer. Raises as `out`."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        raise _failed(error) from error


class Interruptions:
    """While it lasts, Ctrl-C waits for what is being printed, so that a full pipe gets whole lines; a second one does not."""

    def __init__(self) -> None:
        self._printing = self._asked = False
        self._before: Any = None

    def __enter__(self) -> Interruptions:
        # Only the main thread is interrupted, and only it may say how.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold an interruption back until the end of the block. Raises KeyboardInterrupt there if there was one."""
        self._printing = True
        try:
            yield
        finally:
            self._printing = False
        if self._asked:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._printing and not self._asked:
            self._asked = True
        else:
            raise KeyboardInterrupt


def out_json(body: Any) -> None:
    """Print an object on one line of ASCII JSON, which no terminal or pipe can garble."""
    import json

    out_line(json.dumps(body, allow_nan=False))


def one_line(text: str) -> str:
    """Text of unknown origin on one line, with what could steer a terminal spelled out."""
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


def _failed(error: OSError) -> Exception:
    # Windows says EINVAL where others say EPIPE.
    if isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL):
        return BrokenPipeError(*error.args)
    return ScopeEdgeError(f"the output cannot be written ({error.strerror or error}); check where it goes")


# How far a long job is: one line on standard error that is written over, and nothing where no person looks at it.

_SECONDS = 0.1


class ProgressLine:
    """Call it with (what is being done, done, in all); the line is gone at the end of the block."""

    def __init__(self) -> None:
        self._shown = is_terminal(sys.stderr)
        self._what, self._next = "", 0.0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._what:
            self._write("")

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show it, at most ten times a second, but every new job and every end."""
        now = time.monotonic()
        if not self._shown or (what == self._what and now < self._next and done < total):
            return
        self._what, self._next = what, now + _SECONDS
        share = f"{100 * min(done / total, 1):3.0f} %" if total > 0 else ""
        size = f" of {total / 1e9:.1f} GB" if total >= 1e8 else ""
        self._write(clipped(one_line(what), screen_width() - 20) + f": {share}{size}")

    def count(self, done: int, total: int, word: str, seconds_left: float | None, *more: str) -> None:
        """Show "3 of 9 questions, about 2 minutes left", and what else there is to say."""
        if not self._shown:
            return
        left = [] if seconds_left is None else [f"about {duration(seconds_left)} left"]
        self._what = ", ".join([f"{done} of {plural(total, word)}", *left, *more])
        self._write(clipped(one_line(self._what), screen_width() - 1))

    def _write(self, line: str) -> None:
        # Where standard error is gone, so is who would have looked.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"\r\033[K{line}")
            sys.stderr.flush()
