"""Fit the map (estimation.difficulty): ridge regression on linear features and landmarks, cross-fitted by query family.

Three fits share their inputs: difficulty from graded queries and those an expert judged, log-length from answered ones, and
memberships in domains and tasks from all that have a label. Sets differ in level for reasons that their texts do not tell
(strict graders, an exam's choice of questions); so each set has an effect of its own on difficulty and on length, a random
effect that the texts need not explain.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimation.difficulty import FORM, DifficultyMap, MapPositions, curved_kernels, unit_rows
from scope_edge.estimation.newton import fit_platt
from scope_edge.estimation.tasks import TASKS, UNKNOWABLE
from scope_edge.training.landmarks import choose_landmarks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from scope_edge.training.dataset import Pooled
    from scope_edge.training.joint_fit import JointFit, LengthFit
    from scope_edge.types import Floats, Vector

AXES = 128
TRAITS = 24
FOLDS = 5
# Keeps near-identical landmarks apart, by more than the error of float32 products; a share of the kernel's largest value.
NUGGET = 0.025
# Traits are centred embeddings on their leading axes, scaled so that one is of order 1.
TRAIT_SCALE = 6.0
# What an expert expects counts this many times as much as an outcome known as well.
_EXPERT = 3.0
# So many queries of a set, in all, tell of length: 8,000 questions of one exam say no more of it than a few hundred.
_OF_A_SET = 1_200
_FLAT = 1e-3
# The share of what people ask that no model can know: an assumption.
_ASKED = 0.1
# Weights where tasks are learned: of a query that an expert labelled, of one of a set that holds unknowable ones, of others.
_LABELLED, _AMONG_UNKNOWABLE, _OTHER = 10.0, 3.0, 0.3


@dataclass(frozen=True, slots=True)
class Prior:
    """Variances of a fit's parts: curved kernels as in `DifficultyMap.mix`; linear weights; a set's effect; the noise."""

    mix: tuple[float, float, float, float]
    embedding: float
    multilingual: float
    form: float
    stated: float
    effect: float
    noise: float


# Chosen on development splits and on sets left out, see anchors/README.md.
KINDS = Prior((0.45, 0.8, 0.6, 0.2), embedding=0.15, multilingual=0.1, form=0.05, stated=0.1, effect=0.1, noise=3.0)
LENGTHS = Prior(
    (0.075, 0.125, 0.2, 0.01), embedding=0.025, multilingual=0.025, form=0.0015, stated=0.3, effect=1.0, noise=0.35
)
_NOISE_LENGTH = 0.25
# Standard deviations between the quartiles of a Gaussian.
_QUARTILES = 1.349
_LEAST_FOR_A_SLOPE = 100


@dataclass(frozen=True, slots=True, eq=False)
class Crossed:
    """What the map says of its own queries, each with its family left out of the fit.

    outputs: (n, 2 + domains + tasks); closeness: (n,) to the nearest landmark of another family. longer: (n,) what each
    query's set adds to its log-length.
    """

    outputs: Floats
    closeness: Floats
    longer: Floats

    def positions(self, fitted: DifficultyMap, vectors: Vector) -> MapPositions:
        """Return the queries' positions on the map. Unlike those of strangers, lengths have the level of their own set."""
        traits = (vectors @ fitted.trait_axes.T).astype(np.float64)
        places = fitted.places_from(self.outputs, traits, self.closeness)
        return replace(places, log_length=self.outputs[:, 1] + self.longer)


def fit_map(data: Pooled, joint: JointFit, lengths: LengthFit, landmarks: int) -> tuple[DifficultyMap, Crossed]:
    """Return the map, and its outputs on the data's own queries, each with its family left out of the fit."""
    graded, answered = _weights(data, joint, lengths)
    bare = bare_map(data, (KINDS.mix, LENGTHS.mix))
    chosen = choose_landmarks(bare, data, graded + answered, landmarks)
    blank = spanned(bare, data, chosen)
    kernel = kernel_rows(blank, data, 0)
    closeness = _closeness(data, chosen, kernel, sum(KINDS.mix))
    kinds = _Regression(data, blank, KINDS, kernel)
    difficulty = kinds.fit(graded, joint.b[:, None], effects=True)
    among = np.where(_among_unknowable(data), _AMONG_UNKNOWABLE, _OTHER)
    kind = kinds.fit(np.where(judged_by_expert(data), _LABELLED, among), _labels(data))
    del kinds, kernel
    length = _Regression(data, blank, LENGTHS, kernel_rows(blank, data, 1))
    parts = (difficulty, length.fit(answered, lengths.log_length[:, None], effects=True), kind)
    outputs = np.hstack([one.crossed for one in parts])
    fitted = replace(
        blank,
        linear=np.hstack([one.linear for one in parts]).astype(np.float32),
        curved=np.hstack([one.curved for one in parts]).astype(np.float32),
        offset=np.concatenate([one.offset for one in parts]),
        longer=_of_domains(data, parts[1].effects, answered)[0],
        level_variance=_of_domains(data, parts[1].effects, answered)[1],
        center=_center(data, outputs[:, 0], graded),
        stretch=_stretch(data, outputs[:, 0], joint.b, graded),
        unknowable=_unknowable(data, outputs[:, 2 + len(data.domain_names) + UNKNOWABLE]),
    )
    return fitted, Crossed(outputs, closeness, parts[1].effects[data.sets, 0])


