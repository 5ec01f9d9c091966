"""Accuracy against cost: the upper envelope of a router's points, its figures, and differences at equal cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.evaluation.bootstrap import interval, query_weights
from scope_edge.evaluation.predict import OURS
from scope_edge.evaluation.report import Curve, PairedDifference, RoutingPoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.evaluation.replay import Replay
    from scope_edge.types import Floats

NEAR = 0.005
# The arena score's b, and the cost per 1,000 queries, US dollars, that counts as 1 and as 0.
ARENA_B, ARENA_CHEAP, ARENA_DEAR = 0.1, 0.0044, 200.0
_GRID = 101


def curves(points: Sequence[RoutingPoint], singles: Sequence[RoutingPoint]) -> Mapping[str, Curve]:
    """Return each router's curve; a router with one point has a curve of one point."""
    best = max(singles, key=lambda one: one.accuracy)
    cheapest = min(singles, key=lambda one: (_usd(one), -one.accuracy))
    low, high = _usd(cheapest), _usd(best)
    found = {}
    for router in dict.fromkeys(point.router for point in points):
        mine = [point for point in points if point.router == router]
        # A router that can spend more can also use the cheapest model: its curve begins there.
        begun = [*mine, cheapest] if len(mine) > 1 else mine
        usd, accuracy = envelope(np.array([_usd(p) for p in begun]), np.array([p.accuracy for p in begun]))
        found[router] = Curve(
            router=router,
            usd_per_1k=tuple(usd.tolist()),
            accuracy=tuple(accuracy.tolist()),
            area=area(usd, accuracy, low, high) if low < high else None,
            usd_at_best_single=reach(usd, accuracy, best.accuracy),
            usd_near_best_single=reach(usd, accuracy, best.accuracy - NEAR),
            arena=max(arena(point.accuracy, _usd(point)) for point in mine),
        )
    return found


def envelope(usd: Floats, accuracy: Floats) -> tuple[Floats, Floats]:
    """Return the points that no cheaper one beats, cheapest first, (k,) each."""
    order = np.lexsort((-accuracy, usd))
    usd, accuracy = usd[order], accuracy[order]
    best = np.concatenate([[-np.inf], np.maximum.accumulate(accuracy)[:-1]])
    return usd[accuracy > best], accuracy[accuracy > best]


def at_cost(usd: Floats, accuracy: Floats, grid: Floats) -> Floats:
    """Return an envelope's accuracy at each cost of a grid: between two points a mix of them; NaN below the first."""
    return np.interp(grid, usd, accuracy, left=np.nan)


def area(usd: Floats, accuracy: Floats, low: float, high: float) -> float | None:
    """Return the mean accuracy for spending from `low` to `high`, without the part before the curve begins."""
    values = at_cost(usd, accuracy, np.linspace(low, high, _GRID))
    return None if np.isnan(values).all() else float(np.nanmean(values))


def reach(usd: Floats, accuracy: Floats, wanted: float) -> float | None:
    """Return the least spending that reaches an accuracy; None if it is never reached."""
    if accuracy[-1] < wanted:
        return None
    return float(np.interp(wanted, accuracy, usd)) if len(usd) > 1 else float(usd[0])


def arena(accuracy: float, usd_per_1k: float) -> float:
    """Return RouterArena's score (arXiv 2510.00202): (1 + b) A C / (b A + C), C = 1 for cheap and 0 for dear, on a log scale."""
    bounded = min(max(usd_per_1k, ARENA_CHEAP), ARENA_DEAR)
    cheap = (math.log2(ARENA_DEAR) - math.log2(bounded)) / (math.log2(ARENA_DEAR) - math.log2(ARENA_CHEAP))
    total = ARENA_B * accuracy + cheap
    return (1 + ARENA_B) * accuracy * cheap / total if total > 0 else 0.0


def ahead(one: Replay, singles: Sequence[RoutingPoint]) -> tuple[PairedDifference, ...]:
    """Compare ours with every router that has a curve: mean accuracy at equal cost, bootstrap over query families."""
    best = max(singles, key=lambda single: single.accuracy)
    low, high = min(_usd(single) for single in singles), _usd(best)
    if not low < high:
        return ()
    weights = query_weights(one.groups)
    weights /= weights.sum(axis=1, keepdims=True)
    mine = _areas(one, OURS, weights, low, high)
    rows = []
    for router, by_alpha in one.chosen.items():
        if router != OURS and len(by_alpha) > 1:
            difference = mine - _areas(one, router, weights, low, high)
            bounds = interval(difference[1:])
            rows.append(PairedDifference(OURS, router, "accuracy_at_equal_cost", float(difference[0]), *bounds))
    return tuple(rows)


def _areas(one: Replay, router: str, weights: NDArray[np.float64], low: float, high: float) -> Floats:
    """Return the mean accuracy over spending, (draws,), for weights (draws, queries)."""
    line = np.arange(len(one.query))
    cheapest = one.usd.mean(axis=0).argmin()
    picks = [*one.chosen[router].values(), np.full(len(one.query), cheapest)]
    right = weights @ np.array([one.correct[line, pick] for pick in picks]).T
    usd = weights @ np.array([one.usd[line, pick] for pick in picks]).T * 1e3
    found = [area(*envelope(usd[i], right[i]), low, high) for i in range(len(weights))]
    return np.array([np.nan if value is None else value for value in found])


def _usd(point: RoutingPoint) -> float:
    assert point.usd_per_1k is not None  # pool_of lets in only models whose cost is known
    return point.usd_per_1k
