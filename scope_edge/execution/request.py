"""What is asked, of whom it may be, and when it must be over."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scope_edge.types import Budget, Decision, Query

if TYPE_CHECKING:
    from scope_edge.types import EncodedQuery


@dataclass(frozen=True, slots=True)
class Request:
    """A decided query, to be answered.

    Attributes:
        budget: what the decision kept to. Enforced while the answer is written, unless the decision is over it already.
        messages: the conversation in the wire format, passed on as it is; () = made of the query.
        fields: of the wire format, passed on to servers; those that a model on the device understands hold for it too.
        local_only: no model in the cloud is asked, whatever the decision says.
        verify: samples of an answer on the device that are compared; less than 2 = not at all.
        encoded: the query, for the journal. started: by time.monotonic(), when the seconds of the budget began.
    """

    query: Query
    decision: Decision
    budget: Budget = field(default_factory=Budget)
    messages: tuple[Mapping[str, Any], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    local_only: bool = False
    verify: int = 0
    encoded: EncodedQuery | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def conversation(self) -> tuple[Mapping[str, Any], ...]:
        """What is sent."""
        return self.messages or wire_messages(self.query)

    @property
    def limits(self) -> Budget:
        """What the answer has to keep to. Who asked for a fallback over the budget has lifted it."""
        return Budget() if self.decision.over_budget else self.budget

    @property
    def until(self) -> float:
        """When the answer must be whole, by time.monotonic()."""
        seconds = self.limits.seconds
        return math.inf if seconds is None else self.started + seconds


def wire_messages(query: Query) -> tuple[Mapping[str, Any], ...]:
    """A query as a conversation in the wire format."""
    system = [] if query.system is None else [("system", query.system)]
    turns = (*system, *query.history, ("user", query.text))
    return tuple({"role": role, "content": text} for role, text in turns)


def texts_of(messages: Sequence[Mapping[str, Any]]) -> tuple[list[str], bool]:
    """The text of every message, and whether there is something beside text, such as a picture."""
    texts, other = [], False
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        plain = [part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
        other |= len(plain) < len(parts)
        texts.append("\n".join(plain))
    return texts, other