def fold_of(groups: NDArray[np.object_], folds: int) -> NDArray[np.int64]:
    """Return the fold of each query, (n,), by hash of its family's name."""
    return np.array([int(hashlib.sha256(group.encode()).hexdigest(), 16) % folds for group in groups])


def _weights(data: Pooled, joint: JointFit, lengths: LengthFit) -> tuple[Floats, Floats]:
    """Return the weight of each query in the fits of difficulty and of length, (n,) each; 0 where it tells nothing."""
    judged = judged_by_expert(data)
    graded = np.where(judged & ~np.isfinite(data.correct).any(axis=0), _EXPERT, 1.0) / (joint.error**2 + KINDS.noise)
    answered = np.where(lengths.count > 0, 1 / (_NOISE_LENGTH / np.maximum(lengths.count, 1) + LENGTHS.noise), 0.0)
    for s in range(len(data.set_names)):
        here = data.sets == s
        answered[here] *= min(1.0, _OF_A_SET / max(int((answered[here] > 0).sum()), 1))
    return graded, answered


def judged_by_expert(data: Pooled) -> NDArray[np.bool_]:
    """Return which queries an expert judged, (n,)."""
    return np.asarray(np.isfinite(data.expected).any(axis=1))


def _labels(data: Pooled) -> Floats:
    """Return indicators of domains and tasks, (n, domains + tasks). A query without a task belongs to no task."""
    tasks = np.eye(len(TASKS) + 1)[data.task][:, :-1]
    return np.hstack([np.eye(len(data.domain_names))[data.domains], tasks])


