"""Decisions, runs and errors as they travel between a server and the user's own commands: JSON objects, a line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from scope_edge import errors
from scope_edge.answer import Answer
from scope_edge.errors import ScopeEdgeError
from scope_edge.journal.written import read_decision, read_run
from scope_edge.plain import row, run_body
from scope_edge.records import Attempt, Decision, Run

_FROM = "what the server sent"
# Errors that carry something beside their words.
_WITH_RUN = ("UnansweredError", "RefusedError")


def error_body(error: ScopeEdgeError) -> dict[str, Any]:
    """An error with all it carries."""
    body: dict[str, Any] = {"kind": type(error).__name__, "message": str(error)}
    decision, run, text = (getattr(error, name, None) for name in ("decision", "run", "text"))
    if isinstance(decision, Decision):
        body["decision"] = decision.as_dict()
    if isinstance(run, Run):
        body["run"] = run_body(run)
    if isinstance(text, str):
        body["text"] = text
    return body


def read_error(body: Mapping[str, Any]) -> ScopeEdgeError:
    """The same error again."""
    kind, message = str(body["kind"]), str(body["message"])
    run = read_run(json.dumps(body["run"]), _FROM) if "run" in body else None
    if kind == "InfeasibleError":
        return errors.InfeasibleError(message, decision_from(body["decision"]))
    if kind == "BrokenAnswerError" and run is not None:
        return errors.BrokenAnswerError(message, str(body["text"]), run)
    if kind in _WITH_RUN and run is not None:
        made: ScopeEdgeError = getattr(errors, kind)(message, run)
        return made
    found: Any = getattr(errors, kind, None)
    plain = isinstance(found, type) and issubclass(found, ScopeEdgeError)
    return found(message) if plain else ScopeEdgeError(message)


def decision_from(body: Mapping[str, Any]) -> Decision:
    """A decision out of its JSON object. Raises AssetError."""
    return read_decision(json.dumps(body), _FROM)


def attempts_body(attempts: tuple[Attempt, ...]) -> list[Any]:
    """Who did not answer."""
    return [row(one) for one in attempts]


def answer_body(answer: Answer) -> dict[str, Any]:
    """All of an answer but its text and its decision, which have been sent."""
    return {"id": answer.id, "run": run_body(answer.run), "warnings": list(answer.warnings)}


def answer_from(body: Mapping[str, Any], text: str, decision: Decision) -> Answer:
    """The answer again. Raises AssetError."""
    run = read_run(json.dumps(body["run"]), _FROM)
    if run is None:
        raise errors.AssetError(f"{_FROM} is no answer; is that server of another release?")
    return Answer(text, decision, run, body["id"], tuple(body["warnings"]))
