"""The price of one model. Without numpy: a server whose models are all pinned never loads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scope_edge.types import ModelCard


@dataclass(frozen=True, slots=True)
class Price:
    """One model's price: US dollars per million prompt and completion tokens, own tokens; None = unknown."""

    usd_in: float | None
    usd_out: float | None

    @classmethod
    def on(cls, card: ModelCard) -> Price:
        """Read the price from a card."""
        return cls(card.usd_in, card.usd_out)

    @property
    def free(self) -> bool:
        """Whether the model is known to cost nothing."""
        return self.usd_in == 0 and self.usd_out == 0

    def of(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """Return the cost of so many tokens, in US dollars; None = unknown."""
        if self.usd_in is None or self.usd_out is None:
            return None
        return (prompt_tokens * self.usd_in + completion_tokens * self.usd_out) / 1e6

    def affords(self, usd: float, prompt_tokens: float) -> float | None:
        """Return the completion tokens that so much money buys after the prompt; None = unknown, infinite where free."""
        if self.usd_in is None or self.usd_out is None:
            return None
        left = usd * 1e6 - prompt_tokens * self.usd_in
        return left / self.usd_out if self.usd_out else float("inf") if left >= 0 else -1.0
