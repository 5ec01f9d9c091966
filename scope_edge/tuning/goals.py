"""The alpha for a goal: at most this cost, at most these tokens, at least as accurate as a model."""

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
    """Limits on the average of choices; None = no limit.

    Attributes:
        usd: the most per query. tokens: the most per query, prompt and completion.
        match: a model whose accuracy must be reached, up to `within` (a share of queries).
    """

    usd: float | None = None
    tokens: float | None = None
    match: str | None = None
    within: float = 0.0


@dataclass(frozen=True, slots=True)
class UnmetGoal:
    """A part of a goal that no alpha meets. best: the nearest value, None if unknown; at: its alpha."""

    part: str
    wanted: float
    best: float | None
    at: float | None


@dataclass(frozen=True, slots=True)
class SolvedGoal:
    """The solution of a goal.

    Attributes:
        found: the alpha that meets it: the most accurate, or, if a model must be matched, the cheapest. None = no alpha does.
        nearest: in that case the nearest alpha; None if nothing is known of any.
        missed: the parts that no alpha meets; empty if each can be met, but not all at once.
        lead: accuracy of `found`, or else `nearest`, minus that of the model to match, and its standard error.
    """

    found: Forecast | None
    nearest: Forecast | None
    missed: tuple[UnmetGoal, ...]
    lead: tuple[float, float | None] | None


def solve(outlook: PoolForecast, goal: TuningGoal) -> SolvedGoal:
    """Find the alpha of a forecast that meets a goal, on the queries that some model may answer within the limits."""
    parts = tuple(_parts(outlook, goal))
    served = [i for i, row in enumerate(outlook.rows) if row.unserved < 1]
    good = [i for i in served if all(part.excess[i] <= 0 for part in parts)]
    at = _best(outlook, good, goal) if good else _nearest(parts, served)
    lead = outlook.leads[at] if at is not None and goal.match is not None else None
    row = None if at is None else outlook.rows[at]
    if good:
        return SolvedGoal(row, None, (), lead)
    never = [part for part in parts if all(part.excess[i] > 0 for i in served)]
    return SolvedGoal(None, row, tuple(_missed(outlook, part, served) for part in never), lead)


@dataclass(frozen=True, slots=True)
class _GoalPart:
    """One part of a goal. excess: by how much every row misses it, relative to `wanted`; infinite if unknown."""

    name: str
    wanted: float
    values: tuple[float | None, ...]
    excess: tuple[float, ...]


def _parts(outlook: PoolForecast, goal: TuningGoal) -> Iterator[_GoalPart]:
    for name, most in (("usd", goal.usd), ("tokens", goal.tokens)):
        if most is not None:
            values: tuple[float | None, ...] = tuple(getattr(row, name) for row in outlook.rows)
            excess = tuple(math.inf if value is None else (value - most) / max(most, 1e-12) for value in values)
            yield _GoalPart(name, most, values, excess)
    if goal.match is not None:
        least = outlook.alone[goal.match].accuracy - goal.within
        # A lead compares the two on the queries that some model may answer within the limits.
        excess = tuple((-lead - goal.within) / max(least, 1e-12) for lead, _ in outlook.leads)
        yield _GoalPart("match", least, tuple(row.accuracy for row in outlook.rows), excess)


def _best(outlook: PoolForecast, good: list[int], goal: TuningGoal) -> int:
    """Return the best row among those that meet the goal."""

    def cost(i: int) -> float:
        usd = outlook.rows[i].usd
        return math.inf if usd is None else usd

    if goal.match is not None:
        return min(good, key=lambda i: (cost(i), outlook.rows[i].alpha))
    return max(good, key=lambda i: (outlook.rows[i].accuracy, -cost(i)))


def _nearest(parts: tuple[_GoalPart, ...], served: list[int]) -> int | None:
    missing = {i: sum(max(part.excess[i], 0.0) for part in parts) for i in served}
    known = [i for i, excess in missing.items() if math.isfinite(excess)]
    return min(known, key=missing.__getitem__) if known else None


def _missed(outlook: PoolForecast, part: _GoalPart, served: list[int]) -> UnmetGoal:
    known = [i for i in served if math.isfinite(part.excess[i])]
    if not known:
        return UnmetGoal(part.name, part.wanted, None, None)
    at = min(known, key=part.excess.__getitem__)
    return UnmetGoal(part.name, part.wanted, part.values[at], outlook.rows[at].alpha)
