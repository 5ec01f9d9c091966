"""Who could still be chosen while some p are not settled: what is worth finding out before a decision is made.

Each model's p may still end anywhere in a range. A model could be chosen if the policy chooses it with its own p at the top
of its range and everybody else's at the bottom: no other outcome favours it more, except that near ties (see
`alpha.INDIFFERENCE`) may fall either way. If only one model could be chosen, the decision stands whatever the rest would be.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scope_edge.policy.context import DecisionContext
    from scope_edge.policy.costs import Bools, Ints
    from scope_edge.types import Floats

_CELLS = 1_000_000  # models x models weighed in one go


def contenders(terms: DecisionContext, low: Floats, high: Floats) -> tuple[int, ...]:
    """The models (indices in the pool) that could be chosen, the most promising first.

    low, high: shape (models,), the range of each model's p; where p is unknown they are not looked at. The order is by
    utility with p at the top of its range, then cheapest, then the pool's order: settling the most promising model first
    either confirms it, which shuts out others, or removes it. The present choice is always among them. Empty when nothing
    may be chosen; one model means that the decision stands.
    """
    weighed, rows = terms.weighed, np.flatnonzero(terms.allowed)
    if not rows.size:
        return ()
    p, cost = weighed.p[0], weighed.cost[0]
    bottom, top = (np.where(np.isnan(p), p, end) for end in (low, high))
    step = max(1, _CELLS // len(p))
    parts = [rows[start : start + step] for start in range(0, len(rows), step)]
    could = np.concatenate([part[_wins(terms, bottom, top, part)] for part in parts])
    present = weighed.choose(terms.alpha, terms.allowed[None])[0]
    found = np.union1d(could, present)
    utility = replace(weighed, p=top[None]).choose(terms.alpha, terms.allowed[None])[1][0]
    # A model of unknown cost or p has no utility and comes last, as in the policy's own order.
    promise, price = (np.where(np.isnan(values), -math.inf, values)[found] for values in (utility, -cost))
    order = np.lexsort((weighed.pool.columns.tie_rank[found], -price, -promise))
    return tuple(found[order].tolist())


def _wins(terms: DecisionContext, bottom: Floats, top: Floats, rows: Ints) -> Bools:
    """Whether each of `rows` is chosen with its p at the top and the others' at the bottom."""
    p = np.repeat(bottom[None], len(rows), axis=0)
    p[np.arange(len(rows)), rows] = top[rows]
    chosen = replace(terms.weighed, p=p).choose(terms.alpha, terms.allowed[None])[0]
    return np.asarray(chosen == rows)
