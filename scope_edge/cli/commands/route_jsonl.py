"""`scope-edge route --jsonl`: JSON lines in, decisions out, in order and in constant memory.

A line that cannot be used becomes `{"line", "id", "error"}` in its place, and the others are routed. Lines are read when the
router needs them, a few ahead of the printed ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from time import monotonic
from typing import TYPE_CHECKING, Any

from scope_edge.cli.commands.route import SOME_FAILED
from scope_edge.cli.format import plural
from scope_edge.cli.inputs import local_router, opened
from scope_edge.cli.lines import MAX_LINE_BYTES, LineReader, check_keys, parse_line, within_limit
from scope_edge.cli.output import Interruptions, ProgressLine, out_json, out_line
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
# How long to wait for the next line before deciding on the lines already read.
_GRACE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class FailedLine:
    """A line that could not be used, and why."""

    line: int
    id: str | int | None
    error: str


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
            with stream.progress, stream.interruptions:
                stream.run()
        finally:
            if stream.failed:
                complain(f"{stream.failed} of {plural(stream.done, 'line')} could not be routed", SOME_FAILED)
    return SOME_FAILED if stream.failed else 0


class _Stream:
    """One run over a file. `waiting` has the lines read and not yet printed, in order: an id if the line is being routed."""

    def __init__(
        self, file: BufferedIOBase, name: str, router: Router, options: Mapping[str, Any], quiet: bool
    ) -> None:
        """options: for lines that do not give them."""
        self.router, self.options, self.quiet = router, options, quiet
        self.lines = LineReader(file, name, MAX_LINE_BYTES)
        self.waiting: deque[str | int | FailedLine | None] = deque()
        self.progress, self.started = ProgressLine(), monotonic()
        self.done = self.failed = 0
        self.interruptions = Interruptions()
        self.ended = False

    def run(self) -> None:
        while not self.ended:
            for decision in self.router.decide_many(self.requests()):
                self.print_failed()
                id = self.waiting.popleft()
                assert not isinstance(id, FailedLine)  # those were printed
                self.print_decision(decision, id)
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
            self.waiting.append(id)
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
        self.count(failed=True)

    def print_decision(self, decision: Decision, id: str | int | None) -> None:
        with self.interruptions.held():
            if self.quiet:
                out_line(decision.choice or NO_CHOICE)
            else:
                out_json(decision.as_dict() if id is None else {"id": id, **decision.as_dict()})
        self.count(failed=False)

    def count(self, *, failed: bool) -> None:
        self.done += 1
        self.failed += failed
        rate = self.done / max(monotonic() - self.started, 1e-9)
        failures = f", {self.failed} failed" if self.failed else ""
        self.progress.show(f"{plural(self.done, 'line')}, {rate:.0f} a second{failures}")


def _id(value: object) -> str | int | None:
    if value is None or (isinstance(value, (str, int)) and not isinstance(value, bool)):
        return value
    raise UsageError("id must be text or a whole number")
