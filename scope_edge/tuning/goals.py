"""The alpha for a wish: at most so many dollars, at most so many tokens, at least as good as a model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scope_edge.tuning.forecast import Forecast
    from scope_edge.tuning.outlook import PoolForecast


@dataclass(frozen=True, slots=True)
class TuningGoal:
    """What choices are to be, on average; None = no matter.

    Attributes:
        usd: at most, a query. tokens: at most, prompt and completion, a query.
        match: a model they are to be right as often as, but for `within` (a share of queries).
    """

    usd: float | None = None
    tokens: float | None = None
    match: str | None = None
    within: float = 0.0


@dataclass(frozen=True, slots=True)
class UnmetGoal:
    """A part of a wish that no alpha grants. best: how near one comes, None where that is not known; at: the alpha."""

    part: str
    wanted: float
    best: float | None
    at: float | None


@dataclass(frozen=True, slots=True)
class SolvedGoal:
    """What became of a wish.

    Attributes:
        found: the alpha that keeps to it: the most accurate, or, where a model is to be matched, the cheapest. None = none does.
        nearest: then the one that comes nearest; None where nothing is known of any.
        missed: the parts that no alpha grants; empty where each can be granted, but not all at once.
        lead: how far `found`, or else `nearest`, is ahead of the model to match, and the standard error of that.
    """

    found: Forecast | None
    nearest: Forecast | None
    missed: tuple[UnmetGoal, ...]
    lead: tuple[float, float | None] | None


def solve(outlook: PoolForecast, wish: TuningGoal) -> SolvedGoal:
    """The alpha of the outlook that keeps to the wish, with the queries that limits leave a model for."""
    parts = tuple(_parts(outlook, wish))
    served = [i for i, row in enumerate(outlook.rows) if row.unserved < 1]
    good = [i for i in served if all(part.excess[i] <= 0 for part in parts)]
    at = _best(outlook, good, wish) if good else _nearest(parts, served)
    lead = outlook.leads[at] if at is not None and wish.match is not None else None
    row = None if at is None else outlook.rows[at]
    if good:
        return SolvedGoal(row, None, (), lead)
    return SolvedGoal(None, row, tuple(_missed(outlook, part, served) for part in parts if _never(part, served)), lead)


@dataclass(frozen=True, slots=True)
class _Part:
    """excess: by how much every row misses it, relative to `wanted`; infinite where it is not known whether it does."""

    name: str
    wanted: float
    values: tuple[float | None, ...]
    excess: tuple[float, ...]


def _parts(outlook: PoolForecast, wish: TuningGoal) -> Iterator[_Part]:
    for name, most in (("usd", wish.usd), ("tokens", wish.tokens)):
        if most is not None:
            values: tuple[float | None, ...] = tuple(getattr(row, name) for row in outlook.rows)
            excess = tuple(math.inf if value is None else (value - most) / max(most, 1e-12) for value in values)
            yield _Part(name, most, values, excess)
    if wish.match is not None:
        least = outlook.alone[wish.match].accuracy - wish.within
        # On the queries that limits leave a model for: there alone the two can be compared.
        behind = tuple(-lead - wish.within for lead, _ in outlook.leads)
        right = tuple(row.accuracy for row in outlook.rows)
        yield _Part("match", least, right, tuple(one / max(least, 1e-12) for one in behind))


def _best(outlook: PoolForecast, good: list[int], wish: TuningGoal) -> int:
    """The row to take of those that are good."""

    def cost(i: int) -> float:
        usd = outlook.rows[i].usd
        return math.inf if usd is None else usd

    if wish.match is not None:
        return min(good, key=lambda i: (cost(i), outlook.rows[i].alpha))
    return max(good, key=lambda i: (outlook.rows[i].accuracy, -cost(i)))


def _nearest(parts: tuple[_Part, ...], served: list[int]) -> int | None:
    missing = {i: sum(max(part.excess[i], 0.0) for part in parts) for i in served}
    known = [i for i, excess in missing.items() if math.isfinite(excess)]
    return min(known, key=missing.__getitem__) if known else None


def _never(part: _Part, served: list[int]) -> bool:
    return all(part.excess[i] > 0 for i in served)


def _missed(outlook: PoolForecast, part: _Part, served: list[int]) -> UnmetGoal:
    known = [i for i in served if math.isfinite(part.excess[i])]
    if not known:
        return UnmetGoal(part.name, part.wanted, None, None)
    at = min(known, key=part.excess.__getitem__)
    return UnmetGoal(part.name, part.wanted, part.values[at], outlook.rows[at].alpha)
