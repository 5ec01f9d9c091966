"""What outcomes on the user's own anchors say of the difficulty of queries near them, and nowhere else.

The map says how hard a query is; where models were measured on questions of the user's own, it is known where the map errs.
What it missed there is a Gaussian process over embeddings (Rasmussen and Williams 2006, ch. 2), whose covariance falls off in
two steps: a part that a whole topic shares and one that only close questions do. So an import moves its neighborhood, beside
the abilities of its models. Of a set's level nothing is told: `refit` leaves that to the map and the abilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimation.ability import missed_variance

if TYPE_CHECKING:
    from scope_edge.estimation.ability import Population
    from scope_edge.estimation.difficulty import MapPositions
    from scope_edge.estimation.refit import Placed, RefitPosterior
    from scope_edge.types import Floats, Vector

# The process's covariance, as shares of what the map leaves unexplained: (share, sharpness), of exp(sharpness (cos - 1)).
_COVARIANCE = ((0.5, 2.0), (0.4, 8.0))
# Anchors that one query looks at, the nearest: their covariance is a matrix.
_NEAREST = 64
_LEAST_TOLD = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class LocalDifficulty:
    """What the map missed at n anchors.

    Attributes:
        vectors: (n, d) float32, unit. missed: (n,) difficulty by the outcomes alone, less the map's. noise: (n,) its variance.
    """

    vectors: Vector
    missed: Floats
    noise: Floats

    @classmethod
    def of(cls, placed: Mapping[str, Placed], found: Mapping[str, RefitPosterior]) -> LocalDifficulty | None:
        """Read it off refitted anchor sets; None when they tell nothing."""
        vectors, missed, noise = [], [], []
        for name, posterior in found.items():
            one = placed[name]
            told = posterior.information - 1 / one.variance
            known = told > _LEAST_TOLD
            away = (posterior.difficulty - one.anchors.map_difficulty)[known]
            away = away * posterior.information[known] / told[known]
            vectors.append(one.anchors.vectors[known])
            missed.append(away - np.average(away, weights=told[known]) if known.any() else away)
            noise.append(1 / told[known])
        joined = cls(np.concatenate(vectors), np.concatenate(missed), np.concatenate(noise)) if vectors else None
        return joined if joined is not None and len(joined.missed) else None

    def at(self, vector: Vector, variance: float) -> tuple[float, float]:
        """Return what to add to the map's difficulty at a unit vector, and the variance left of what the map missed there.

        variance: of what the map misses without anchors.
        """
        cosines = self.vectors @ vector
        near = np.argpartition(-cosines, _NEAREST - 1)[:_NEAREST] if len(cosines) > _NEAREST else slice(None)
        here = self.vectors[near]
        across = variance * covariance(cosines[near])
        among = variance * covariance(here @ here.T) + np.diag(self._own(variance) + self.noise[near])
        weights = np.linalg.solve(among, np.column_stack([self.missed[near], across]))
        return float(across @ weights[:, 0]), max(float(variance - across @ weights[:, 1]), 0.0)

    def corrected(self, place: MapPositions, vector: Vector, population: Population) -> MapPositions:
        """Return one query's position, its difficulty corrected at its unit vector."""
        variance = float(missed_variance(place, population))
        shift, left = self.at(vector, variance)
        return replace(place, difficulty=place.difficulty + shift, explained=np.asarray(variance - left))

    @staticmethod
    def _own(variance: float) -> float:
        """Return the variance that no other anchor shares."""
        return variance * (1 - sum(share for share, _ in _COVARIANCE))


def covariance(cosines: Vector) -> Floats:
    """Return the part of the variance that two texts of this cosine share, in [0, 1)."""
    return np.asarray(
        sum(share * np.exp(sharpness * (cosines.astype(np.float64) - 1)) for share, sharpness in _COVARIANCE)
    )
