"""JSON responses, and errors as HTTP statuses and in the form of OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

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

_INVALID, _API = "invalid_request_error", "api_error"
# OpenAI's client repeats a request after 5xx unless this header forbids it: the models have been tried twice already.
_NOT_AGAIN = {"x-should-retry": "false"}
# Error -> status, code, type. The first that fits.
_KINDS: tuple[tuple[type[ScopeEdgeError], int, str, str], ...] = (
    (InfeasibleError, 400, "infeasible", _INVALID),
    (RefusedError, 400, "refused_by_model", _INVALID),
    (BudgetError, 402, "spending_cap", "insufficient_quota"),
    (UnansweredError, 502, "unanswered", _API),
    (BrokenAnswerError, 502, "broken_answer", _API),
    (UsageError, 400, "invalid_request", _INVALID),
    (WorkerError, 503, "worker_failed", _API),
    (AssetError, 500, "asset", _API),
    (ScopeEdgeError, 500, "internal", _API),
)


class Json(JSONResponse):
    """JSON in ASCII: lone surrogates in a model's answer are escaped instead of failing to encode."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


class ApiError(Exception):
    """An error response. message: one line. kind: OpenAI's error type. param: the invalid field. more: further fields."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        kind: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        kind = kind or (_INVALID if status < 500 else _API)
        self.error = {"message": message, "type": kind, "param": param, "code": code, **(more or {})}

    def body(self) -> dict[str, Any]:
        """Return the response's JSON."""
        return {"error": self.error}

    def response(self) -> Json:
        """Return the response."""
        return Json(self.body(), self.status, self.headers)


def bad(message: str, param: str | None = None, code: str = "invalid_request") -> ApiError:
    """Return the error for an invalid request."""
    return ApiError(400, message, code, param=param)


def closing() -> ApiError:
    """Return the error of a server that is shutting down."""
    return ApiError(503, "the server is shutting down", "shutting_down", headers={"retry-after": "5"} | _NOT_AGAIN)


def api_error_of(error: ApiError | ScopeEdgeError) -> ApiError:
    """Return the response for an error of the library."""
    if isinstance(error, ApiError):
        return error
    _, status, code, kind = next(row for row in _KINDS if isinstance(error, row[0]))
    more = {"partial": error.text} if isinstance(error, BrokenAnswerError) else None
    if isinstance(error, RefusedError) and error.code is not None:
        code = error.code
    if isinstance(error, InfeasibleError) and error.decision.bound and error.decision.bound.limit == "context":
        code = "context_length_exceeded"
    return ApiError(status, str(error), code, kind=kind, headers=_NOT_AGAIN if status >= 500 else {}, more=more)
