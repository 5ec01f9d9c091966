"""Answers in OpenAI's format, whole or as events of a stream, and the decision in headers."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from scope_edge.errors import InfeasibleError, ScopeEdgeError
from scope_edge.types import Run, row, run_body

if TYPE_CHECKING:
    from scope_edge.providers.openai.stream import Piece
    from scope_edge.types import Answer, Attempt, Decision


@dataclass(slots=True)
class ResponseFormatter:
    """Formats one answer. chat: as /v1/chat/completions does, else as /v1/completions. show: include decision and run."""

    chat: bool
    show: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))
    model: str = ""
    _called: bool = False

    def first(self, decision: Decision, attempts: Sequence[Attempt]) -> bytes:
        """Return the event that an answer begins with. attempts: the models that were called before and did not answer."""
        if not (self.chat or self.show):
            return b""
        ours = {"decision": decision.as_dict(), "attempts": [row(one) for one in attempts]}
        content = {"role": "assistant", "content": ""} if self.chat else ""
        return self._event(content, ours=ours if self.show else None)

    def piece(self, piece: Piece) -> bytes:
        """Return the event for a piece; b"" if the piece is empty."""
        if not self.chat:
            return self._event(piece.text) if piece.text else b""
        delta = {**piece.extra, "content": piece.text} if piece.text else dict(piece.extra)
        self._called |= bool(delta.get("tool_calls") or delta.get("function_call"))
        return self._event(delta) if delta else b""

    def last(self, answer: Answer, *, usage: bool) -> bytes:
        """Return the events that end a stream."""
        ours = _ours(answer) if self.show else None
        end = self._event({} if self.chat else "", self._finish(answer.run), ours)
        if usage:
            end += event(self._head("chat.completion.chunk") | {"choices": [], "usage": usage_of(answer.run)})
        return end + b"data: [DONE]\n\n"

    def whole(self, answer: Answer, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return the whole answer."""
        extra = joined([piece.extra for piece in pieces if piece.extra])
        self._called = bool(extra.get("tool_calls") or extra.get("function_call"))
        text = answer.text if answer.text or not self._called else None
        content = (
            {"message": {"role": "assistant", "content": text, **extra}}
            if self.chat
            else {"text": answer.text, "logprobs": None}
        )
        body = {
            **self._head("chat.completion"),
            "choices": [{"index": 0, **content, "finish_reason": self._finish(answer.run)}],
            "usage": usage_of(answer.run),
        }
        return body | ({"scope_edge": {"decision": answer.decision.as_dict(), **_ours(answer)}} if self.show else {})

    def _finish(self, run: Run) -> str:
        return "length" if run.ending in ("cut", "loop") else "tool_calls" if self._called else "stop"

    def _event(self, content: Any, finish: str | None = None, ours: Mapping[str, Any] | None = None) -> bytes:
        choice = {"index": 0, "delta" if self.chat else "text": content, "finish_reason": finish}
        body = self._head("chat.completion.chunk") | {"choices": [choice]}
        return event(body if ours is None else body | {"scope_edge": ours})

    def _head(self, kind: str) -> dict[str, Any]:
        lead, kind = ("chatcmpl-", kind) if self.chat else ("cmpl-", "text_completion")
        return {"id": lead + self.id, "object": kind, "created": self.created, "model": self.model}


def error_details(error: ScopeEdgeError, decision: Decision | None) -> dict[str, Any]:
    """Return the decision and the run behind an error, for a client that wants them. decision: None = not made."""
    if isinstance(error, InfeasibleError):
        decision = error.decision
    run = getattr(error, "run", None)
    return {
        "decision": None if decision is None else decision.as_dict(),
        "run": run_body(run) if isinstance(run, Run) else None,
    }


def event(body: Mapping[str, Any]) -> bytes:
    """Return one event of a stream."""
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def usage_of(run: Run) -> dict[str, Any]:
    """Return token counts in OpenAI's format; null where they are unknown."""
    prompt, completion = (None if n is None else round(n) for n in (run.prompt_tokens, run.completion_tokens))
    total = None if prompt is None or completion is None else prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def decision_headers(decision: Decision, model: str | None, *, sticky: bool = False) -> dict[str, str]:
    """Return the decision as headers; non-ASCII text is percent-encoded. model: the one that answers; None = no model was called."""
    row = next((one for one in decision.candidates if one.model == (model or decision.choice)), None)
    found: dict[str, Any] = {
        "choice": decision.choice or "none",
        "model": model,
        "where": None if row is None else row.where,
        "alpha": f"{decision.alpha:g}",
        "evidence": None if row is None else row.evidence,
        "p-correct": None if row is None or row.p_correct is None else f"{row.p_correct:.4f}",
        "usd-expected": None if row is None or row.usd is None else f"{row.usd:.8f}".rstrip("0").rstrip("."),
        "sticky": "1" if sticky else None,
        "over-budget": "1" if decision.over_budget else None,
    }
    return {f"x-scope-edge-{name}": _ascii(value) for name, value in found.items() if value}


def joined(deltas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join the deltas of a stream beside its text: texts end to end, list items by their index."""
    whole: dict[str, Any] = {}
    for delta in deltas:
        whole = _joined(whole, delta)
    return {name: _without_index(value) for name, value in whole.items() if value is not None}


def _joined(before: Any, more: Any) -> Any:
    if before is None or more is None:
        return before if more is None else more
    if isinstance(before, str) and isinstance(more, str):
        return before + more
    if isinstance(before, Mapping) and isinstance(more, Mapping):
        # An id or a type is sent once, or repeated; arguments are sent in parts.
        return {**before} | {
            name: value if name in ("id", "type", "index") else _joined(before.get(name), value)
            for name, value in more.items()
        }
    if isinstance(before, list) and isinstance(more, list):
        rows = {_index(one, n): one for n, one in enumerate(before)}
        for n, one in enumerate(more):
            at = _index(one, n)
            rows[at] = _joined(rows.get(at), one)
        return [rows[at] for at in sorted(rows)]
    return more


def _index(row: Any, position: int) -> int:
    given = row.get("index") if isinstance(row, dict) else None
    return given if type(given) is int else position


def _without_index(value: Any) -> Any:
    if isinstance(value, list):
        return [{k: v for k, v in one.items() if k != "index"} if isinstance(one, dict) else one for one in value]
    return value


def _ascii(value: str) -> str:
    return value if value.isascii() and value.isprintable() else quote(value, safe=" :/,;.()[]=-_")


def _ours(answer: Answer) -> dict[str, Any]:
    return {"id": answer.id, "run": run_body(answer.run), "warnings": list(answer.warnings)}
