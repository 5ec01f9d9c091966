"""Everything the prior needs, learned from one table of outcomes: joint fit, map, population, core sets, calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from core_anchors import choose_core
from fit_map import fit_map
from fit_population import fit_population
from item_response import JointFit, fit_joint, fit_lengths

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
_CALIBRATION_PARTS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What was learned. anchors: by set name. places: per query of the table, cross-fitted."""

    joint: JointFit
    log_length: Floats
    map: DifficultyMap
    population: Population
    calibration: Calibration
    anchors: Mapping[str, AnchorSet]
    places: Sequence[Place]


def learn(data: Pooled, landmarks: int) -> Learned:
    """Learn from a table. `landmarks` go with its size: about a quarter of the queries, at most 4,096."""
    joint, log_length = fit_joint(data.correct, data.sets), fit_lengths(data.tokens, data.sets)
    fitted, crossed = fit_map(data, joint, log_length, landmarks)
    calibration = _calibrate(data, joint, log_length, fitted, crossed)
    anywhere = np.ones(len(data.ids), bool)
    return replace(_around(data, joint, log_length, fitted, crossed, anywhere), calibration=calibration)


def _around(
    data: Pooled,
    joint: JointFit,
    log_length: Floats,
    fitted: DifficultyMap,
    crossed: Floats,
    anchoring: NDArray[np.bool_],
) -> Learned:
    """All that follows from a joint fit and a map, uncalibrated.

    crossed: (n, 2 + sets), cross-fitted map outputs. anchoring: (n,) which queries may become core anchors.
    """
    traits = (data.vectors @ fitted.trait_axes.T).astype(np.float64)
    centered = traits - fitted.trait_mean[data.sets]
    population = fit_population(data, joint, crossed, centered)
    return Learned(
        joint=joint,
        log_length=log_length,
        map=fitted,
        population=population,
        calibration=Calibration.none(len(data.set_names)),
        anchors={
            name: _core_set(data, np.flatnonzero(anchoring & (data.sets == s)), joint, crossed, centered, population)
            for s, name in enumerate(data.set_names)
        },
        places=[place_at(fitted, out, trait) for out, trait in zip(crossed, traits, strict=True)],
    )


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


def pool_prior(data: Pooled, models: Sequence[int], learned: Learned, anchors: AnchorSet, size: int) -> Prior:
    """The prior of a pool of the table's models, each known by its first `size` anchors of one set."""
    fingerprints = {str(data.models[m]): [fingerprint(data, m, anchors, size)] for m in models}
    cards = [ModelCard(id=name, where="cloud") for name in fingerprints]
    return Prior(
        learned.map, learned.population, cards, fingerprints, calibration=learned.calibration, coverage=COVERAGE
    )


def _core_set(
    data: Pooled,
    here: NDArray[np.int64],
    joint: JointFit,
    crossed: Floats,
    traits: Floats,
    population: Population,
) -> AnchorSet:
    """The core set out of these queries, all of one set."""
    s = int(data.sets[here[0]])
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
    data: Pooled, joint: JointFit, log_length: Floats, fitted: DifficultyMap, crossed: Floats
) -> Calibration:
    """Platt scaling, set by set, on models and queries that the estimates had not seen.

    A model's own outcomes shape its anchors' difficulties, and with few models they do so strongly; so the joint fit,
    population and core sets are made again without each part of the models, as they are for a model that joins. The map
    is the whole fit's, cross-fitted by query, and moved to the part fit's scale. Core sets are chosen from half of the
    query families and scored on the other half: what is left over when the most telling anchors are gone is no fair
    sample of queries.
    """
    rng = np.random.default_rng(0)
    sets = len(data.set_names)
    part = rng.permutation(len(data.models)) % _CALIBRATION_PARTS
    found: list[list[tuple[Floats, Floats]]] = [[] for _ in range(sets)]
    families, family = np.unique(data.groups, return_inverse=True)
    anchoring = (rng.permutation(len(families)) % 2 == 0)[family]
    scored = [
        rng.permutation(np.flatnonzero(~anchoring & (data.sets == s)))[:_CALIBRATION_QUERIES] for s in range(sets)
    ]
    for k in range(_CALIBRATION_PARTS):
        unseen = (part == k) & ~data.base
        rest = data.take(~unseen, np.ones(len(data.ids), bool))
        fit = fit_joint(rest.correct, rest.sets, iterations=60)
        moved = crossed.copy()
        for s in range(sets):
            here = data.sets == s
            moved[here, 0] += fit.b[here].mean() - joint.b[here].mean()
        learned = _around(rest, fit, log_length, fitted, moved, anchoring)
        held = data.take(unseen, np.ones(len(data.ids), bool))
        for s, core in enumerate(learned.anchors.values()):
            for size in _CALIBRATION_ANCHORS:
                found[s] += _unseen_logits(held, learned, core, size, scored[s])
    pairs = [[np.concatenate(column) for column in zip(*one, strict=True)] if one else None for one in found]
    scaled = [_platt(*one) if one else np.array([1.0, 0.0]) for one in pairs]
    return Calibration(slope=np.array([one[0] for one in scaled]), intercept=np.array([one[1] for one in scaled]))


def _unseen_logits(
    held: Pooled, learned: Learned, core: AnchorSet, size: int, queries: NDArray[np.int64]
) -> list[tuple[Floats, Floats]]:
    """(log-odds before calibration, outcomes) of held models that were measured on these queries and on the core set."""
    models = [
        m
        for m in range(len(held.models))
        if np.isfinite(held.correct[m, queries]).any()
        and np.isfinite(fingerprint(held, m, core, size).correct).sum() >= 10
    ]
    if not models:
        return []
    prior = pool_prior(held, models, learned, core, size)
    rows = []
    for q in queries:
        raw = prior.at(learned.places[q], 1.0)
        plain = Calibration.none(len(raw.domains))
        p = probability(raw.logit, raw.ability_variance + raw.query_variance, raw.domains, plain)
        known = np.isfinite(held.correct[models, q])
        rows.append((np.log(p[known] / (1 - p[known])), held.correct[models, q][known]))
    return rows


def _platt(logits: Floats, outcomes: Floats) -> Floats:
    """(slope, intercept) by Newton, held towards (1, 0) as if by ten outcomes."""
    rows = np.column_stack([logits, np.ones_like(logits)])
    plain = np.array([1.0, 0.0])
    at = plain
    for _ in range(30):
        p = 1 / (1 + np.exp(-rows @ at))
        hessian = (rows * (p * (1 - p))[:, None]).T @ rows + 10 * np.eye(2)
        at = at + np.linalg.solve(hessian, rows.T @ (outcomes - p) - 10 * (at - plain))
    return at
