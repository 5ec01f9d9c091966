"""The nearest alphas below and above at which the policy would choose another model.

They are multiples of 0.001, so that a user can type them in: at a switch's alpha the choice is the named model, and at every
multiple between it and the present alpha it is the present choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.policy.alpha import switches
from scope_edge.policy.utility import weighable
from scope_edge.types import AlphaSwitch

if TYPE_CHECKING:
    from scope_edge.policy.costs import Bools
    from scope_edge.policy.utility import ScoredCandidates

STEPS = 1000
_CELLS = 8192  # alphas x models scored in one go


def flips(
    scored: ScoredCandidates, alpha: float, chosen: int, allowed: Bools
) -> tuple[AlphaSwitch | None, AlphaSwitch | None]:
    """Return (below, above) for one query: `scored`, `allowed` have shape (1, models), `chosen` is the choice at `alpha`."""
    movable = np.flatnonzero(allowed[0] & weighable(scored.p[0], scored.cost[0]))
    if len(movable) < 2:
        return None, None
    below, above = range(math.ceil(alpha * STEPS) - 1, -1, -1), range(math.floor(alpha * STEPS) + 1, STEPS + 1)
    if scored.policy == "paper":
        return _scan(scored, below, chosen, allowed), _scan(scored, above, chosen, allowed)
    # A cheaper model takes over at its floor, the chosen one gives way below its own: see `Switches`.
    curve, lam = scored.pool.curve, scored.pool.curve.lambda_at(alpha)
    floors = switches(scored.p[0, movable, None], scored.cost[0, movable, None]).floor
    now = int(np.argmax(floors <= lam))
    down = _nearby(curve.alpha_at(float(floors[now - 1])), below) if now else ()
    up = _nearby(curve.alpha_at(float(floors[now])), above) if floors[now] > 0.0 else ()
    return _first_change(scored, down, chosen, allowed), _first_change(scored, up, chosen, allowed)


def _first_change(scored: ScoredCandidates, steps: Iterable[int], chosen: int, allowed: Bools) -> AlphaSwitch | None:
    for step in steps:
        found = int(scored.choose(step / STEPS, allowed)[0][0])
        if found != chosen:
            return AlphaSwitch(step / STEPS, scored.pool.columns.models[found])
    return None


def _nearby(boundary: float, steps: range) -> range:
    """Return the two steps around the exact alpha of a switch: rounding leaves open which of them is beyond it."""
    nearest = round(boundary * STEPS)
    start = max(steps.start, nearest) if steps.step > 0 else min(steps.start, nearest)
    return range(start, steps.stop, steps.step)[:2]


def _scan(scored: ScoredCandidates, steps: range, chosen: int, allowed: Bools) -> AlphaSwitch | None:
    """Try every step, nearest first: under the paper's formula a choice may come back, so none can be skipped."""
    chunk = max(1, _CELLS // len(scored.pool.columns.models))
    for start in range(0, len(steps), chunk):
        tried = steps[start : start + chunk]
        found, _ = scored.choose(np.array(tried)[:, None] / STEPS, allowed)
        for step, model in zip(tried, found.tolist(), strict=True):
            if model != chosen:
                return AlphaSwitch(step / STEPS, scored.pool.columns.models[model])
    return None
