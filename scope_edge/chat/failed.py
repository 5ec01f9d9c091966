"""Why a call to an endpoint brought no answer, and what that means for the next one."""

from __future__ import annotations


class Failed(Exception):
    """A call without an answer. `str(failed)` is one line, without the key.

    final: another call would fail too; for_all: for every question; content: for every model, since it is the question that is
    refused. unbilled: it cost nothing. unreachable: nobody was there. retry_after: seconds the server asks for.
    """

    def __init__(
        self,
        why: str,
        *,
        final: bool = False,
        for_all: bool = False,
        content: bool = False,
        unbilled: bool = False,
        unreachable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(why)
        self.why, self.final, self.for_all, self.content = why, final, for_all, content
        self.unbilled, self.unreachable, self.retry_after = unbilled, unreachable, retry_after
