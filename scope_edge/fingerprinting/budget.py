"""What a run has spent and may have spent. The cap is on the second: it holds whatever becomes of the calls under way."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from scope_edge.errors import UsageError
from scope_edge.fingerprinting.answer_log import AnswerLog
from scope_edge.policy.price import Price
from scope_edge.types import ModelCard


class SpendingBudget:
    """Counts money. Threads may share it."""

    def __init__(self, card: ModelCard, journal: AnswerLog, max_usd: float | None) -> None:
        """Raises UsageError: a cap on what has no price."""
        self.price = Price.on(card)
        if max_usd is not None and card.usd_in is None:
            raise UsageError(
                f"the price of {card.id} is not known, so spending cannot be limited; write usd_in and usd_out on its card,"
                " or leave out --max-usd"
            )
        self._journal, self._limit = journal, max_usd
        self._lock = threading.Lock()
        self.spent = sum(answer.usd or 0.0 for answer in journal.answers.values())
        self._open = journal.unanswered_usd

    @property
    def at_most(self) -> float:
        """What was spent, and what calls without an answer may have cost beside."""
        return self.spent + self._open

    def allows(self, usd: float | None) -> bool:
        """Whether a call that costs up to so much keeps to the limit."""
        return self._limit is None or usd is None or self.at_most + usd <= self._limit

    def meter(self, anchor: str, usd: float | None) -> CallMeter:
        """For the calls about one anchor, each of which costs up to so much."""
        return CallMeter(self, anchor, usd)

    def _begin(self, anchor: str, usd: float | None) -> bool:
        with self._lock:
            if not self.allows(usd):
                return False
            self._open += usd or 0.0
        self._journal.calls(anchor, usd)
        return True

    def _free(self, anchor: str, usd: float | None) -> None:
        with self._lock:
            self._open -= usd or 0.0
        self._journal.fails(anchor)

    def _settle(self, reserved: float | None, cost: float | None) -> None:
        with self._lock:
            self._open -= reserved or 0.0
            self.spent += cost or 0.0


@dataclass(frozen=True, slots=True)
class CallMeter:
    """The calls about one anchor: a `chat.client.Meter`. usd: what one may cost."""

    purse: SpendingBudget
    anchor: str
    usd: float | None

    def begin(self) -> bool:
        """Write the call down, unless it could exceed the limit."""
        return self.purse._begin(self.anchor, self.usd)

    def unbilled(self) -> None:
        """The last call cost nothing."""
        self.purse._free(self.anchor, self.usd)

    def settle(self, usd: float | None) -> None:
        """The last call was answered and cost so much."""
        self.purse._settle(self.usd, usd)
