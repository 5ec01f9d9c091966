"""The prior: an estimate from the map and the model's fingerprint alone, with no language model. Under a millisecond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge import assets
from scope_edge.ability import (
    Ability,
    Population,
    fit_ability,
    length_design,
    population_from_body,
    query_row,
    query_variance,
    upper_residual,
)
from scope_edge.calibration import Calibration, RawEstimates, calibrate, calibration_from_body, probability
from scope_edge.difficulty import DifficultyMap, Place, map_from_body
from scope_edge.fingerprints import slice_of
from scope_edge.packs import unpack
from scope_edge.records import EstimatorReport

if TYPE_CHECKING:
    from scope_edge.anchors import AnchorSet
    from scope_edge.fingerprints import Fingerprint
    from scope_edge.records import EncodedQuery, Estimates, Evidence, Floats, ModelCard, Slice

MAP = "anchors/map.pack"
# Evidence is strong when the query is inside the known domain and the model's ability is pinned down; see docs/models.md.
NEAR = 0.5
# Anchors in a slice.
SLICE = 10
PINNED = 0.6


class Prior:
    """Estimates every model of one pool from its fingerprints."""

    name = "prior"

    def __init__(
        self,
        fitted: DifficultyMap,
        population: Population,
        pool: Sequence[ModelCard],
        fingerprints: Mapping[str, Sequence[Fingerprint]],
        *,
        calibration: Calibration,
        coverage: float,
    ) -> None:
        """Fit the ability of every model of the pool that has a fingerprint (about 2 ms a model).

        coverage: of the upper bound on completion tokens, in (0, 1).
        """
        self._map = fitted
        self._population = population
        self._calibration = calibration
        self._parts = fingerprints
        self.models = tuple(card.id for card in pool)
        abilities = [fit_ability(parts, population) if (parts := fingerprints.get(m)) else None for m in self.models]
        unknown = _unknown(population)
        known = [ability or unknown for ability in abilities]
        self._far: tuple[Evidence, ...] = tuple("none" if ability is None else "weak" for ability in abilities)
        self._mean = np.array([one.mean for one in known])
        self._covariance = np.array([one.covariance for one in known])
        self._length_mean = np.array([one.length_mean for one in known])
        self._length_covariance = np.array([one.length_covariance for one in known])
        self._spread = np.array([one.spread for one in known])
        self._upper = np.array([upper_residual(one.residuals, population.length_residuals, coverage) for one in known])
        self._factor = np.array([card.token_factor for card in pool])
        self._source = tuple("none" if ability is None else "prior" for ability in abilities)

    def estimate(self, encoded: EncodedQuery, similarity: float) -> tuple[Estimates, EstimatorReport]:
        """What every model of the pool is expected to do. similarity: of the nearest anchor of the bank."""
        return calibrate(self.at(self._map.place(encoded), similarity), self._calibration), EstimatorReport(self.name)

    def slices(self, encoded: EncodedQuery) -> tuple[Slice, ...]:
        """Every measured model's outcomes on its own anchors nearest to the query."""
        return tuple(
            slice_of(model, parts, encoded.vector, SLICE) for model in self.models if (parts := self._parts.get(model))
        )

    def at(self, place: Place, similarity: float) -> RawEstimates:
        """Raw estimates for one query whose place on the map is known."""
        row, offset = query_row(place.difficulty, place.domains, place.traits, self._population)
        one = self._moments(row[None], np.array([offset]), np.array([place.log_length]), place.domains[None])
        return RawEstimates(
            models=self.models,
            logit=one.logit[:, 0],
            ability_variance=one.ability_variance[:, 0],
            query_variance=one.query_variance,
            domains=place.domains,
            log_tokens=one.log_tokens[:, 0],
            log_spread=one.log_spread[:, 0],
            upper=self._upper,
            token_factor=self._factor,
            evidence=self._evidence(one.ability_variance[:, 0], similarity),
            source=self._source,
        )

    def on(self, anchors: AnchorSet) -> tuple[Floats, Floats]:
        """(P(correct), median tokens in own tokens) on a core set's anchors as if each were a new query: (models, n)."""
        rows, offsets = query_row(anchors.map_difficulty, anchors.domains, anchors.traits, self._population)
        many = self._moments(rows, offsets, anchors.log_length, anchors.domains)
        p = probability(many.logit, many.ability_variance + many.query_variance, anchors.domains, self._calibration)
        return p, self._factor[:, None] * np.exp(many.log_tokens)

    def _moments(self, rows: Floats, offsets: Floats, log_length: Floats, domains: Floats) -> _Moments:
        """Means and variances for q queries: rows (q, d), offsets and log_length (q,), domains (q, sets)."""
        lengths = length_design(log_length, domains, self._population)
        noise = (domains @ self._population.length_noise) * self._spread[:, None] ** 2
        return _Moments(
            logit=self._mean @ rows.T + offsets,
            ability_variance=_spread_along(rows, self._covariance),
            query_variance=query_variance(rows, domains, self._population),
            log_tokens=self._length_mean @ lengths.T,
            log_spread=np.sqrt(noise + _spread_along(lengths, self._length_covariance)),
        )

    def _evidence(self, variance: Floats, similarity: float) -> tuple[Evidence, ...]:
        if similarity < NEAR:
            return self._far
        pinned = (variance <= PINNED**2).tolist()
        return tuple("strong" if sure else far for sure, far in zip(pinned, self._far, strict=True))


def load_map() -> tuple[DifficultyMap, Population, Calibration]:
    """The bundled map with what was learned beside it. Raises AssetError when it is missing or damaged."""
    body = unpack(assets.read(MAP), "map", MAP, verified=True)
    parts = (body.get(name, {}) for name in ("map", "population", "calibration"))
    fitted, population, calibration = parts
    return map_from_body(fitted, MAP), population_from_body(population, MAP), calibration_from_body(calibration, MAP)


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """As in `RawEstimates`, for many queries at once: shape (models, q), query_variance (q,)."""

    logit: Floats
    ability_variance: Floats
    query_variance: Floats
    log_tokens: Floats
    log_spread: Floats


def _spread_along(rows: Floats, covariances: Floats) -> Floats:
    """r' C r for every row r of (q, d) and every C of (n, d, d): shape (n, q). einsum alone would take ten times as long."""
    n, d, _ = covariances.shape
    half = (covariances.reshape(n * d, d) @ rows.T).reshape(n, d, -1)
    variance: Floats = np.einsum("ndq,qd->nq", half, rows)
    return variance


def _unknown(population: Population) -> Ability:
    """Stands in the arrays for a model without a fingerprint: all its numbers are unknown, not guessed."""
    d, length = len(population.mean), len(population.length_mean)
    return Ability(
        mean=np.full(d, np.nan),
        covariance=np.full((d, d), np.nan),
        measured=0,
        length_mean=np.full(length, np.nan),
        length_covariance=np.full((length, length), np.nan),
        spread=np.nan,
        residuals=np.zeros(0),
    )
