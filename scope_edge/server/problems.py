"""What goes wrong, as an HTTP status and in the words of OpenAI's errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scope_edge.errors import (
    AssetError,
    BrokenAnswerError,
    BudgetError,
    InfeasibleError,
    RefusedError,
    ScopeEdgeError,
    UnansweredError,
    UsageError,
    WorkerError,
)

# OpenAI's client asks again after 5xx unless told not to: the models have been asked twice already.
_NOT_AGAIN = {"x-should-retry": "false"}
# Error -> status, code, type. The first that fits.
_KINDS: tuple[tuple[type[ScopeEdgeError], int, str, str], ...] = (
    (InfeasibleError, 400, "infeasible", "invalid_request_error"),
    (RefusedError, 400, "refused_by_model", "invalid_request_error"),
    (BudgetError, 402, "spending_cap", "insufficient_quota"),
    (UnansweredError, 502, "unanswered", "api_error"),
    (BrokenAnswerError, 502, "broken_answer", "api_error"),
    (UsageError, 400, "invalid_request", "invalid_request_error"),
    (WorkerError, 503, "worker_failed", "api_error"),
    (AssetError, 500, "asset", "api_error"),
)


class Problem(Exception):
    """An answer that is an error. message: one line. param: the field that is at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.kind = "invalid_request_error" if status < 500 else "api_error"
        self.headers: dict[str, str] = dict(headers or {})
        self.more: dict[str, Any] = {}

    def body(self) -> dict[str, Any]:
        """OpenAI's shape."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error | self.more}


def bad(message: str, param: str | None = None, code: str = "invalid_request") -> Problem:
    """A request that makes no sense."""
    return Problem(400, message, code, param=param)


def busy(seconds: int) -> Problem:
    """Too many wait already."""
    made = Problem(
        429,
        f"too many requests are waiting; ask again in {seconds} seconds",
        "queue_full",
        headers={"retry-after": str(seconds)},
    )
    made.kind = "rate_limit_error"
    return made


def crowded() -> Problem:
    """All connections there may be are at work."""
    return Problem(
        503, "too many connections are open; ask again in 5 seconds", "crowded", headers={"retry-after": "5"}
    )


def closing() -> Problem:
    """The server is ending."""
    return Problem(503, "the server is shutting down", "shutting_down", headers={"retry-after": "5"} | _NOT_AGAIN)


def problem_of(error: ScopeEdgeError) -> Problem:
    """An error of the library's."""
    for kind, status, code, type_ in _KINDS:
        if isinstance(error, kind):
            made = Problem(status, str(error), code, headers=_NOT_AGAIN if status >= 500 else {})
            made.kind = type_
            if isinstance(error, BrokenAnswerError):
                made.more["partial"] = error.text
            return made
    return Problem(500, str(error), "internal", headers=_NOT_AGAIN)
