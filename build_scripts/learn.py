"""Everything the prior needs, learned from one table of outcomes: joint fit, map, population, core sets, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from core_anchors import choose_core
from fit_map import fit_map
from fit_population import fit_population
from item_response import JointFit, LengthFit, fit_joint, fit_lengths

from scope_edge.ability import Population, design
from scope_edge.anchors import AnchorSet
from scope_edge.calibration import Calibration, probability
from scope_edge.difficulty import DifficultyMap, Place, memberships
from scope_edge.fingerprints import Fingerprint
from scope_edge.prior import Prior
from scope_edge.records import ModelCard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from pooled import Pooled

    Floats = NDArray[np.float64]

CORE_SIZE = 250
COVERAGE = 0.9
# Queries per set that calibration is fitted on, and anchors it is fitted for: what users have lies between the two.
_CALIBRATION_QUERIES = 400
_CALIBRATION_ANCHORS = (25, 250)


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What was learned. anchors: by set name. places: per query of the table, cross-fitted."""

    joint: JointFit
    lengths: LengthFit
    map: DifficultyMap
    population: Population
    calibration: Calibration
    anchors: Mapping[str, AnchorSet]
    places: Sequence[Place]


def learn(data: Pooled, landmarks: int) -> Learned:
    """Learn from a table. `landmarks` go with its size: about a quarter of the queries, at most 4,096."""
    joint, lengths = fit_joint(data.correct, data.sets), fit_lengths(data.tokens, data.sets)
    fitted, crossed = fit_map(data, joint, lengths, landmarks)
    traits = (data.vectors @ fitted.trait_axes.T).astype(np.float64)
    population = fit_population(data, joint, lengths, crossed, traits - fitted.trait_mean[data.sets])
    places = [place_at(fitted, out, trait) for out, trait in zip(crossed, traits, strict=True)]
    anchors = {
        name: _core_set(data, s, joint, crossed, traits - fitted.trait_mean[data.sets], population)
        for s, name in enumerate(data.set_names)
    }
    calibration = _calibrate(data, fitted, population, anchors, places)
    return Learned(joint, lengths, fitted, population, calibration, anchors, places)


def place_at(fitted: DifficultyMap, out: Floats, traits: Floats) -> Place:
    """The place that raw map outputs (2 + sets,) and uncentred traits (k,) say, as `DifficultyMap.place_of` makes it."""
    domains = memberships(out[2:])
    return Place(float(out[0]), float(out[1]), domains, traits - domains @ fitted.trait_mean)


def fingerprint(data: Pooled, model: int, anchors: AnchorSet, size: int = CORE_SIZE) -> Fingerprint:
    """What a model of the table did on the first `size` anchors of a core set; the rest is missing."""
    column = {query: i for i, query in enumerate(data.ids)}
    at = [column[query] for query in anchors.ids]
    correct, tokens = data.correct[model, at], data.tokens[model, at]
    correct[size:], tokens[size:] = np.nan, np.nan
    return Fingerprint(str(data.models[model]), anchors, correct, tokens)


def pool_prior(
    data: Pooled,
    models: Sequence[int],
    learned: tuple[DifficultyMap, Population, Calibration],
    anchors: AnchorSet,
    size: int,
) -> Prior:
    """The prior of a pool of the table's models, each known by its first `size` anchors of one set."""
    fingerprints = {str(data.models[m]): [fingerprint(data, m, anchors, size)] for m in models}
    cards = [ModelCard(id=name, where="cloud") for name in fingerprints]
    fitted, population, calibration = learned
    return Prior(fitted, population, cards, fingerprints, calibration=calibration, coverage=COVERAGE)


def _core_set(
    data: Pooled, s: int, joint: JointFit, crossed: Floats, traits: Floats, population: Population
) -> AnchorSet:
    """The core set of one set of queries."""
    here = np.flatnonzero(data.sets == s)
    everything = AnchorSet(
        name=data.set_names[s],
        ids=tuple(data.ids[here].tolist()),
        categories=tuple(data.categories[here].tolist()),
        vectors=data.vectors[here],
        prompt_tokens=data.text_tokens[here],
        difficulty=joint.b[here],
        discrimination=joint.a[here],
        log_length=crossed[here, 1],
        map_difficulty=crossed[here, 0],
        domains=np.eye(len(data.set_names))[data.sets[here]],
        traits=traits[here],
        linked=_linked(data, s),
    )
    measured = np.isfinite(data.correct[np.ix_(~data.base, here)])
    usable = measured[measured.any(axis=1)].mean(axis=0)
    offsets = -everything.discrimination * everything.difficulty
    chosen = choose_core(design(everything), offsets, population.mean, population.covariance, usable, CORE_SIZE)
    parts = {}
    for name in AnchorSet.__dataclass_fields__:
        value = getattr(everything, name)
        parts[name] = value[chosen] if isinstance(value, np.ndarray) else value
    for name in ("ids", "categories"):
        parts[name] = tuple(parts[name][i] for i in chosen)
    return AnchorSet(**parts)


def _linked(data: Pooled, s: int) -> bool:
    """Whether a model measured on this set was measured on another one too."""
    measured = np.array([np.isfinite(data.correct[:, data.sets == k]).any(axis=1) for k in range(len(data.set_names))])
    return bool((measured[s] & (measured.sum(axis=0) > 1)).any())


def _calibrate(
    data: Pooled,
    fitted: DifficultyMap,
    population: Population,
    anchors: Mapping[str, AnchorSet],
    places: Sequence[Place],
) -> Calibration:
    """Platt scaling on queries that are no anchors, placed by maps that had not seen them."""
    rng = np.random.default_rng(0)
    logits, outcomes = [], []
    for s, core in enumerate(anchors.values()):
        free = np.setdiff1d(np.flatnonzero(data.sets == s), np.flatnonzero(np.isin(data.ids, core.ids)))
        queries = rng.permutation(free)[:_CALIBRATION_QUERIES]
        models = [m for m in np.flatnonzero(~data.base) if np.isfinite(data.correct[m, queries]).any()]
        for size in _CALIBRATION_ANCHORS if models else ():
            prior = pool_prior(data, models, (fitted, population, Calibration()), core, size)
            for q in queries:
                raw = prior.at(places[q], 1.0)
                p = probability(raw.logit, raw.ability_variance + raw.query_variance, Calibration())
                known = np.isfinite(data.correct[models, q])
                logits.append(np.log(p[known] / (1 - p[known])))
                outcomes.append(data.correct[models, q][known])
    return _platt(np.concatenate(logits), np.concatenate(outcomes))


def _platt(logits: Floats, outcomes: Floats) -> Calibration:
    rows = np.column_stack([logits, np.ones_like(logits)])
    at = np.array([1.0, 0.0])
    for _ in range(30):
        p = 1 / (1 + np.exp(-rows @ at))
        at = at + np.linalg.solve((rows * (p * (1 - p))[:, None]).T @ rows, rows.T @ (outcomes - p))
    return Calibration(slope=float(at[0]), intercept=float(at[1]))
