"""The IRT model with its anchor sets, learned from one table of outcomes: all fits in their order, and the calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimation.ability import Ability, Population, fit_ability, thinned
from scope_edge.estimation.anchors import AnchorSet
from scope_edge.estimation.blas import one_thread
from scope_edge.estimation.calibration import Calibration
from scope_edge.estimation.difficulty import DifficultyMap, MapPositions
from scope_edge.estimation.fingerprints import Fingerprint
from scope_edge.estimation.irt import IrtEstimator, IrtModel
from scope_edge.estimation.item_selection import ItemSelector, asked
from scope_edge.estimation.newton import fit_platt, logit
from scope_edge.estimation.reference import OF_A_SET, SIZE, Reference
from scope_edge.estimation.tasks import UNKNOWABLE
from scope_edge.training.fit_map import Crossed, fit_map
from scope_edge.training.fit_population import fit_population
from scope_edge.training.joint_fit import JointFit, LengthFit, fit_joint, fit_lengths
from scope_edge.types import ModelCard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from scope_edge.training.dataset import Pooled
    from scope_edge.types import Floats

CORE_SIZE = 250
# The fewest outcomes on a set's queries for a fingerprint there.
LEAST_OUTCOMES = 25
MOST_LANDMARKS = 4096
COVERAGE = 0.9
# The domains of what people ask every day, and their share of the queries on which pools are compared.
EVERYDAY, _SHARE_OF_LIFE = ("everyday", "asks"), 0.6
# Queries per set for fitting the calibration, and numbers of anchors: users have between these two.
_CALIBRATION_QUERIES = 400
_CALIBRATION_ANCHORS = (25, 250)
# Enough parts that difficulties fitted without one of them are nearly as good as those of the whole fit.
_CALIBRATION_PARTS = 6
# Pulls slope and intercept towards no change, like ten outcomes.
_PULL = 10 * np.eye(2)


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """The results of learning.

    Attributes:
        whole: set name -> all its graded queries as one anchor set, in the table's order; rows: set name -> their indices there.
        anchors: set name -> its core set.
        positions: the table's queries on the map, cross-fitted.
    """

    joint: JointFit
    lengths: LengthFit
    irt: IrtModel
    whole: Mapping[str, AnchorSet]
    anchors: Mapping[str, AnchorSet]
    rows: Mapping[str, NDArray[np.intp]]
    positions: MapPositions


@one_thread("scipy.linalg")
def learn(data: Pooled, landmarks: int | None = None, *, calibrated: bool = True) -> Learned:
    """Learn from a table. landmarks: of the map; by default a quarter of the queries, at most 4,096.

    calibrated: with a calibration, which takes most of the time.
    """
    landmarks = min(MOST_LANDMARKS, len(data) // 4) if landmarks is None else landmarks
    joint = fit_joint(data.correct, data.sets, data.domains, data.expected[:, 0])
    lengths = fit_lengths(data.tokens, data.sets, data.domains, data.expected[:, 1])
    fitted, crossed = fit_map(data, joint, lengths, landmarks)
    calibration = _calibrate(data, joint, lengths, fitted, crossed) if calibrated else None
    learned = _around(data, joint, lengths, fitted, crossed, np.ones(len(data), bool))
    irt = replace(learned.irt, calibration=calibration or learned.irt.calibration, abilities=_abilities(data, learned))
    return replace(learned, irt=irt)


def _around(
    data: Pooled,
    joint: JointFit,
    lengths: LengthFit,
    fitted: DifficultyMap,
    crossed: Crossed,
    anchoring: NDArray[np.bool_],
) -> Learned:
    """Learn the rest from a joint fit and a map, without calibration.

    crossed: what the map says of the queries. anchoring: (n,) which queries may become core anchors.
    """
    centered = (data.vectors @ fitted.trait_axes.T).astype(np.float64) - fitted.trait_mean[data.domains]
    positions = crossed.positions(fitted, data.vectors)
    population = fit_population(data, joint, positions, centered)
    whole, anchors, rows = {}, {}, {}
    graded = np.isfinite(data.correct[~data.base]).any(axis=0)
    for s, name in enumerate(data.set_names):
        here = np.flatnonzero(anchoring & graded & (data.sets == s))
        if not len(here):
            continue
        whole[name], rows[name] = _whole_set(data, here, joint, positions, centered), here
        measured = np.isfinite(data.correct[np.ix_(~data.base, here)])
        usable = measured[measured.any(axis=1)].mean(axis=0)
        anchors[name] = core_of(whole[name], usable, population)
    return Learned(
        joint=joint,
        lengths=lengths,
        irt=IrtModel(
            fitted,
            population,
            Calibration.none(len(data.domain_names)),
            *_references(data, joint, positions),
            {},
            data.domain_names,
        ),
        whole=whole,
        anchors=anchors,
        rows=rows,
        positions=positions,
    )


def _abilities(data: Pooled, learned: Learned) -> Mapping[str, Ability]:
    """Return every candidate's ability, fitted to all its outcomes."""
    found = {}
    for m in np.flatnonzero(~data.base):
        parts = []
        for name, whole in learned.whole.items():
            here = learned.rows[name]
            if np.isfinite(data.correct[m, here]).any():
                parts.append(Fingerprint(str(data.models[m]), whole, data.correct[m, here], data.tokens[m, here]))
        if sum(int(np.isfinite(one.correct).sum()) for one in parts) >= LEAST_OUTCOMES:
            found[str(data.models[m])] = thinned(fit_ability(parts, learned.irt.population))
    return found


