"""Choose core anchors: those that tell most about a new model, in that order.

Greedy V-optimal design (Fedorov 1972) under the ability model: each next anchor is the one whose outcome most reduces the
variance of the predicted logit, averaged over the set's own queries. Covering the set follows from that average, and any
first part of the order is the best use of that many questions the greedy rule finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)


def choose_core(
    rows: Floats, offsets: Floats, mean: Floats, covariance: Floats, usable: Floats, size: int
) -> list[int]:
    """Indices of up to `size` anchors, most informative first.

    Args:
        rows, offsets: (n, d), (n,): logit = rows . g + offsets. mean, covariance: the population of g.
        usable: (n,) in [0, 1], the share of models measured on each; what few were measured on tells little of most.
    """
    # What an outcome tells depends on the model; averaged over the population's general ability.
    levels = mean[0] + np.sqrt(covariance[0, 0]) * _NODES
    told = np.zeros(len(rows))
    for level, weight in zip(levels, _WEIGHTS / _WEIGHTS.sum(), strict=True):
        p = 1 / (1 + np.exp(-(rows[:, 0] * level + offsets)))
        told += weight * p * (1 - p)
    # Where right and wrong are as good as sure, no better estimate turns a verdict: those queries count for little.
    average = (rows * told[:, None]).T @ rows / told.sum()
    told *= usable
    current = covariance.copy()
    free = told > 0
    chosen: list[int] = []
    while len(chosen) < min(size, int((told > 0).sum())):
        spread = rows @ current
        along = np.einsum("ij,ij->i", spread, rows)
        gain = np.where(free, told * np.einsum("ij,jk,ik->i", spread, average, spread) / (1 + told * along), -1.0)
        best = int(gain.argmax())
        chosen.append(best)
        free[best] = False
        current -= np.outer(spread[best], spread[best]) * (told[best] / (1 + told[best] * along[best]))
    return chosen
