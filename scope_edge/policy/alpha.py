"""The meaning of alpha, from 0 (cheapest) to 1 (most accurate), in a pool.

A model's utility is `p - lambda x cost`: lambda is the accuracy that a dollar must buy. A sensible lambda depends on the
pool's prices and on how its models differ, so it is read off reference anchors, once per pool. Lowering lambda from infinity
to 0 switches one anchor after another from its cheapest model to its most accurate one; alpha is the position on that path.

A dearer model must also be worth a toll, a fixed share of what the most accurate choice costs on average. Without it the
shortest queries, which cost next to nothing anywhere, would all go to the dearest model, for gains that estimates can hardly
tell from none.

Utilities closer than `INDIFFERENCE` count as equal, and of equals the cheapest is chosen. At lambda 0 that is the rule for
alpha 1 (of the models within 0.5 points of the best p, the cheapest). Applied at every lambda, nothing jumps at alpha 1, a
smaller lambda never means a cheaper choice, and no more than 0.5 points of accuracy are lost at equal spend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.types import Floats

INDIFFERENCE = 0.005
# Of the most accurate choice's mean cost. Chosen so that easy everyday asks stay on the device at alpha 0.5, see docs/alpha.md.
TOLL = 0.1
# The share of the reference anchors that may change model per step of 0.05 of alpha. Well below the 25 % promised for
# queries, because anchors are of many kinds and queries of one kind move together (docs/alpha.md).
_MOVED_PER_STEP = 0.1
_STEP = 0.05
# Where no anchor ever trades money for accuracy, a call of average cost is worth this much accuracy at alpha 0.5.
_DEFAULT_WORTH = 0.1
_SAME_LAMBDA = 1e-6  # in log(lambda): far above rounding, far below any difference a user could notice


class Switches(NamedTuple):
    """The models chosen as lambda falls from infinity to 0: per column (query or anchor), cheapest model first.

    `column`, `model`, `floor` have one entry per chosen model: it is chosen from `floor` (included) up to the floor of the
    entry before it, or to infinity for a column's first entry.
    """

    column: NDArray[np.intp]
    model: NDArray[np.intp]
    floor: Floats


@dataclass(frozen=True, slots=True)
class AlphaCurve:
    """lambda as a continuous, strictly decreasing function of alpha: infinity at 0, 0 at 1.

    Attributes:
        alphas: k >= 1 knots in (0, 1), increasing. Between knots log(lambda) is linear in alpha; before the first, lambda
            goes as 1 / alpha^2, after the last it goes linearly to 0.
        log_lambdas: log of lambda (in 1 / US dollar) at the knots, decreasing.
        spend_low, spend_high: mean cost of an anchor at alpha 0 and at alpha 1; None without usable anchors.
        toll: US dollars that any dearer model must be worth beyond its price.
    """

    alphas: Floats
    log_lambdas: Floats
    spend_low: float | None
    spend_high: float | None
    toll: float = 0.0

    def lambda_at(self, alpha: float) -> float:
        """Return lambda at `alpha` in [0, 1]."""
        first, last = float(self.alphas[0]), float(self.alphas[-1])
        if alpha <= 0.0:
            return math.inf
        if alpha <= first:
            ratio = first / alpha
            return math.exp(self.log_lambdas[0]) * ratio * ratio
        if alpha >= last:
            return math.exp(self.log_lambdas[-1]) * (1.0 - alpha) / (1.0 - last)
        return math.exp(float(np.interp(alpha, self.alphas, self.log_lambdas)))

    def alpha_at(self, lam: float) -> float:
        """Return the alpha at which lambda is `lam`, which is >= 0: the inverse of `lambda_at`."""
        if lam <= 0.0:
            return 1.0
        log = math.log(lam)
        first, last = float(self.alphas[0]), float(self.alphas[-1])
        if log >= self.log_lambdas[0]:
            return first * math.exp((float(self.log_lambdas[0]) - log) / 2.0)
        if log <= self.log_lambdas[-1]:
            return 1.0 - (1.0 - last) * math.exp(log - float(self.log_lambdas[-1]))
        return float(np.interp(-log, -self.log_lambdas, self.alphas))


def alpha_curve(p: Floats, cost: Floats) -> AlphaCurve:
    """Read lambda(alpha) off a pool's reference anchors.

    At alpha the mean spend on the anchors is `low + alpha^2 (high - low)`: low is the spend of always choosing the
    cheapest, high that of always choosing the most accurate. With a free model in the pool low is 0, and this is alpha^2
    of the most accurate choice's spend. One exception: the first cents can carry nearly every anchor from a free model to
    a very cheap one, so where a step of 0.05 would move more than 18 % of the anchors, lambda follows the anchors moved
    instead, and the spend stays below alpha^2 until it has caught up.

    Args:
        p: shape (models, anchors), P(correct). cost: same shape, US dollars. Pairs with a NaN in either are left out.
    """
    known = np.isfinite(p) & np.isfinite(cost)
    used = known.any(axis=0)
    p, cost, known = p[:, used], cost[:, used], known[:, used]
    best = np.argmax(np.where(known, p, -math.inf), axis=0)
    toll = TOLL * float(cost[best, np.arange(p.shape[1])].mean()) if p.size else 0.0
    path = switches(np.where(known, p, np.nan), np.where(known, cost, np.nan), toll)
    spend = cost[path.model, path.column]
    follows = path.column[1:] == path.column[:-1]
    starts = np.concatenate(([True], ~follows))[: len(path.column)]
    switch = follows & (path.floor[:-1] > 0.0)
    if not switch.any():
        paid = cost[known & (cost > 0.0)]
        worth = _DEFAULT_WORTH / float(paid.mean()) if paid.size else 1.0
        flat = float(spend[starts].mean()) if spend.size else None
        return AlphaCurve(np.array([0.5]), np.array([math.log(worth)]), flat, flat, toll)
    log_lambda = np.log(path.floor[:-1][switch])
    falling = np.argsort(-log_lambda, kind="stable")
    log_lambda, added = log_lambda[falling], (spend[1:] - spend[:-1])[switch][falling]
    # Anchors that switch at one and the same lambda tie: they switch together, at one knot.
    knot = np.concatenate(([True], log_lambda[:-1] - log_lambda[1:] > _SAME_LAMBDA))
    group = np.cumsum(knot) - 1
    spent, moved = np.cumsum(np.bincount(group, added)), np.cumsum(np.bincount(group)) / p.shape[1]
    after = _paced(np.sqrt(spent / spent[-1]), moved)
    low = float(spend[starts].mean())
    return AlphaCurve(
        alphas=(after + np.concatenate(([0.0], after[:-1]))) / 2.0,
        log_lambdas=log_lambda[knot],
        spend_low=low,
        spend_high=low + float(spent[-1]) / p.shape[1],
        toll=toll,
    )


def _paced(wanted: Floats, moved: Floats) -> Floats:
    """Return alpha after each switch: the earliest not before `wanted` that keeps to the pace of moves, ending at 1.

    Where that pace would end beyond 1, the remaining switches keep the pace and end at 1.
    """
    pace = max(_MOVED_PER_STEP / _STEP, float(moved[-1]))
    behind = np.maximum.accumulate(np.maximum(wanted - moved / pace, 0.0))
    return np.minimum(behind, 1.0 - float(moved[-1]) / pace) + moved / pace


def switches(p: Floats, cost: Floats, toll: float) -> Switches:
    """Return the models chosen as lambda falls, for every column of `p` and `cost`, shape (models, columns).

    toll: US dollars that a dearer model must be worth beyond its price.
    Pairs with a NaN are never chosen. Of models equal in p and cost the first one is.
    """
    floor = _floors(p, cost, toll)
    order = np.lexsort((-p, cost), axis=0)
    floor = np.take_along_axis(floor, order, axis=0)
    cheaper = np.empty_like(floor)
    cheaper[:1] = math.inf
    np.minimum.accumulate(floor[:-1], axis=0, out=cheaper[1:])
    column, row = np.nonzero((floor < cheaper).T)
    return Switches(column, order[row, column], floor[row, column])


def _floors(p: Floats, cost: Floats, toll: float) -> Floats:
    """Return the smallest lambda at which a model is within INDIFFERENCE and the toll of every dearer one.

    -inf if always, inf if never.

    Only dearer models on the upper envelope of the utilities (lines in lambda) can be the best, so walking that envelope
    from the cheapest model up is enough: one step per corner, each vectorised over models and columns. Shapes: (models,
    columns) in and out.
    """
    known = ~(np.isnan(p) | np.isnan(cost))
    floor = np.where(known, -math.inf, math.inf)
    p, cost = np.where(known, p, 0.0), np.where(known, cost, math.inf)
    columns = np.arange(p.shape[1])
    corner = np.argmax(np.where(cost == cost.min(axis=0), p, -math.inf), axis=0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        while True:
            saved = cost[corner, columns] - cost
            gain = p[corner, columns] - p
            floor = np.where(saved > 0.0, np.maximum(floor, (gain - INDIFFERENCE) / (saved + toll)), floor)
            slope = np.where(saved < 0.0, gain / saved, -math.inf)
            ahead = slope.argmax(axis=0)
            going = slope[ahead, columns] > 0.0
            if not going.any():
                return floor
            corner = np.where(going, ahead, corner)
