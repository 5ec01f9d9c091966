"""What tokens cost on one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scope_edge.records import ModelCard


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million prompt and completion tokens, own tokens; None = not known."""

    usd_in: float | None
    usd_out: float | None

    @classmethod
    def on(cls, card: ModelCard) -> Price:
        """The price on a card."""
        return cls(card.usd_in, card.usd_out)

    @property
    def free(self) -> bool:
        """Whether it is known to cost nothing."""
        return self.usd_in == 0 and self.usd_out == 0

    def of(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """What so many tokens cost, in US dollars."""
        if self.usd_in is None or self.usd_out is None:
            return None
        return (prompt_tokens * self.usd_in + completion_tokens * self.usd_out) / 1e6

    def affords(self, usd: float, prompt_tokens: float) -> float | None:
        """Completion tokens that so much money buys after the prompt; None = not known. Without end where they are free."""
        if self.usd_in is None or self.usd_out is None:
            return None
        left = usd * 1e6 - prompt_tokens * self.usd_in
        return left / self.usd_out if self.usd_out else float("inf") if left >= 0 else -1.0
