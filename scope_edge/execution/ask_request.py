"""What `Router.start` takes and gives: one question with everything that a caller may know about it, and its answer on the way."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scope_edge.execution import Execution
    from scope_edge.types import Decision, Preference, Query


@dataclass(frozen=True, slots=True)
class AskRequest:
    """One question.

    Attributes:
        query, preference: what to decide, and under which limits. top_k: similar anchors to report; None = as the settings say.
        model: the only model that may be asked; None = any of the pool.
        estimate: False = the pinned `model` is asked at once: no limit can rule it out (`overrides.is_unlimited`).
        messages: the conversation in the wire format; () = made of the query. fields: further fields of the wire format.
        needs: what the model must support, as in `ModelCard.supports`.
        verify: samples of an answer on the device to compare; less than 2 = none.
        previous_model: the model that answered last in this conversation; it is kept unless another one's utility is higher by
            more than `stick`.
        started: when the time limit began to run, by time.monotonic().
    """

    query: Query
    preference: Preference
    top_k: int | None = None
    model: str | None = None
    estimate: bool = True
    messages: tuple[Mapping[str, Any], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    verify: int = 0
    previous_model: str | None = None
    stick: float = 0.0
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer to be read. sticky: the conversation stays with its model. deciding: seconds that the decision took."""

    execution: Execution
    decision: Decision
    sticky: bool
    deciding: float
