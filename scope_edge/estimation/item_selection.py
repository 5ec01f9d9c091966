"""Which anchors tell most about a model, and in what order they are best asked.

Greedy V-optimal design (Fedorov 1972) under the ability model: each next anchor is the one whose outcome most reduces the
variance of the predicted logit, averaged over the set's own queries. Covering the set follows from that average. Before
anything is known of a model, the population says what its outcomes will tell; with every answer its own ability says it
better, so that an able model is asked hard questions and a weak one easy ones.
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
# Anchors `asked` takes between two looks at the answers: one at a time would be no better, and takes five times as long.
_STEP = 5


class ItemSelector:
    """How much each anchor of a set would tell."""

    def __init__(self, anchors: AnchorSet, population: Population) -> None:
        # By what questions of a set usually tell: an anchor chosen for its own discrimination is one that was overestimated.
        typical = replace(anchors, discrimination=anchors.domains @ population.discrimination)
        self._rows, self._offsets = design(typical), -typical.discrimination * typical.difficulty
        self._population = population

    def order(self, usable: Floats, size: int) -> list[int]:
        """Up to `size` anchors, most telling first, of a model that nothing is known of. usable: as in `following`."""
        return self.following(self._population.mean, self._population.covariance, usable, size)

    def following(
        self, mean: Floats, covariance: Floats, usable: Floats, size: int, under_way: Sequence[int] = ()
    ) -> list[int]:
        """Up to `size` anchors, most telling first, of a model whose abilities have this mean (d,) and covariance (d, d).

        usable: (n,) in [0, 1], how likely an anchor's outcome is to be had; those of 0 are never chosen.
        under_way: anchors whose outcome is not there yet, but will be.
        """
        told = self._told(mean, float(covariance[0, 0]))
        # Where right and wrong are as good as sure, no better estimate turns a verdict: those queries count for little.
        average = (self._rows * told[:, None]).T @ self._rows / told.sum()
        current = covariance.copy()
        for one in under_way:
            current = self._after(current, one, told[one])
        told *= usable
        free = told > 0
        chosen: list[int] = []
        for _ in range(min(size, int(free.sum()))):
            spread = self._rows @ current
            along = np.einsum("ij,ij->i", spread, self._rows)
            gain = np.where(free, told * np.einsum("ij,jk,ik->i", spread, average, spread) / (1 + told * along), -1.0)
            best = int(gain.argmax())
            chosen.append(best)
            free[best] = False
            current = self._after(current, best, told[best])
        return chosen

    def _told(self, mean: Floats, variance: float) -> Floats:
        """(n,) information in an outcome, p (1 - p), averaged over what the general ability may be."""
        logits, told = self._rows @ mean + self._offsets, np.zeros(len(self._rows))
        for node, weight in zip(_NODES, _WEIGHTS / _WEIGHTS.sum(), strict=True):
            p = sigmoid(logits + self._rows[:, 0] * variance**0.5 * node)
            told += weight * p * (1 - p)
        return told

    def _after(self, covariance: Floats, anchor: int, told: float) -> Floats:
        """What is left of a covariance once an anchor's outcome is known."""
        spread = covariance @ self._rows[anchor]
        left: Floats = covariance - np.outer(spread, spread) * (told / (1 + told * (spread @ self._rows[anchor])))
        return left


def asked(one: Fingerprint, population: Population, size: int) -> Fingerprint:
    """The fingerprint as it would be had only `size` anchors been asked, each chosen by the answers before it."""
    usable = np.isfinite(one.correct).astype(np.float64)
    if usable.sum() <= size:
        return one
    telling = ItemSelector(one.anchors, population)
    mean, covariance = population.mean, population.covariance
    correct = np.full(len(one.correct), np.nan)
    for done in range(0, size, _STEP):
        chosen = telling.following(mean, covariance, usable, min(_STEP, size - done))
        correct[chosen], usable[chosen] = one.correct[chosen], 0.0
        mean, covariance = fit_correct([replace(one, correct=correct)], population)
    return replace(one, correct=correct, tokens=np.where(np.isfinite(correct), one.tokens, np.nan))
