"""The one rule of order between candidates, for one query or many.

First come the models whose p and cost are both known: of those within `slack` of the best score the cheapest is chosen;
ties go to the higher p, then to the device, then to pool order. After them come measured models of unknown cost, by p, and
last the unmeasured ones, by price, since nothing else is known of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scope_edge.policy.costs import Bools, Ints, PoolColumns
    from scope_edge.types import Floats


def weighable(p: Floats, cost: Floats) -> Bools:
    """The candidates that can be weighed: p and cost are both known."""
    return np.isfinite(p) & np.isfinite(cost)


def choose(pool: PoolColumns, score: Floats, slack: float, p: Floats, cost: Floats, allowed: Bools) -> Ints:
    """The chosen model of every query: index in the pool, shape (queries,), -1 where nothing is allowed.

    Each query is decided on its own row alone. `score`, `p`, `cost`, `allowed`: shape (queries, models), or (1, models)
    for what all queries share; where `p` or `cost` is NaN the score is not looked at.
    """
    near = weighable(p, cost) & allowed & np.ones(score.shape, bool)
    known = near.any(axis=1)
    score = np.where(near, score, -np.inf)
    near &= score >= score.max(axis=1, keepdims=True) - slack
    cheap = np.where(near, cost, np.inf)
    near &= cheap == cheap.min(axis=1, keepdims=True)
    best = np.where(near, p, -np.inf)
    near &= best == best.max(axis=1, keepdims=True)
    chosen = _first(near, pool.tie_rank)
    return chosen if known.all() else np.where(known, chosen, _unweighed(pool, p, allowed, score.shape))


def ranking(pool: PoolColumns, score: Floats, p: Floats, cost: Floats, allowed: Bools) -> Ints:
    """All models of one query, best first: the allowed ones, then the others. All arguments: shape (models,).

    The order is that of `choose` with no slack.
    """
    known = weighable(p, cost)
    group = np.where(known, 0, np.where(np.isnan(p), 2, 1)) + np.where(allowed, 0, 3)
    key = np.where(known, -score, np.where(np.isnan(p), pool.price_rank, -p))
    return np.lexsort((pool.tie_rank, -p, cost, key, group))


def _unweighed(pool: PoolColumns, p: Floats, allowed: Bools, shape: tuple[int, ...]) -> Ints:
    allowed = np.broadcast_to(allowed, shape)
    measured = allowed & ~np.isnan(p)
    best = np.where(measured, p, -np.inf)
    measured &= best == best.max(axis=1, keepdims=True)
    by_price = _first(allowed, pool.price_rank)
    return np.where(measured.any(axis=1), _first(measured, pool.tie_rank), by_price)


def _first(among: Bools, rank: Ints) -> Ints:
    """The index with the smallest rank of each row of `among`; -1 for a row without any."""
    ranks = np.where(among, rank, len(rank))
    return np.where(among.any(axis=1), ranks.argmin(axis=1), -1)