def _of_domains(data: Pooled, effects: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return the median of the effects of each domain's sets, and their variance around it, (domains,) each.

    The variance is that of a Gaussian with the same quartiles. 0 for a domain without a set that the fit rests on.
    """
    found = np.zeros((2, len(data.domain_names)))
    for d in range(found.shape[1]):
        sets = [s for s in np.unique(data.sets[data.domains == d]) if weights[data.sets == s].any()]
        if sets:
            low, middle, high = np.quantile(effects[sets, 0], (0.25, 0.5, 0.75))
            found[:, d] = middle, ((high - low) / _QUARTILES) ** 2
    return found[0], found[1]


def _center(data: Pooled, difficulty: Floats, weights: Floats) -> Floats:
    """Return the mean difficulty that the map gives each domain, (domains,); that of all queries for a domain without graded ones."""
    every = np.average(difficulty, weights=weights) if weights.any() else 0.0
    here = [data.domains == d for d in range(len(data.domain_names))]
    return np.array(
        [np.average(difficulty[one], weights=weights[one]) if weights[one].any() else every for one in here]
    )


def _stretch(data: Pooled, difficulty: Floats, b: Floats, weights: Floats) -> Floats:
    """Return the slope of the queries' own difficulties on the map's within the sets of each domain, (domains,), in [1, 2]."""
    found = np.ones(len(data.domain_names))
    for d in range(len(found)):
        here = (data.domains == d) & (weights > 0)
        if here.sum() >= _LEAST_FOR_A_SLOPE:
            x, y, w = difficulty[here], b[here], weights[here]
            for s in np.unique(data.sets[here]):
                one = data.sets[here] == s
                x[one] -= np.average(x[one], weights=w[one])
                y[one] -= np.average(y[one], weights=w[one])
            found[d] = np.clip((w * x * y).sum() / max((w * x * x).sum(), 1e-9), 1.0, 2.0)
    return found


def _among_unknowable(data: Pooled) -> NDArray[np.bool_]:
    """Return which queries are of a set that holds unknowable ones, (n,)."""
    return np.asarray(np.isin(data.sets, np.unique(data.sets[data.task == UNKNOWABLE])))


def _unknowable(data: Pooled, membership: Floats) -> Floats:
    """Return slope and intercept of the log-odds that a query is unknowable, from sets that hold both kinds."""
    unknowable = data.task == UNKNOWABLE
    both = _among_unknowable(data) & (data.task >= 0)
    if not unknowable.any() or unknowable[both].all():
        return np.array([0.0, -np.inf])
    # No more prior than keeps the fit finite.
    slope, intercept = fit_platt(membership[both], unknowable[both].astype(np.float64), _FLAT * np.eye(2))
    share = unknowable[both].mean()
    # These sets ask the unknowable far more often than people do.
    return np.array([slope, intercept + np.log(_ASKED / (1 - _ASKED)) - np.log(share / (1 - share))])


def _closeness(data: Pooled, chosen: NDArray[np.int64], kernel: Vector, most: float) -> Floats:
    """Return each query's largest kernel value with a landmark of another family, as a share of the largest possible, (n,)."""
    _, family = np.unique(data.groups, return_inverse=True)
    of_landmark = family[chosen]
    found = np.empty(len(data))
    for i in range(0, len(data), 512):
        rows = kernel[i : i + 512]
        found[i : i + 512] = np.where(family[i : i + 512, None] == of_landmark, 0.0, rows).max(axis=1)
    return found / most


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """linear, curved, offset: as in `DifficultyMap`, of these outputs. effects: (sets, outputs). crossed: (n, outputs)."""

    linear: Floats
    curved: Floats
    offset: Floats
    effects: Floats
    crossed: Floats


class _Regression:
    """Ridge regressions on one prior: of whatever targets and weights."""

    def __init__(self, data: Pooled, blank: DifficultyMap, prior: Prior, kernel: Vector) -> None:
        self._data, self._blank = data, blank
        self._fold = fold_of(data.groups, FOLDS)
        linear = blank.linear_rows(data.vectors, data.states, data.multilingual, blank.scaled(data.features))
        self._effects = np.eye(len(data.set_names), dtype=np.float32)[data.sets]
        self._rows = np.hstack([linear, kernel])
        d = blank.axes.shape[1]
        axes, stated = len(blank.tongue_axes), linear.shape[1] - d - len(blank.tongue_axes) - FORM
        self._variances = np.repeat(
            [prior.embedding, prior.multilingual, prior.form, prior.stated], [d, axes, FORM, stated]
        )
        self._effect = prior.effect
        self._gram = _landmark_gram(blank, prior)

    def fit(self, weights: Floats, targets: Floats, *, effects: bool = False) -> _Fitted:
        """Fit targets (n, outputs) with weights (n,) of at least 0; with an effect of each set if asked."""
        if not weights.any():
            return self._nothing(targets.shape[1])
        rows = np.hstack([self._rows, self._effects]) if effects else self._rows
        offset = np.average(targets, axis=0, weights=weights)
        used, grams, sides = weights > 0, [], []
        for k in range(FOLDS):
            here = used & (self._fold == k)
            part = rows[here] * weights[here, None].astype(np.float32)
            grams.append((part.T @ rows[here]).astype(np.float64))
            sides.append(part.T.astype(np.float64) @ (targets[here] - offset))
        gram, side = sum(grams) + self._penalty(rows.shape[1]), sum(sides)
        crossed, count = np.empty(targets.shape), self._rows.shape[1]
        for k in range(FOLDS):
            there = self._fold == k
            crossed[there] = self._rows[there] @ _solve(gram - grams[k], side - sides[k])[:count] + offset
        solved = _solve(gram, side)
        linear, curved, of_sets = np.split(solved, [len(self._variances), count])
        return _Fitted(linear, curved, offset, of_sets, crossed)

    def _nothing(self, outputs: int) -> _Fitted:
        linear, curved = len(self._variances), self._rows.shape[1] - len(self._variances)
        sets, n = len(self._data.set_names), len(self._data)
        shapes = ((linear, outputs), (curved, outputs), (outputs,), (sets, outputs), (n, outputs))
        return _Fitted(*map(np.zeros, shapes))

    def _penalty(self, size: int) -> Floats:
        """Return the penalty: inverse prior variances of linear weights and effects, the kernel between landmarks."""
        linear, count = len(self._variances), len(self._gram)
        penalty = np.zeros((size, size))
        penalty[range(linear), range(linear)] = 1 / self._variances
        penalty[linear : linear + count, linear : linear + count] = self._gram
        rest = range(linear + count, size)
        penalty[rest, rest] = 1 / self._effect
        return penalty


def _landmark_gram(blank: DifficultyMap, prior: Prior) -> Floats:
    """Return the curved kernels between landmarks, mixed, with the nugget, (L, L)."""
    columns = blank.landmarks, blank.landmark_states, blank.landmark_tongues, blank.landmark_features
    topic, state, tongue, spots = (one.astype(np.float64) for one in columns)
    norms = (spots**2).sum(1)
    away = 2 * spots @ spots.T - norms[:, None] - norms
    kernels = np.stack([topic @ topic.T, state @ state.T, tongue @ tongue.T, away])
    gram: Floats = np.tensordot(prior.mix, curved_kernels(kernels), axes=1)
    return gram + NUGGET * sum(prior.mix) * np.eye(len(spots))


def bare_map(data: Pooled, mix: Sequence[Sequence[float]]) -> DifficultyMap:
    """Return a map without landmarks and weights."""
    domains, outputs = len(data.domain_names), 2 + len(data.domain_names) + len(TASKS)
    axes, tongue_axes = _axes(data.vectors, AXES), _axes(data.multilingual, AXES)
    state_axes, state_center = _state_axes(data.states)
    centered = data.vectors - data.vectors.mean(0)
    trait_axes = _axes(centered, TRAITS) * TRAIT_SCALE
    traits = data.vectors @ trait_axes.T
    inputs = data.vectors.shape[1] + len(tongue_axes) + data.features.shape[1]
    form = data.features[:, :FORM]
    return DifficultyMap(
        mix=np.array(mix),
        axes=axes,
        landmarks=np.zeros((0, len(axes)), np.float32),
        state_axes=state_axes,
        state_center=state_center,
        landmark_states=np.zeros((0, len(state_axes)), np.float32),
        tongue_axes=tongue_axes,
        landmark_tongues=np.zeros((0, len(tongue_axes)), np.float32),
        landmark_features=np.zeros((0, FORM), np.float32),
        feature_mean=form.mean(0),
        feature_scale=form.std(0) + 1e-6,
        linear=np.zeros((inputs, outputs), np.float32),
        curved=np.zeros((0, outputs), np.float32),
        offset=np.zeros(outputs),
        longer=np.zeros(domains),
        level_variance=np.zeros(domains),
        center=np.zeros(domains),
        stretch=np.ones(domains),
        unknowable=np.array([0.0, -np.inf]),
        trait_axes=trait_axes,
        trait_mean=np.array([traits[data.domains == d].mean(0) for d in range(domains)]),
    )


def spanned(bare: DifficultyMap, data: Pooled, chosen: NDArray[np.int64]) -> DifficultyMap:
    """Return the map with these queries as landmarks."""
    return replace(
        bare,
        landmarks=unit_rows(data.vectors[chosen] @ bare.axes.T),
        landmark_states=unit_rows(data.states[chosen] @ bare.state_axes.T - bare.state_center),
        landmark_tongues=unit_rows(data.multilingual[chosen] @ bare.tongue_axes.T),
        landmark_features=bare.scaled(data.features[chosen])[:, :FORM],
        curved=np.zeros((len(chosen), len(bare.offset)), np.float32),
    )


def kernel_rows(blank: DifficultyMap, data: Pooled, row: int) -> Vector:
    """Return the curved kernels between every query and every landmark, mixed by this row of `mix`, (n, L) float32."""
    rows = np.empty((len(data), len(blank.landmarks)), np.float32)
    for i in range(0, len(data), 512):
        vectors, states, tongues, features = data.encoded(slice(i, i + 512))
        rows[i : i + 512] = blank.curves(vectors, states, tongues, blank.scaled(features))[row]
    return rows


def _axes(rows: Vector, count: int) -> Vector:
    """Return the leading principal axes of rows (n, d), not centred, (count, d) float32."""
    rows = rows.astype(np.float64)
    return np.asarray(np.linalg.eigh(rows.T @ rows)[1][:, ::-1].T[:count].astype(np.float32))


def _state_axes(states: Vector) -> tuple[Vector, Vector]:
    """Return the principal axes (a, d) of standardised states, and their mean on these axes (a,)."""
    mean, scale = states.mean(0, dtype=np.float64), states.std(0, dtype=np.float64) + 1e-6
    standard = (states - mean) / scale
    axes = np.linalg.eigh(standard.T @ standard)[1][:, ::-1].T[:AXES] / scale
    return axes.astype(np.float32), (axes @ mean).astype(np.float32)


def _solve(matrix: Floats, side: Floats) -> Floats:
    from scipy.linalg import cho_factor, cho_solve

    solved: Floats = cho_solve(cho_factor(matrix, lower=True, check_finite=False), side, check_finite=False)
    return solved
