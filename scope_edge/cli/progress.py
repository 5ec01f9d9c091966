"""How far a long job is: one line on standard error that is written over, and nothing where no person looks at it."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType

from scope_edge.cli.output import one_line
from scope_edge.cli.words import clipped, duration, is_terminal, plural, screen_width

_SECONDS = 0.1


class Progress:
    """Call it with (what is being done, done, in all); the line is gone at the end of the block."""

    def __init__(self) -> None:
        self._shown = is_terminal(sys.stderr)
        self._what, self._next = "", 0.0

    def __enter__(self) -> Progress:
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
