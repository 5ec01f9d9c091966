"""What a query got in the end: the answer, and how it goes out as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scope_edge.plain import run_body
from scope_edge.records import Decision, Run


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query got: the text, who wrote it and what it cost (`run`), and why that one was asked (`decision`).

    Attributes:
        id: of the journal's entry, for `scope-edge feedback`; None where nothing is written down.
        warnings: sentences on this answer: it was cut, it cost more than it should have.
    """

    text: str
    decision: Decision
    run: Run
    id: str | None = None
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The documented JSON object of an answer (docs/json.md)."""
        return {
            "answer": self.text,
            "id": self.id,
            "run": run_body(self.run),
            "warnings": list(self.warnings),
            "decision": self.decision.as_dict(),
        }
