"""A decision, or an answer as it comes, from the user's own server: the same as would be made here, without loading anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scope_edge.contact.client import Line, NotServed, calling, lines
from scope_edge.contact.standing import carried, standing
from scope_edge.contact.token import read_token
from scope_edge.contact.wire import answer_from, decision_from, read_error
from scope_edge.errors import AssetError
from scope_edge.records import Attempt

if TYPE_CHECKING:
    from scope_edge.answer import Answer
    from scope_edge.config import Settings
    from scope_edge.records import Decision, Where

ROUTE, ASK = "/own/route", "/own/ask"
_ROUTE_SECONDS = 60.0


def decided(settings: Settings, text: str, wishes: Mapping[str, Any]) -> Decision | None:
    """What the server decides; None: there is none that would decide as this process. Raises what deciding raises.

    wishes: system, exclude.
    """
    if not settings.use_server:
        return None
    try:
        with calling() as line:
            answer = line.post(ROUTE, _body(settings, text, wishes), _ROUTE_SECONDS)
            body = next(lines(answer), None)
    except (NotServed, AssetError):
        # Deciding costs nothing: what went wrong there is done again here.
        return None
    if body is None:
        return None
    if "error" in body:
        raise read_error(body["error"])
    return decision_from(body["decision"])


@contextlib.contextmanager
def asked(settings: Settings, text: str, wishes: Mapping[str, Any]) -> Iterator[ServedStream | None]:
    """An answer from the server; None: there is none that would answer as this process. Raises as `Router.stream`.

    wishes: system, exclude, model.
    """
    with contextlib.ExitStack() as stack:
        stream = None
        if settings.use_server:
            with contextlib.suppress(NotServed):
                line = stack.enter_context(calling())
                # How long a model may take is the server's to say, which keeps to this caller's limits.
                rows = lines(line.post(ASK, _body(settings, text, wishes), None))
                stream = ServedStream(line, rows)
        if stream is not None:
            stream.begin()
        yield stream


class ServedStream:
    """An answer on its way, as `api.Stream` has it."""

    def __init__(self, line: Line, rows: Iterator[dict[str, Any]]) -> None:
        self._line, self._rows = line, rows
        self._texts: list[str] = []
        self._decision: Decision | None = None
        self.model: str | None = None
        self.where: Where | None = None
        self.attempts: tuple[Attempt, ...] = ()
        self.answer: Answer | None = None

    @property
    def decision(self) -> Decision:
        """Why who is asked."""
        if self._decision is None:
            raise RuntimeError("there is no decision before `begin`")
        return self._decision

    def begin(self) -> None:
        """Read the decision. Raises what deciding raises."""
        row = self._row()
        self._decision = decision_from(row["decision"])

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            if self.answer is not None:
                raise StopIteration
            row = self._row()
            if "attempts" in row:
                self.attempts = tuple(Attempt(**one) for one in row["attempts"])
                self.model, self.where = row["model"], row["where"]
            if "answer" in row:
                self.answer = answer_from(row["answer"], "".join(self._texts), self.decision)
            if row.get("text"):
                self._texts.append(row["text"])
                return str(row["text"])

    def __enter__(self) -> ServedStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """What has not come yet does not."""
        self._line.close()

    def cancel(self) -> None:
        """End it, from whichever thread."""
        self._line.hang_up()

    def _row(self) -> dict[str, Any]:
        row = next(self._rows, None)
        if row is None:
            raise AssetError("the server went away in the middle; ask again")
        if "error" in row:
            raise read_error(row["error"])
        return row


def _body(settings: Settings, text: str, wishes: Mapping[str, Any]) -> dict[str, Any]:
    token = read_token()
    if token is None:
        raise NotServed
    return {
        "standing": standing(settings, token),
        "settings": carried(settings),
        "text": text,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in wishes.items()},
    }
