"""Item selection: the order in which anchors are most informative about a model.

Greedy V-optimal design (Fedorov 1972) under the ability model: each next anchor is the one whose outcome most reduces the
variance of the predicted logit, averaged over the set's own queries. Covering the set follows from that average. For a new
model the population predicts the information; with every answer the model's own ability does so better, so that an able
model gets hard questions and a weak one easy ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimation.ability import design, fit_correct
from scope_edge.estimation.newton import sigmoid

if TYPE_CHECKING:
    from scope_edge.estimation.ability import Population
    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.types import Floats

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
# Anchors that `asked` selects between two fits: one at a time would be no better, and takes five times as long.
_STEP = 5


class ItemSelector:
    """Selects the anchors of a set that are most informative about a model."""

    def __init__(self, anchors: AnchorSet, population: Population) -> None:
        # With a set's typical discrimination: an anchor selected for its own one is likely to be overestimated.
        typical = replace(anchors, discrimination=anchors.domains @ population.discrimination)
        self._rows, self._offsets = design(typical), -typical.discrimination * typical.difficulty
        self._population = population

    def order(self, usable: Floats, size: int) -> list[int]:
        """Return up to `size` anchors, most informative first, for a new model. usable: as in `next_items`."""
        return self.next_items(self._population.mean, self._population.covariance, usable, size)

    def next_items(
        self, mean: Floats, covariance: Floats, usable: Floats, size: int, under_way: Sequence[int] = ()
    ) -> list[int]:
        """Return up to `size` anchors, most informative first, for a model with this ability: mean (d,), covariance (d, d).

        usable: (n,) in [0, 1], the probability of getting an anchor's outcome; anchors of 0 are never chosen.
        under_way: anchors whose outcome is still missing, but will come.
        """
        information = self._information(mean, float(covariance[0, 0]))
        # Where right or wrong is nearly certain, no better estimate changes a decision: those queries count for little.
        average = (self._rows * information[:, None]).T @ self._rows / information.sum()
        current = covariance.copy()
        for one in under_way:
            current = self._after(current, one, information[one])
        information *= usable
        free = information > 0
        chosen: list[int] = []
        for _ in range(min(size, int(free.sum()))):
            spread = self._rows @ current
            reduced = information * ((spread @ average) * spread).sum(axis=1)
            gain = np.where(free, reduced / (1 + information * np.einsum("ij,ij->i", spread, self._rows)), -1.0)
            best = int(gain.argmax())
            chosen.append(best)
            free[best] = False
            current = self._after(current, best, information[best])
        return chosen

    def _information(self, mean: Floats, variance: float) -> Floats:
        """(n,) information in an outcome, p (1 - p), averaged over the uncertainty of the general ability."""
        logits, information = self._rows @ mean + self._offsets, np.zeros(len(self._rows))
        for node, weight in zip(_NODES, _WEIGHTS / _WEIGHTS.sum(), strict=True):
            p = sigmoid(logits + self._rows[:, 0] * variance**0.5 * node)
            information += weight * p * (1 - p)
        return information

    def _after(self, covariance: Floats, anchor: int, information: float) -> Floats:
        """Return the covariance that remains once an anchor's outcome is known."""
        row = self._rows[anchor]
        spread = covariance @ row
        return np.asarray(covariance - np.outer(spread, spread) * (information / (1 + information * (spread @ row))))


def asked(one: Fingerprint, population: Population, size: int) -> Fingerprint:
    """Return a fingerprint reduced to `size` anchors, each chosen by the answers before it."""
    usable = np.isfinite(one.correct).astype(np.float64)
    if usable.sum() <= size:
        return one
    selector = ItemSelector(one.anchors, population)
    mean, covariance = population.mean, population.covariance
    correct = np.full(len(one.correct), np.nan)
    for done in range(0, size, _STEP):
        chosen = selector.next_items(mean, covariance, usable, min(_STEP, size - done))
        correct[chosen], usable[chosen] = one.correct[chosen], 0.0
        mean, covariance = fit_correct([replace(one, correct=correct)], population)
    return replace(one, correct=correct, tokens=np.where(np.isfinite(correct), one.tokens, np.nan))
