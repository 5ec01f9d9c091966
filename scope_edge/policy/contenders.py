"""Contenders: the models that could still be chosen while some p are uncertain, and so are worth a closer look.

Each model's p may still end anywhere in a range. A model could be chosen if the policy chooses it with its own p at the top
of its range and all others at the bottom: no other outcome favours it more, except that near ties (see
`alpha.INDIFFERENCE`) may fall either way. If only one model could be chosen, the decision is final.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scope_edge.policy.utility import DecisionContext
    from scope_edge.types import Floats

_CELLS = 1_000_000  # models x models scored in one go


def contenders(context: DecisionContext, low: Floats, high: Floats) -> tuple[int, ...]:
    """Return the models (indices in the pool) that could be chosen, the most promising first.

    low, high: shape (models,), the range of each model's p; ignored where p is unknown. The order is by utility with p at
    the top of its range, then cheapest, then the pool's order: settling the most promising model first either confirms it,
    which shuts out others, or removes it. The present choice is always included. Empty when nothing may be chosen; one
    model means that the decision is final.
    """
    scored, rows, allowed = context.scored, np.flatnonzero(context.allowed), context.allowed[None]
    if not rows.size:
        return ()
    p, cost = scored.p[0], scored.cost[0]
    bottom, top = (np.where(np.isnan(p), p, end) for end in (low, high))
    step = max(1, _CELLS // len(p))
    found = scored.choose(context.alpha, allowed)[0]
    for part in (rows[start : start + step] for start in range(0, len(rows), step)):
        # Row i: the p of model part[i] at its top, all others at the bottom.
        tried = np.repeat(bottom[None], len(part), axis=0)
        tried[np.arange(len(part)), part] = top[part]
        found = np.union1d(found, part[replace(scored, p=tried).choose(context.alpha, allowed)[0] == part])
    utility = replace(scored, p=top[None]).choose(context.alpha, allowed)[1][0]
    # A model of unknown cost or p has no utility and comes last, as in the policy's own order.
    promise, price = (np.where(np.isnan(values), -math.inf, values)[found] for values in (utility, -cost))
    order = np.lexsort((scored.pool.columns.tie_rank[found], -price, -promise))
    return tuple(found[order].tolist())
