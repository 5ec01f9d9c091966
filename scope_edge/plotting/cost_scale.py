"""A cost axis with room for free: logarithmic for what is paid, a linear foot for what is nearly free, 0 at its left end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scope_edge.plotting.names import dollars

_FOOT = 0.16
_MOST_TICKS = 7


@dataclass(frozen=True, slots=True)
class CostScale:
    """Places of costs on an axis from 0 to 1.

    Attributes:
        low, high: US dollars per 1,000 queries; logarithmic between them. foot: share of the axis below `low`; 0 where
            nothing is free, 1 where all is.
    """

    low: float
    high: float
    foot: float

    @classmethod
    def of(cls, models: Sequence[float], others: Sequence[float] = ()) -> CostScale:
        """A scale for these costs. What models cost decides where it becomes logarithmic; mixtures may cost less."""
        paid = [usd for usd in (*models, *others) if usd > 0]
        if not paid:
            return cls(1.0, 2.0, 1.0)
        free = len(paid) < len(models) + len(others)
        least = min((usd for usd in models if usd > 0), default=min(paid)) if free else min(paid)
        high = 1.04 * max(paid)
        low = min(least * (0.7 if free else 0.9), high / 2)
        return cls(low, high, _FOOT if free else 0.0)

    def place(self, usd: float) -> float:
        """Where a cost lies, from 0 to 1."""
        if usd <= self.low:
            return self.foot * usd / self.low
        return self.foot + (1 - self.foot) * math.log(usd / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and what is written there, "free" first."""
        if self.foot == 1:
            return [(0.0, "free")]
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for steps in ((1, 2, 5), (1, 3), (1,)):
            values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
            values = [usd for usd in values if self.low < usd <= self.high]
            if len(values) <= _MOST_TICKS:
                break
        values = values[:: -(-len(values) // _MOST_TICKS) or 1]
        free = [(0.0, "free")] if self.foot else []
        return free + [(self.place(usd), dollars(usd)) for usd in values]
