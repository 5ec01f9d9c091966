"""Outcomes on the user's own anchors move queries near them, the more the nearer, and none that are far."""

from __future__ import annotations

import numpy as np
import pytest

from scope_edge.estimation.local_difficulty import LocalDifficulty, covariance


def unit(*rows: list[float]) -> np.ndarray:
    values = np.array(rows, np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


ANCHORS = LocalDifficulty(
    vectors=unit([1, 0, 0, 0], [0.95, 0.3, 0, 0], [0, 0, 1, 0]),
    missed=np.array([2.0, 1.5, -0.5]),
    noise=np.full(3, 0.3),
)


def test_a_near_query_moves_towards_what_was_missed_there() -> None:
    near, left = ANCHORS.at(unit([1, 0.05, 0, 0])[0], 1.5)
    farther, _ = ANCHORS.at(unit([1, 1.5, 0, 0])[0], 1.5)
    assert 0.5 < near < 2.0
    assert 0 < farther < near
    assert 0 < left < 1.5


def test_a_far_query_hardly_moves() -> None:
    far, left = ANCHORS.at(unit([-1, 0, 0, -1])[0], 1.5)
    assert abs(far) < 0.1
    assert left == pytest.approx(1.5, abs=0.05)


def test_no_outcome_explains_more_than_there_is() -> None:
    many = LocalDifficulty(np.repeat(ANCHORS.vectors[:1], 300, axis=0), np.full(300, 1.0), np.full(300, 0.01))
    shift, left = many.at(ANCHORS.vectors[0], 1.0)
    assert 0 <= left < 1
    assert shift <= 1.0


def test_covariance_falls_with_distance_and_leaves_each_anchor_something_of_its_own() -> None:
    values = covariance(np.array([1.0, 0.8, 0.4, -1.0], np.float32))
    assert (np.diff(values) < 0).all()
    assert values[0] < 1
