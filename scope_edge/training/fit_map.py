"""Fit the map (estimation.difficulty): ridge regression on linear features and landmarks, cross-fitted by query family."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimation.difficulty import DifficultyMap, Kernel, unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.training.dataset import Pooled
    from scope_edge.training.joint_fit import JointFit
    from scope_edge.types import Floats

AXES = 128
TRAITS = 24
FOLDS = 5
# Prior variances of the linear weights of embedding and features, relative to the noise; noise of difficulty. Chosen on
# development splits, see anchors/README.md.
EMBEDDING_VARIANCE, FEATURE_VARIANCE, NOISE = 0.5, 0.05, 3.0
# Keeps near-identical landmarks apart, by more than the error of float32 products.
NUGGET = 0.05
# Traits are centred embeddings on their leading axes, scaled so that one is of order 1.
TRAIT_SCALE = 6.0


def fit_map(
    data: Pooled, joint: JointFit, log_length: Floats, landmarks: int, kernel: Kernel | None = None
) -> tuple[DifficultyMap, Floats]:
    """Return the map, and its outputs (n, 2 + sets) on the data's own queries, each with its family left out of the fit."""
    blank = _blank(data, _landmarks(data, landmarks), kernel or Kernel())
    targets = np.column_stack([joint.b, log_length, np.eye(len(data.set_names))[data.sets]])
    weights = (1 / (joint.error**2 + NOISE)).astype(np.float32)
    offset = np.average(targets, axis=0, weights=weights)
    fold = fold_of(data.groups, FOLDS)
    rows = _rows(blank, data)
    grams, sides = [], []
    for k in range(FOLDS):
        part = rows[fold == k] * weights[fold == k, None]
        grams.append((part.T @ rows[fold == k]).astype(np.float64))
        sides.append(part.T.astype(np.float64) @ (targets[fold == k] - offset))
    ridge = _ridge(blank)
    whole = _solve(sum(grams) + ridge, sum(sides))
    crossed = np.empty(targets.shape)
    for k in range(FOLDS):
        crossed[fold == k] = rows[fold == k] @ _solve(sum(grams) - grams[k] + ridge, sum(sides) - sides[k]) + offset
    linear, curved = np.split(whole.astype(np.float32), [blank.axes.shape[1] + data.features.shape[1]])
    return replace(blank, linear=linear, curved=curved, offset=offset), crossed


def fold_of(groups: NDArray[np.object_], folds: int) -> NDArray[np.int64]:
    """Return the fold of each query, (n,), by hash of its family's name."""
    return np.array([int(hashlib.sha256(group.encode()).hexdigest(), 16) % folds for group in groups])


def _landmarks(data: Pooled, count: int) -> NDArray[np.int64]:
    """Sample queries at random, at least an eighth of them from every set that is large enough."""
    rng = np.random.default_rng(0)
    least = [rng.permutation(np.flatnonzero(data.sets == s))[: count // 8] for s in range(len(data.set_names))]
    rest = rng.permutation(np.setdiff1d(np.arange(len(data.ids)), np.concatenate(least)))
    return np.concatenate([*least, rest])[:count]


def _blank(data: Pooled, chosen: NDArray[np.int64], kernel: Kernel) -> DifficultyMap:
    """Return a map without weights."""
    vectors = data.vectors.astype(np.float64)
    axes = np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1].T[:AXES].astype(np.float32)
    centered = vectors - vectors.mean(0)
    trait_axes = np.linalg.eigh(centered.T @ centered)[1][:, ::-1].T[:TRAITS] * TRAIT_SCALE
    traits = vectors @ trait_axes.T
    sets, d = len(data.set_names), vectors.shape[1]
    mean, scale = data.features.mean(0), data.features.std(0) + 1e-6
    state_axes, state_center = _state_axes(data.states)
    outputs = 2 + sets
    return DifficultyMap(
        kernel=kernel,
        axes=axes,
        landmarks=unit_rows(data.vectors[chosen] @ axes.T),
        state_axes=state_axes,
        state_center=state_center,
        landmark_states=unit_rows(data.states[chosen] @ state_axes.T - state_center),
        landmark_features=np.clip((data.features[chosen] - mean) / scale, -6, 6).astype(np.float32),
        feature_mean=mean,
        feature_scale=scale,
        linear=np.zeros((d + len(mean), outputs), np.float32),
        curved=np.zeros((len(chosen), outputs), np.float32),
        offset=np.zeros(outputs),
        trait_axes=trait_axes.astype(np.float32),
        trait_mean=np.array([traits[data.sets == s].mean(0) for s in range(sets)]),
    )


def _state_axes(states: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the principal axes (s, d) of standardised states, and their mean on these axes (s,)."""
    mean, scale = states.mean(0, dtype=np.float64), states.std(0, dtype=np.float64) + 1e-6
    standard = (states - mean) / scale
    axes = np.linalg.eigh(standard.T @ standard)[1][:, ::-1].T[:AXES] / scale
    return axes.astype(np.float32), (axes @ mean).astype(np.float32)


def _rows(blank: DifficultyMap, data: Pooled) -> NDArray[np.float32]:
    """Return the inputs of the weights, (n, d + features + landmarks) float32, by the map's own code."""
    scaled = blank.scaled(data.features)
    step = range(0, len(data), 512)
    curves = np.vstack(
        [blank.curves(*(rows[i : i + 512] for rows in (data.vectors, data.states, scaled))) for i in step]
    )
    return np.hstack([data.vectors, scaled, curves])


def _ridge(blank: DifficultyMap) -> Floats:
    """Return the penalty: the kernel between landmarks, and inverse prior variances on the diagonal of the linear part."""
    d, features, count = blank.axes.shape[1], len(blank.feature_mean), len(blank.landmarks)
    penalty = np.zeros((d + features + count,) * 2)
    penalty[range(d), range(d)] = 1 / EMBEDDING_VARIANCE
    penalty[range(d, d + features), range(d, d + features)] = 1 / FEATURE_VARIANCE
    spots = blank.landmark_features.astype(np.float64)
    norms = (spots**2).sum(1)
    apart = norms[:, None] + norms - 2 * spots @ spots.T
    cosines, states = blank.landmarks @ blank.landmarks.T, blank.landmark_states @ blank.landmark_states.T
    gram = blank.kernel.of(cosines, states, apart)
    penalty[d + features :, d + features :] = gram + NUGGET * np.eye(count)
    return penalty


def _solve(matrix: Floats, side: Floats) -> Floats:
    from scipy.linalg import cho_factor, cho_solve

    solved: Floats = cho_solve(cho_factor(matrix, lower=True, check_finite=False), side, check_finite=False)
    return solved
