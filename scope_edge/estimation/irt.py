"""Estimates by item response theory, from the map and the models' fingerprints. No language model runs; under a millisecond."""

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
from scope_edge.estimation.calibration import Calibration, calibration_body, calibration_from_body, probability
from scope_edge.estimation.difficulty import DifficultyMap, MapPositions, map_body, map_from_body
from scope_edge.estimation.fingerprints import slice_of
from scope_edge.estimation.reference import Reference, linking_constants, reference_body, reference_from_body
from scope_edge.estimation.tasks import TASKS, UNKNOWABLE
from scope_edge.storage import assets
from scope_edge.storage.packs import unpack
from scope_edge.types import Estimates, EstimatorReport

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.estimation.local_difficulty import LocalDifficulty
    from scope_edge.estimation.user_calibration import Personal
    from scope_edge.types import EncodedQuery, Evidence, Floats, ModelCard, Slice

MAP = "anchors/map.pack"
# Evidence is strong when the query is as near to an anchor as NEAR (cosine), and the standard deviation of the model's
# log-odds is at most PINNED; see docs/models.md.
NEAR, PINNED = 0.5, 0.6
# The same of what is asked for: `MapPositions.foreign` at most.
MOST_FOREIGN = 0.25
# Anchors in a slice.
SLICE = 10
# How far a user's copy of a model may be from the measured one, as a share of the variance between models.
DRIFT = 0.05
# The band around p holds 90 % of a Gaussian.
_BAND = 1.6448536269514722


