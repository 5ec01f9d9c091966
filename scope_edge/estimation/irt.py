"""The prior: an estimate from the map and the model's fingerprint alone, with no language model. Under a millisecond."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.estimation.ability import (
    SPREADS,
    Ability,
    Population,
    abilities_body,
    abilities_from_body,
    fit_ability,
    length_design,
    mean_growth,
    population_body,
    population_from_body,
    query_row,
    query_variance,
    spread_along,
    upper_residual,
)
from scope_edge.estimation.calibration import (
    Calibration,
    RawEstimates,
    calibrate,
    calibration_body,
    calibration_from_body,
    probability,
)
from scope_edge.estimation.difficulty import DifficultyMap, MapPosition, MapPositions, map_body, map_from_body
from scope_edge.estimation.fingerprints import slice_of
from scope_edge.estimation.reference import Reference, linking_constants, reference_body, reference_from_body
from scope_edge.storage import assets
from scope_edge.storage.packs import unpack
from scope_edge.types import EstimatorReport

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.estimation.user_calibration import Personal
    from scope_edge.types import EncodedQuery, Estimates, Evidence, Floats, ModelCard, Slice

MAP = "anchors/map.pack"
# Evidence is strong when the query is inside the known domain and the model's ability is pinned down; see docs/models.md.
NEAR = 0.5
# Anchors in a slice.
SLICE = 10
PINNED = 0.6
# How far a user's copy of a model may be from the one that was measured, as a share of how far apart models are (variances).
DRIFT = 0.05


class IrtEstimator:
    """Estimates every model of one pool from its fingerprints. calibration: of each of its models."""

    name = "prior"

    def __init__(
        self,
        basis: IrtModel,
        pool: Sequence[ModelCard],
        fingerprints: Mapping[str, Sequence[Fingerprint]],
        *,
        coverage: float,
        personal: Personal | None = None,
    ) -> None:
        """Fit the ability of every model of the pool that has a fingerprint (about 2 ms a model).

        coverage: of the upper bound on completion tokens, in (0, 1). personal: what the user's own fingerprints correct.
        """
        population = basis.population
        self._map = basis.map
        self._population = population
        self._parts = fingerprints
        self.models = tuple(card.id for card in pool)
        calibration = _calibration(basis, self.models, fingerprints)
        self.calibration = calibration if personal is None else personal.on(calibration, self.models)
        abilities = [ability_of(basis, model, fingerprints.get(model, ())) for model in self.models]
        unknown = _unknown(population)
        known = [ability or unknown for ability in abilities]
        self._far: tuple[Evidence, ...] = tuple("none" if ability is None else "weak" for ability in abilities)
        self._mean = np.array([one.mean for one in known])
        self._covariance = np.array([one.covariance for one in known])
        self._reference = basis.reference
        self._shift = linking_constants(basis.by_set, population, self._mean, self._covariance)
        self._length_mean = np.array([one.length_mean for one in known])
        self._length_covariance = np.array([one.length_covariance for one in known])
        self._spread = np.array([one.spread for one in known])
        self._upper = np.array([upper_residual(one.residuals, population.length_residuals, coverage) for one in known])
        self._growth = [mean_growth(one.residuals, population.length_residuals) for one in known]
        self._factor = np.array([card.token_factor for card in pool])
        self._source = tuple("none" if ability is None else "prior" for ability in abilities)

    def estimate(self, encoded: EncodedQuery, similarity: float) -> tuple[Estimates, EstimatorReport]:
        """What every model of the pool is expected to do. similarity: of the nearest anchor of the bank."""
        return calibrate(self.at(self._map.place(encoded), similarity), self.calibration), EstimatorReport(self.name)

    def slices(self, encoded: EncodedQuery) -> tuple[Slice, ...]:
        """Every measured model's outcomes on its own anchors nearest to the query."""
        return tuple(
            slice_of(model, parts, encoded.vector, SLICE) for model in self.models if (parts := self._parts.get(model))
        )

    def at(self, place: MapPosition, similarity: float) -> RawEstimates:
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

    def table(self, places: MapPositions, similarity: Floats) -> EstimateTable:
        """What `estimate` says of each of q queries, as columns. similarity: (q,), of the nearest anchor of the bank."""
        rows, offsets = query_row(places.difficulty, places.domains, places.traits, self._population)
        many = self._moments(rows, offsets, places.log_length, places.domains)
        p = probability(many.logit, many.ability_variance + many.query_variance, places.domains, self.calibration)
        factor = self._factor[:, None]
        growth = np.array(
            [np.interp(row, SPREADS, one) for row, one in zip(many.log_spread, self._growth, strict=True)]
        )
        upper = self.calibration.widening * np.maximum(self._upper, 0.0)
        high = many.log_tokens + upper[:, None] * many.log_spread
        return EstimateTable(
            models=self.models,
            p_correct=p.T,
            tokens=(factor * np.exp(many.log_tokens)).T,
            tokens_mean=(factor * np.exp(many.log_tokens + growth)).T,
            tokens_hi=(factor * np.exp(high)).T,
            strong=(many.ability_variance <= PINNED**2).T & (similarity >= NEAR)[:, None],
        )

    def drawn(self, count: int) -> Iterator[IrtEstimator]:
        """The same, `count` times, with abilities drawn from what is known of them and then taken to be exactly so."""
        rng = np.random.default_rng(0)
        half, length_half = _root(self._covariance), _root(self._length_covariance)
        for _ in range(count):
            other = copy(self)
            other._mean = self._mean + np.einsum("nij,nj->ni", half, rng.standard_normal(self._mean.shape))
            other._covariance = np.zeros_like(self._covariance)
            other._shift = linking_constants(self._reference, self._population, other._mean, other._covariance)
            away = np.einsum("nij,nj->ni", length_half, rng.standard_normal(self._length_mean.shape))
            other._length_mean, other._length_covariance = (
                self._length_mean + away,
                np.zeros_like(self._length_covariance),
            )
            yield other

    def on(self, anchors: AnchorSet) -> EstimateTable:
        """What it says of a core set's anchors as if each were a new query, near to what is known."""
        places = MapPositions(anchors.map_difficulty, anchors.log_length, anchors.domains, anchors.traits)
        return self.table(places, np.ones(len(anchors)))

    def _moments(self, rows: Floats, offsets: Floats, log_length: Floats, domains: Floats) -> _Moments:
        """Means and variances for q queries: rows (q, d), offsets and log_length (q,), domains (q, sets)."""
        lengths = length_design(log_length, domains, self._population)
        noise = (domains @ self._population.length_noise) * self._spread[:, None] ** 2
        return _Moments(
            logit=self._mean @ rows.T + offsets + self._shift @ domains.T,
            ability_variance=spread_along(rows, self._covariance),
            query_variance=query_variance(rows, domains, self._population),
            log_tokens=self._length_mean @ lengths.T,
            log_spread=np.sqrt(noise + spread_along(lengths, self._length_covariance)),
        )

    def _evidence(self, variance: Floats, similarity: float) -> tuple[Evidence, ...]:
        if similarity < NEAR:
            return self._far
        pinned = (variance <= PINNED**2).tolist()
        return tuple("strong" if sure else far for sure, far in zip(pinned, self._far, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class IrtModel:
    """What was learned from every model ever measured, and every estimate rests on.

    Attributes:
        reference: a fair sample of the bank. by_set: as many queries of a small set as of a large one, for `matching.py`:
            the mean over a set must be known to a point. abilities: of the models measured.
    """

    map: DifficultyMap
    population: Population
    calibration: Calibration
    reference: Reference
    by_set: Reference
    abilities: Mapping[str, Ability]


def load_irt_model() -> IrtModel:
    """The bundled one. Raises AssetError when it is missing or damaged."""
    return irt_model_from_body(unpack(assets.read(MAP), "map", MAP, verified=True), MAP)


def irt_model_body(basis: IrtModel) -> dict[str, Any]:
    """All of it as the body of a pack."""
    return {
        "map": map_body(basis.map),
        "population": population_body(basis.population),
        "calibration": calibration_body(basis.calibration),
        "reference": reference_body(basis.reference),
        "by_set": reference_body(basis.by_set),
        "abilities": abilities_body(basis.abilities),
    }


def irt_model_from_body(body: Mapping[str, Any], where: str) -> IrtModel:
    """All of it out of a pack's body. Raises PackError when a part is missing or does not fit."""
    names = ("map", "population", "calibration", "reference", "by_set", "abilities")
    fitted, told, calibration, reference, by_set, abilities = (body.get(name, {}) for name in names)
    population = population_from_body(told, where)
    return IrtModel(
        map_from_body(fitted, where),
        population,
        calibration_from_body(calibration, where),
        reference_from_body(reference, where),
        reference_from_body(by_set, where),
        abilities_from_body(abilities, population, where),
    )


@dataclass(frozen=True, slots=True, eq=False)
class EstimateTable:
    """Estimates of q queries and n models, shape (q, n), NaN = not known.

    Attributes:
        p_correct: calibrated. tokens, tokens_mean, tokens_hi: median, mean and upper bound of completion tokens, own tokens.
        strong: where evidence is strong; elsewhere it is weak, or none where nothing is known.
    """

    models: tuple[str, ...]
    p_correct: Floats
    tokens: Floats
    tokens_mean: Floats
    tokens_hi: Floats
    strong: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """As in `RawEstimates`, for many queries at once: shape (models, q), query_variance (q,)."""

    logit: Floats
    ability_variance: Floats
    query_variance: Floats
    log_tokens: Floats
    log_spread: Floats


def ability_of(basis: IrtModel, model: str, parts: Sequence[Fingerprint]) -> Ability | None:
    """What is known of a model; None = nothing.

    A model that taught the bank is known by everything it did, not by its core anchors alone: they were chosen for what
    they seemed to tell of just these models, and would tell it again. Where the user measured it on a bundled set anew,
    that replaces what was known; on other sets it adds to it, and soon outweighs it: what runs under the name there may be
    quantized, or served otherwise.
    """
    taught = _taught(basis, model, parts)
    if taught is None:
        return fit_ability(parts, basis.population) if parts else None
    own = [one for one in parts if one.own]
    if not own:
        return taught
    population = basis.population
    loosened = replace(
        taught,
        covariance=taught.covariance + DRIFT * population.covariance,
        length_covariance=taught.length_covariance + DRIFT * population.length_covariance,
    )
    return fit_ability(own, population, loosened)


def _taught(basis: IrtModel, model: str, parts: Sequence[Fingerprint]) -> Ability | None:
    """What the bank knows of a model that taught it, unless the user measured it anew."""
    return None if any(one.own and not one.anchors.own for one in parts) else basis.abilities.get(model)


def _calibration(
    basis: IrtModel, models: Sequence[str], fingerprints: Mapping[str, Sequence[Fingerprint]]
) -> Calibration:
    """Of each model. The intercept mends what a few chosen anchors tell wrong of a new model's accuracy as a whole. Of a
    model that taught the bank that is known, by all it did: matching.py has seen to it, and an intercept would undo it.
    """
    plain = basis.calibration
    new = np.array([_taught(basis, model, fingerprints.get(model, ())) is None for model in models])[:, None]
    return replace(plain, slope=np.ones_like(new) * plain.slope, intercept=np.where(new, plain.intercept, 0.0))


def _root(covariances: Floats) -> Floats:
    """(n, d, d) R with R R' = C for every covariance; zero where it is not known, as the mean is not either."""
    values, axes = np.linalg.eigh(np.nan_to_num(covariances))
    root: Floats = axes * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    return root


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
