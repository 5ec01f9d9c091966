"""The nearest alpha below and above at which the choice would be another one, and which.

Alphas of flips are multiples of 0.001, so that what is shown can be typed back in: at a flip's alpha the choice is the
named model, and at every multiple between it and the present alpha it is the present choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.policy.alpha import switches
from scope_edge.policy.ranking import weighable
from scope_edge.types import AlphaSwitch

if TYPE_CHECKING:
    from scope_edge.policy.costs import Bools
    from scope_edge.policy.utility import ScoredCandidates

STEPS = 1000
_CELLS = 8192  # alphas x models scored in one go


def flips(
    weighed: ScoredCandidates, alpha: float, chosen: int, allowed: Bools
) -> tuple[AlphaSwitch | None, AlphaSwitch | None]:
    """(below, above) for one query: `weighed` and `allowed` have shape (1, models), `chosen` is its choice at `alpha`."""
    movable = np.flatnonzero(allowed[0] & weighable(weighed.p[0], weighed.cost[0]))
    if len(movable) < 2:
        return None, None
    below, above = range(math.ceil(alpha * STEPS) - 1, -1, -1), range(math.floor(alpha * STEPS) + 1, STEPS + 1)
    if weighed.policy == "paper":
        return _scan(weighed, below, chosen, allowed), _scan(weighed, above, chosen, allowed)
    # A cheaper model takes over at its floor, the chosen one gives way below its own: see `Switches`.
    curve, lam = weighed.pool.curve, weighed.pool.curve.lambda_at(alpha)
    floors = switches(weighed.p[0, movable, None], weighed.cost[0, movable, None]).floor
    now = int(np.argmax(floors <= lam))
    down = _nearby(curve.alpha_at(float(floors[now - 1])), below) if now else ()
    up = _nearby(curve.alpha_at(float(floors[now])), above) if floors[now] > 0.0 else ()
    return _first_change(weighed, down, chosen, allowed), _first_change(weighed, up, chosen, allowed)


def _first_change(weighed: ScoredCandidates, steps: Iterable[int], chosen: int, allowed: Bools) -> AlphaSwitch | None:
    for step in steps:
        found = int(weighed.choose(step / STEPS, allowed)[0][0])
        if found != chosen:
            return AlphaSwitch(step / STEPS, weighed.pool.columns.models[found])
    return None


def _nearby(boundary: float, steps: range) -> range:
    """The two steps on the far side of the exact alpha of a flip: the first has it behind it, or the second does."""
    nearest = round(boundary * STEPS)
    start = max(steps.start, nearest) if steps.step > 0 else min(steps.start, nearest)
    return range(start, steps.stop, steps.step)[:2]


def _scan(weighed: ScoredCandidates, steps: range, chosen: int, allowed: Bools) -> AlphaSwitch | None:
    """Try every step, nearest first: under the paper's formula a choice may come back, so nothing can be skipped."""
    chunk = max(1, _CELLS // len(weighed.pool.columns.models))
    for start in range(0, len(steps), chunk):
        tried = steps[start : start + chunk]
        found, _ = weighed.choose(np.array(tried)[:, None] / STEPS, allowed)
        for step, model in zip(tried, found.tolist(), strict=True):
            if model != chosen:
                return AlphaSwitch(step / STEPS, weighed.pool.columns.models[model])
    return None