class IrtEstimator:
    """Estimates every model of one pool from its fingerprints. calibration, measured: of each of its models."""

    name = "prior"

    def __init__(
        self,
        irt: IrtModel,
        pool: Sequence[ModelCard],
        fingerprints: Mapping[str, Sequence[Fingerprint]],
        *,
        coverage: float,
        personal: Personal | None = None,
        local: LocalDifficulty | None = None,
    ) -> None:
        """Fit the ability of every model of the pool that has a fingerprint (about 2 ms a model).

        coverage: of the upper bound on completion tokens, in (0, 1). personal: the correction from the user's fingerprints.
        local: what outcomes on the user's own anchors say of queries near them.
        """
        population = irt.population
        self._map, self._population, self._reference = irt.map, population, irt.reference
        self._parts, self._local = fingerprints, local
        self.models = tuple(card.id for card in pool)
        calibration = _calibration(irt, self.models, fingerprints)
        self.calibration = calibration if personal is None else personal.on(calibration, self.models)
        abilities = [ability_of(irt, model, fingerprints.get(model, ())) for model in self.models]
        self.measured = tuple(ability is not None for ability in abilities)
        average = _average(population)
        known = [ability or average for ability in abilities]
        self._far: tuple[Evidence, ...] = tuple("none" if ability is None else "weak" for ability in abilities)
        self._mean = np.array([one.mean for one in known])
        self._covariance = np.array([one.covariance for one in known])
        self._shift = linking_constants(irt.by_set, population, self._mean, self._covariance)
        self._length_mean = np.array([one.length_mean for one in known])
        self._length_covariance = np.array([one.length_covariance for one in known])
        self._spread = np.array([one.spread for one in known])
        self._upper = np.array([upper_residual(one.residuals, population.length_residuals, coverage) for one in known])
        self._growth = [mean_growth(one.residuals, population.length_residuals) for one in known]
        self._factor = np.array([card.token_factor for card in pool])
        self._source = ("prior",) * len(abilities)

    def estimate(self, encoded: EncodedQuery, similarity: float) -> tuple[Estimates, EstimatorReport]:
        """Estimate every model of the pool. similarity: cosine of the nearest anchor of the bank."""
        place = self._map.place(encoded)
        if self._local is not None:
            place = self._local.corrected(place, encoded.vector, self._population)
        return self.at(place, similarity), EstimatorReport(self.name)

    def slices(self, encoded: EncodedQuery) -> tuple[Slice, ...]:
        """Return every measured model's outcomes on its own anchors nearest to the query."""
        return tuple(
            slice_of(model, parts, encoded.vector, SLICE) for model in self.models if (parts := self._parts.get(model))
        )

    def at(self, position: MapPositions, similarity: float) -> Estimates:
        """Estimate for one query at a known position. p_low and p_high move the model's ability to the ends of its band."""
        domains = position.domains
        row, offset = query_row(position.difficulty, domains, position.traits, self._population)
        here = position.take(np.newaxis)
        one = self._moments(row[None], np.array([offset]), here)
        logit, variance = one.logit[:, 0], one.ability_variance[:, 0]
        away = _BAND * np.sqrt(variance)
        knowable = 1 - position.unknowable
        p = knowable * probability(logit, variance + one.query_variance, domains, self.calibration)
        low = knowable * probability(logit - away, one.query_variance, domains, self.calibration)
        high = knowable * probability(logit + away, one.query_variance, domains, self.calibration)
        log_tokens, reach = one.log_tokens[:, 0], self._reach() * one.log_spread[:, 0]
        return Estimates(
            models=self.models,
            p_correct=p,
            p_low=np.minimum(low, p),
            p_high=np.maximum(high, p),
            tokens=self._factor * np.exp(log_tokens),
            tokens_hi=self._factor * np.exp(log_tokens + reach),
            evidence=self._evidence(variance, similarity, float(position.foreign)),
            source=self._source,
            task=task_of(position),
            unknowable=float(position.unknowable),
        )

    def table(self, places: MapPositions, similarity: Floats) -> EstimateTable:
        """Estimate for q queries at once. similarity: (q,), cosines of the nearest anchor of the bank."""
        rows, offsets = query_row(places.difficulty, places.domains, places.traits, self._population)
        many = self._moments(rows, offsets, places)
        p = probability(many.logit, many.ability_variance + many.query_variance, places.domains, self.calibration)
        p = (1 - places.unknowable) * p
        factor = self._factor[:, None]
        growth = [np.interp(row, SPREADS, one) for row, one in zip(many.log_spread, self._growth, strict=True)]
        high = many.log_tokens + self._reach()[:, None] * many.log_spread
        return EstimateTable(
            models=self.models,
            p_correct=p.T,
            tokens=(factor * np.exp(many.log_tokens)).T,
            tokens_mean=(factor * np.exp(many.log_tokens + np.array(growth))).T,
            tokens_hi=(factor * np.exp(high)).T,
            strong=(many.ability_variance <= PINNED**2).T & _known(similarity, places.foreign)[:, None],
        )

    def _reach(self) -> Floats:
        """(models,) how many spreads above the mean log-length its upper bound lies."""
        return np.asarray(self.calibration.widening * np.maximum(self._upper, 0.0))

    def drawn(self, count: int) -> Iterator[IrtEstimator]:
        """Yield `count` copies, each with abilities drawn from their distributions and then taken as exact."""
        rng = np.random.default_rng(0)
        half, length_half = _root(self._covariance), _root(self._length_covariance)
        for _ in range(count):
            other = copy(self)
            other._mean = self._mean + np.einsum("nij,nj->ni", half, rng.standard_normal(self._mean.shape))
            other._covariance = np.zeros_like(self._covariance)
            other._shift = linking_constants(self._reference, self._population, other._mean, other._covariance)
            away = np.einsum("nij,nj->ni", length_half, rng.standard_normal(self._length_mean.shape))
            other._length_mean = self._length_mean + away
            other._length_covariance = np.zeros_like(self._length_covariance)
            yield other

    def _moments(self, rows: Floats, offsets: Floats, places: MapPositions) -> _Moments:
        """Return means and variances for q queries: rows (q, d), offsets (q,)."""
        domains = places.domains
        lengths = length_design(places.log_length, domains, self._population)
        noise = (domains @ self._population.length_noise) * self._spread[:, None] ** 2
        return _Moments(
            logit=self._mean @ rows.T + offsets + self._shift @ domains.T,
            ability_variance=spread_along(rows, self._covariance),
            query_variance=query_variance(rows, places, self._population),
            log_tokens=self._length_mean @ lengths.T,
            log_spread=np.sqrt(noise + places.level_variance + spread_along(lengths, self._length_covariance)),
        )

    def _evidence(self, variance: Floats, similarity: float, foreign: float) -> tuple[Evidence, ...]:
        if not _known(np.array(similarity), np.array(foreign)):
            return self._far
        pinned = (variance <= PINNED**2).tolist()
        return tuple("strong" if sure and far != "none" else far for sure, far in zip(pinned, self._far, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class IrtModel:
    """Everything learned from the models measured for the bank; every estimate rests on it.

    Attributes:
        reference: a sample of what is asked in life. by_set: as many graded queries of a small domain as of a large one, for the
            linking constants, which need each domain's mean to a point. abilities: of the models measured.
        domains: the domains' names, in the order of every column of domains.
    """

    map: DifficultyMap
    population: Population
    calibration: Calibration
    reference: Reference
    by_set: Reference
    abilities: Mapping[str, Ability]
    domains: tuple[str, ...]


def load_irt_model() -> IrtModel:
    """Load the bundled model. Raises AssetError when it is missing or damaged."""
    body = unpack(assets.read(MAP), "map", MAP, verified=True)
    population = population_from_body(body.get("population", {}), MAP)
    return IrtModel(
        map=map_from_body(body.get("map", {}), MAP),
        population=population,
        calibration=calibration_from_body(body.get("calibration", {}), MAP),
        reference=reference_from_body(body.get("reference", {}), MAP),
        by_set=reference_from_body(body.get("by_set", {}), MAP),
        abilities=abilities_from_body(body.get("abilities", {}), population, MAP),
        domains=tuple(map(str, body.get("domains", ()))),
    )


def irt_model_body(irt: IrtModel) -> dict[str, Any]:
    """Return the model as the body of a pack."""
    return {
        "map": map_body(irt.map),
        "population": population_body(irt.population),
        "calibration": calibration_body(irt.calibration),
        "reference": reference_body(irt.reference),
        "by_set": reference_body(irt.by_set),
        "abilities": abilities_body(irt.abilities),
        "domains": list(irt.domains),
    }


@dataclass(frozen=True, slots=True, eq=False)
class EstimateTable:
    """Estimates of q queries and n models, shape (q, n), NaN = unknown.

    Attributes:
        p_correct: calibrated. tokens, tokens_mean, tokens_hi: median, mean and upper bound of completion tokens, own tokens.
        strong: where evidence is strong; elsewhere it is weak, or missing for a model without a fingerprint.
    """

    models: tuple[str, ...]
    p_correct: Floats
    tokens: Floats
    tokens_mean: Floats
    tokens_hi: Floats
    strong: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """Log-odds of a correct answer and log of completion tokens (cl100k), before calibration: shape (models, q).

    ability_variance, query_variance: of the log-odds, from the uncertainty about the model and, (q,), about the query.
    """

    logit: Floats
    ability_variance: Floats
    query_variance: Floats
    log_tokens: Floats
    log_spread: Floats


def ability_of(irt: IrtModel, model: str, parts: Sequence[Fingerprint]) -> Ability | None:
    """Return a model's ability; None without any outcome of it.

    A model that taught the bank is known by all its outcomes, not by its core anchors alone: they were chosen because they
    seemed informative about just these models, and would count twice. Where the user measured it on a bundled set anew,
    those outcomes replace the earlier ones. On other sets they add to them, and soon outweigh them: the user's copy may be
    quantized, or served otherwise.
    """
    taught = _taught(irt, model, parts)
    if taught is None:
        return fit_ability(parts, irt.population) if parts else None
    own = [one for one in parts if one.own]
    if not own:
        return taught
    population = irt.population
    loosened = replace(
        taught,
        covariance=taught.covariance + DRIFT * population.covariance,
        length_covariance=taught.length_covariance + DRIFT * population.length_covariance,
    )
    return fit_ability(own, population, loosened)


def _taught(irt: IrtModel, model: str, parts: Sequence[Fingerprint]) -> Ability | None:
    """Return the bank's ability of a model that taught it, unless the user measured it anew."""
    return None if any(one.own and not one.anchors.own for one in parts) else irt.abilities.get(model)


def _calibration(
    irt: IrtModel, models: Sequence[str], fingerprints: Mapping[str, Sequence[Fingerprint]]
) -> Calibration:
    """Return the calibration of each model.

    The intercept corrects the error of a few chosen anchors about a new model's overall accuracy. That of a model that
    taught the bank is known from all its outcomes: the linking constants keep to it, and an intercept would undo them.
    """
    plain = irt.calibration
    new = np.array([_taught(irt, model, fingerprints.get(model, ())) is None for model in models])[:, None]
    return replace(plain, slope=np.ones_like(new) * plain.slope, intercept=np.where(new, plain.intercept, 0.0))


def task_of(position: MapPositions) -> str:
    """Return what one query asks for. Unknowable counts before all others once it is more likely than not."""
    if position.unknowable >= 0.5:
        return TASKS[UNKNOWABLE]
    return TASKS[int(np.argmax(np.delete(position.tasks, UNKNOWABLE)))]


def _known(similarity: Floats, foreign: Floats) -> NDArray[np.bool_]:
    """Return whether queries are like what was measured: their topic by the cosine, and what they ask for by the map."""
    return (similarity >= NEAR) & (foreign <= MOST_FOREIGN)


def _root(covariances: Floats) -> Floats:
    """Return (n, d, d) R with R R' = C for every covariance; zero where it is unknown, like the mean."""
    values, axes = np.linalg.eigh(np.nan_to_num(covariances))
    return np.asarray(axes * np.sqrt(np.maximum(values, 0.0))[:, None, :])


def _average(population: Population) -> Ability:
    """Return an ability for a model without a fingerprint: the population's mean, as uncertain as its models differ."""
    return Ability(
        mean=population.mean,
        covariance=population.covariance,
        length_mean=population.length_mean,
        length_covariance=population.length_covariance,
        measured=0,
        spread=1.0,
        residuals=np.zeros(0),
    )
