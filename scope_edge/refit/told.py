"""What models tell of one anchor set whose difficulty the map guessed.

Of every anchor, difficulty b has a Gaussian prior: the map's word as its mean, what the map usually misses
(`Population.unexplained`) as its variance. Every outcome is evidence, the less the less the model's ability is known. The
posterior's mode is found by Newton's method, its variance is Laplace's.

A model is judged by what the *others* tell, never by its own outcomes twice: they are taken out of the posterior again by one
Newton step, which is exact where it was the only one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.ability import softening
from scope_edge.newton import sigmoid

if TYPE_CHECKING:
    from scope_edge.ability import Population
    from scope_edge.anchors import AnchorSet
    from scope_edge.records import Floats

_STEPS = 30
# In logits of difficulty: the longest step, so that none leaves the region where the next one is better; and the end.
_STRIDE, _SETTLED = 1.0, 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """An anchor set as the map placed it, with the blur taken off.

    slope: (n,) discrimination, and rows: (n, d) with logit = rows . g - slope b, of an anchor whose difficulty is known.
    variance: (n,) of what the map misses.
    """

    anchors: AnchorSet
    slope: Floats
    rows: Floats
    variance: Floats

    @classmethod
    def of(cls, anchors: AnchorSet, population: Population) -> Placed:
        """As `placing.place` made it."""
        slope, variance = anchors.domains @ population.discrimination, anchors.domains @ population.unexplained
        traits = anchors.traits / softening(slope, variance)[:, None]
        rows = np.hstack([slope[:, None], slope[:, None] * anchors.domains, traits])
        return cls(anchors, slope, rows, variance)

    def seen(self, difficulty: Floats, variance: Floats) -> AnchorSet:
        """The set with these difficulties, known but for these variances, each (n,)."""
        factor = softening(self.slope, variance)
        return replace(
            self.anchors,
            difficulty=difficulty,
            discrimination=self.slope * factor,
            traits=self.rows[:, 1 + self.anchors.domains.shape[1] :] * factor[:, None],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """difficulty: (n,) mode; information: (n,) of the posterior there, the prior's included.

    models: whose outcomes it rests on. pulls, shares: (models, n) what each adds to the gradient and to the information.
    """

    models: Sequence[str]
    difficulty: Floats
    information: Floats
    pulls: Floats
    shares: Floats

    def by_others(self, model: str, placed: Placed) -> AnchorSet:
        """The set as the map and all models but this one tell."""
        difficulty, information = self.difficulty, self.information
        if model in self.models:
            row = self.models.index(model)
            information = information - self.shares[row]
            difficulty = difficulty + self.pulls[row] / information
        return placed.seen(_centered(difficulty, information, placed), 1 / information)


def _centered(difficulty: Floats, information: Floats, placed: Placed) -> Floats:
    """Difficulties without what they have in common, as far as each was told: on the whole they stay as hard as the map says.

    What all anchors seem harder by than the map says may be an error in the models' abilities; and if it is the map's, it errs
    so about queries like these too, which are predicted by the map.
    """
    told = 1 - 1 / (placed.variance * information)
    guess = placed.anchors.map_difficulty
    return difficulty - told * ((told @ (difficulty - guess)) / max(float(told @ told), 1e-9))


def tell(placed: Placed, outcomes: Mapping[str, Floats], abilities: Mapping[str, tuple[Floats, Floats]]) -> Told:
    """What models tell. outcomes: model -> (n,), NaN = missing. abilities: model -> mean (d,) and covariance (d, d)."""
    models, rows = list(outcomes), placed.rows
    correct = np.array([outcomes[model] for model in models])
    known = ~np.isnan(correct)
    level = np.array([rows @ abilities[model][0] for model in models])
    doubt = np.array([np.einsum("ij,ij->i", rows @ abilities[model][1], rows) for model in models])
    blur = np.where(known, softening(1.0, doubt), 0.0)
    correct = np.where(known, correct, 0.0)
    prior = 1 / placed.variance
    guess = difficulty = placed.anchors.map_difficulty
    for _ in range(_STEPS):
        p = sigmoid(blur * (level - placed.slope * difficulty))
        pulls = blur * placed.slope * (correct - p)
        shares = (blur * placed.slope) ** 2 * p * (1 - p)
        information = prior + shares.sum(axis=0)
        step = np.clip((prior * (difficulty - guess) + pulls.sum(axis=0)) / information, -_STRIDE, _STRIDE)
        difficulty = difficulty - step
        if np.abs(step).max() < _SETTLED:
            break
    return Told(models, difficulty, information, pulls, shares)