def _references(data: Pooled, joint: JointFit, positions: MapPositions) -> tuple[Reference, Reference]:
    """Return a sample of what is asked in life, and one of graded queries with equally many of every domain if possible."""
    rng = np.random.default_rng(0)
    graded = np.isfinite(joint.error) & (data.task != UNKNOWABLE)
    even = [
        rng.permutation(np.flatnonzero(graded & (data.domains == d)))[:OF_A_SET] for d in range(len(data.domain_names))
    ]
    life, of_domains = _of_life(data, rng), np.sort(np.concatenate(even))
    return reference_of(data, joint, positions, life), reference_of(data, joint, positions, of_domains)


def _of_life(data: Pooled, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return a sample of queries, most of them everyday ones where there are such, equally many of each of their sets."""
    knowable = data.task != UNKNOWABLE
    of_life = np.isin(np.array(data.domain_names)[data.domains], EVERYDAY)
    everyday, rest = np.flatnonzero(knowable & of_life), np.flatnonzero(knowable & ~of_life)
    sizes = np.bincount(data.sets[everyday], minlength=len(data.set_names))[data.sets[everyday]]
    wanted = min(round(_SHARE_OF_LIFE * SIZE), len(everyday)) if len(rest) else min(SIZE, len(everyday))
    first = rng.choice(everyday, wanted, replace=False, p=(1 / sizes) / (1 / sizes).sum()) if wanted else everyday[:0]
    return np.sort(np.concatenate([first, rng.permutation(rest)[: SIZE - len(first)]]))


def reference_of(data: Pooled, joint: JointFit, positions: MapPositions, chosen: NDArray[np.intp]) -> Reference:
    """Return these queries of the learned table as a reference. One that was never graded is as hard as the map says."""
    graded = np.isfinite(joint.error[chosen])
    places = positions.take(chosen)
    return Reference(
        places,
        np.where(graded, joint.b[chosen], places.difficulty),
        np.where(graded, joint.a[chosen], 1.0),
        data.domains[chosen],
        data.text_tokens[chosen],
    )


def fingerprint(data: Pooled, model: int, anchors: AnchorSet) -> Fingerprint:
    """Return a model's outcomes on a core set."""
    here = np.flatnonzero(data.sets == data.set_names.index(anchors.name))
    column = dict(zip(data.ids[here].tolist(), here.tolist(), strict=True))
    at = [column[query] for query in anchors.ids]
    return Fingerprint(str(data.models[model]), anchors, data.correct[model, at], data.tokens[model, at], own=False)


def pool_estimator(
    data: Pooled, models: Sequence[int], learned: Learned, anchors: AnchorSet, size: int
) -> IrtEstimator:
    """Return the estimator of models of the table, each known by `size` anchors of one set, chosen by its answers."""
    population = learned.irt.population
    fingerprints = {str(data.models[m]): [asked(fingerprint(data, m, anchors), population, size)] for m in models}
    cards = [ModelCard(id=name, where="cloud") for name in fingerprints]
    return IrtEstimator(learned.irt, cards, fingerprints, coverage=COVERAGE)


def _whole_set(
    data: Pooled, here: NDArray[np.int64], joint: JointFit, positions: MapPositions, traits: Floats
) -> AnchorSet:
    """Return these queries, all of one set, as an anchor set."""
    s = int(data.sets[here[0]])
    return AnchorSet(
        name=data.set_names[s],
        ids=tuple(data.ids[here].tolist()),
        categories=tuple(data.categories[here].tolist()),
        vectors=data.vectors[here],
        prompt_tokens=data.text_tokens[here],
        difficulty=joint.b[here],
        discrimination=joint.a[here],
        log_length=positions.log_length[here],
        map_difficulty=positions.difficulty[here],
        domains=np.eye(len(data.domain_names))[data.domains[here]],
        traits=traits[here],
        linked=_linked(data, s),
    )


def core_of(whole: AnchorSet, usable: Floats, population: Population, size: int = CORE_SIZE) -> AnchorSet:
    """Select a core set, most informative first. usable: (n,), the share of models measured on each query."""
    return whole.take(ItemSelector(whole, population).order(usable, size))


def _linked(data: Pooled, s: int) -> bool:
    """Return whether some model was measured on this set and on another one."""
    measured = np.array([np.isfinite(data.correct[:, data.sets == k]).any(axis=1) for k in range(len(data.set_names))])
    return bool((measured[s] & (measured.sum(axis=0) > 1)).any())


def _calibrate(
    data: Pooled, joint: JointFit, lengths: LengthFit, fitted: DifficultyMap, crossed: Crossed
) -> Calibration:
    """Fit Platt scaling, domain by domain, on models and queries that the estimates have not seen.

    A model's own outcomes shape its anchors' difficulties, strongly if there are few models; so joint fit, population and
    core sets are fitted again without each part of the models, as for a model that joins. The map is the whole fit's,
    cross-fitted by query, and moved to the part fit's scale. Core sets are chosen from half of the query families and
    scored on the other half: queries that remain after the most informative ones are taken are no random sample.
    """
    rng = np.random.default_rng(0)
    part = rng.permutation(len(data.models)) % _CALIBRATION_PARTS
    found: list[list[tuple[Floats, Floats]]] = [[] for _ in data.domain_names]
    families, family = np.unique(data.groups, return_inverse=True)
    anchoring = (rng.permutation(len(families)) % 2 == 0)[family]
    scored = {
        name: rng.permutation(np.flatnonzero(~anchoring & (data.sets == s)))[:_CALIBRATION_QUERIES]
        for s, name in enumerate(data.set_names)
    }
    for k in range(_CALIBRATION_PARTS):
        unseen = (part == k) & ~data.base
        rest = data.take(~unseen, np.ones(len(data.ids), bool))
        fit = fit_joint(rest.correct, rest.sets, rest.domains, rest.expected[:, 0], iterations=150)
        learned = _around(rest, fit, lengths, fitted, _moved(data, crossed, joint, fit), anchoring)
        held = data.take(unseen, np.ones(len(data.ids), bool))
        for name, core in learned.anchors.items():
            domain = int(data.domains[scored[name][0]]) if len(scored[name]) else 0
            for size in _CALIBRATION_ANCHORS:
                found[domain] += _unseen_logits(held, learned, core, size, scored[name])
    pairs = [[np.concatenate(column) for column in zip(*one, strict=True)] if one else None for one in found]
    scaled = [fit_platt(one[0], one[1], _PULL) if one else np.array([1.0, 0.0]) for one in pairs]
    return Calibration(slope=np.array([one[0] for one in scaled]), intercept=np.array([one[1] for one in scaled]))


def _moved(data: Pooled, crossed: Crossed, joint: JointFit, other: JointFit) -> Crossed:
    """Return the map's outputs on the scale of another fit of the same queries, set by set."""
    outputs = crossed.outputs.copy()
    known = np.isfinite(joint.error) & np.isfinite(other.error)
    for s in range(len(data.set_names)):
        here = known & (data.sets == s)
        if here.any():
            outputs[data.sets == s, 0] += other.b[here].mean() - joint.b[here].mean()
    return replace(crossed, outputs=outputs)


def _unseen_logits(
    held: Pooled, learned: Learned, core: AnchorSet, size: int, queries: NDArray[np.int64]
) -> list[tuple[Floats, Floats]]:
    """Return [(log-odds before calibration, outcomes)] of held models measured on these queries and on the core set."""
    models = [
        m
        for m in range(len(held.models))
        if np.isfinite(held.correct[m, queries]).any() and np.isfinite(fingerprint(held, m, core).correct).sum() >= 10
    ]
    if not models:
        return []
    estimator = pool_estimator(held, models, learned, core, size)
    positions = learned.positions.take(queries)
    plain = estimator.table(positions, np.ones(len(positions))).p_correct.T
    correct = held.correct[models][:, queries]
    p = plain[np.isfinite(correct)]
    return [(logit(p), correct[np.isfinite(correct)])]
