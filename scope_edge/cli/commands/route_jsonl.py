"""`scope-edge route --jsonl`: JSON lines in, decisions out, in order and in constant memory.

A line that cannot be used becomes `{"line", "id", "error"}` in its place, and the others are routed. Lines are read when the
router needs them, a few ahead of the printed ones.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedIOBase
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli.commands.route import SOME_FAILED
from scope_edge.cli.format import is_terminal, plural
from scope_edge.cli.inputs import local_router, opened
from scope_edge.cli.lines import MAX_LINE_BYTES, LineReader, check_keys, parse_line, within_limit
from scope_edge.cli.output import Interruptions, out_json, out_line
from scope_edge.cli.run import complain
from scope_edge.errors import UsageError
from scope_edge.pipeline import check_query
from scope_edge.types import Decision, Preference, Query

if TYPE_CHECKING:
    from scope_edge.router import Router
    from scope_edge.settings.config import Settings

# This many bad lines may wait for the decision before them; then reading stops until it arrives.
_WAITING = 1000
# --quiet prints this for a line without a choice, so that lines in and out match.
NO_CHOICE = "-"
_PROGRESS_SECONDS = 0.2
# How long to wait for the next line before deciding on the lines already read.
_GRACE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class FailedLine:
    """A line that could not be used, and why."""

    line: int
    id: str | int | None
    error: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A line that was sent to the router."""

    line: int
    id: str | int | None


@dataclass(slots=True)
class _Progress:
    """Counts, and a line on standard error that shows them on a terminal."""

    done: int = 0
    failed: int = 0
    started: float = field(default_factory=monotonic)
    shown: float = 0.0
    visible: bool = field(default_factory=lambda: is_terminal(sys.stderr))

    def count(self, failed: bool) -> None:
        self.done += 1
        self.failed += failed
        now = monotonic()
        if self.visible and now - self.shown >= _PROGRESS_SECONDS:
            self.shown = now
            rate = self.done / max(now - self.started, 1e-9)
            failures = f", {self.failed} failed" if self.failed else ""
            click.echo(f"\r\x1b[K{plural(self.done, 'line')}, {rate:.0f} a second{failures}", err=True, nl=False)

    def end(self) -> None:
        if self.visible:
            click.echo("\r\x1b[K", err=True, nl=False)
        if self.failed:
            complain(f"{self.failed} of {plural(self.done, 'line')} could not be routed", SOME_FAILED)


def route_lines(
    path: str, settings: Settings, exclude: tuple[str, ...], *, system: str | None = None, quiet: bool = False
) -> int:
    """Route the lines of a file, or of standard input for "-", and print a line for each. Return the exit code.

    `settings`, `exclude` and `system` are for lines that do not give these. Raises UsageError if the file cannot be read or
    an excluded model is unknown, and what `Router.load` raises.
    """
    with opened(path) as (file, name), local_router(settings) as router:
        router.prepare("", exclude=exclude)
        stream = _Stream(file, name, router, {"exclude": exclude, "system": system}, quiet)
        try:
            with stream.interruptions:
                stream.run()
        finally:
            stream.progress.end()
    return SOME_FAILED if stream.progress.failed else 0


class _Stream:
    """One run over a file: `waiting` are the lines read and not yet printed, in order."""

    def __init__(
        self, file: BufferedIOBase, name: str, router: Router, options: Mapping[str, Any], quiet: bool
    ) -> None:
        """options: for lines that do not give them."""
        self.router, self.options, self.quiet = router, options, quiet
        self.lines = LineReader(file, name, MAX_LINE_BYTES)
        self.waiting: deque[Sent | FailedLine] = deque()
        self.progress = _Progress()
        self.interruptions = Interruptions()
        self.ended = False

    def run(self) -> None:
        while not self.ended:
            for decision in self.router.decide_many(self.requests()):
                self.print_failed()
                sent = self.waiting.popleft()
                self.print_decision(decision, sent.id)
                self.print_failed()
            self.print_failed()

    def requests(self) -> Iterator[tuple[Query, Preference]]:
        """Give the usable lines. Stop before the end if no line has arrived yet, or many unusable ones wait to be printed.

        The router gives its last decisions when requests stop: a program that sends one line and waits must get its answer.
        """
        while not self.waiting or self.lines.ready(_GRACE_SECONDS):
            line, raw = next(self.lines, (0, b""))
            if not line:
                self.ended = True
                return
            id: str | int | None = None
            try:
                raw = within_limit(raw)
                if not raw.strip():
                    continue
                fields = parse_line(raw)
                id = _id(fields.pop("id", None))
                request = self.request(fields)
            except UsageError as error:
                self.fail(FailedLine(line, id, str(error)))
                if len(self.waiting) > _WAITING:
                    return
                continue
            self.waiting.append(Sent(line, id))
            yield request

    def request(self, fields: dict[str, Any]) -> tuple[Query, Preference]:
        """Return the query and preference of a line. Raises UsageError."""
        check_keys(fields)
        given = {key: value for key, value in fields.items() if value is not None}
        if "text" not in given:
            raise UsageError('a line needs a "text"')
        query, preference = self.router.prepare(**{**self.options, **given})
        check_query(query)
        return query, preference

    def fail(self, failed: FailedLine) -> None:
        if self.waiting:
            self.waiting.append(failed)
        else:
            self.print_failure(failed)

    def print_failed(self) -> None:
        """Print the unusable lines before the next decision."""
        while self.waiting and isinstance(failed := self.waiting[0], FailedLine):
            self.waiting.popleft()
            self.print_failure(failed)

    def print_failure(self, failed: FailedLine) -> None:
        with self.interruptions.held():
            if self.quiet:
                out_line(NO_CHOICE)
                complain(f"line {failed.line}: {failed.error}", SOME_FAILED)
            else:
                out_json({"line": failed.line, "id": failed.id, "error": failed.error})
        self.progress.count(failed=True)

    def print_decision(self, decision: Decision, id: str | int | None) -> None:
        with self.interruptions.held():
            if self.quiet:
                out_line(decision.choice or NO_CHOICE)
            else:
                out_json(decision.as_dict() if id is None else {"id": id, **decision.as_dict()})
        self.progress.count(failed=False)


def _id(value: object) -> str | int | None:
    if value is None or (isinstance(value, (str, int)) and not isinstance(value, bool)):
        return value
    raise UsageError("id must be text or a whole number")
