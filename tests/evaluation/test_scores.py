"""What predictions and curves are worth: figures whose right value is known."""

from __future__ import annotations

import numpy as np
import pytest

from scope_edge.estimation.metrics import ece, ece_floor, scores
from scope_edge.evaluation.curves import ARENA_CHEAP, ARENA_DEAR, area, arena, at_cost, envelope, reach


def scored(p: list[float], y: list[float]) -> tuple[float, float, float, float]:
    a, b = np.array(p), np.array(y)
    s = scores(a, b)
    return s.auc, s.accuracy, s.brier, s.logloss


def test_scores_of_a_few_predictions() -> None:
    auc, accuracy, brier, logloss = scored([0.9, 0.6, 0.4, 0.2], [1, 0, 1, 0])
    assert auc == pytest.approx(0.75)
    assert accuracy == pytest.approx(0.5)
    assert brier == pytest.approx((0.01 + 0.36 + 0.36 + 0.04) / 4)
    assert logloss == pytest.approx(-np.log([0.9, 0.4, 0.4, 0.8]).mean())


def test_equal_predictions_tell_nothing_apart() -> None:
    assert scored([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0])[0] == pytest.approx(0.5)
    assert np.isnan(scored([0.5, 0.7], [1, 1])[0])


def test_weights_count_as_repetitions() -> None:
    p, y = np.array([0.9, 0.6, 0.4, 0.2]), np.array([1.0, 0.0, 1.0, 0.0])
    weights = np.array([2.0, 1.0, 0.0, 3.0])
    repeated = scored([0.9, 0.9, 0.6, 0.2, 0.2, 0.2], [1, 1, 0, 0, 0, 0])
    one = scores(p, y, weights, np.argsort(p, kind="stable"))
    assert (one.auc, one.accuracy, one.brier, one.logloss) == pytest.approx(repeated)


def test_the_floor_is_what_perfect_calibration_shows() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, 2000)
    y = (rng.random(2000) < p).astype(float)
    assert ece(p, y) == pytest.approx(ece_floor(p), abs=0.012)
    assert ece(np.clip(p + 0.2, 0, 1), y) > ece_floor(p) + 0.1


def test_the_envelope_leaves_out_what_a_cheaper_point_beats() -> None:
    usd, accuracy = envelope(np.array([1.0, 0.0, 2.0, 1.5, 0.0]), np.array([0.6, 0.5, 0.8, 0.55, 0.4]))
    assert usd.tolist() == [0.0, 1.0, 2.0]
    assert accuracy.tolist() == [0.5, 0.6, 0.8]


def test_spending_between_two_points_buys_a_mix_of_them() -> None:
    usd, accuracy = np.array([0.0, 2.0]), np.array([0.5, 0.9])
    assert at_cost(usd, accuracy, np.array([1.0, 5.0])).tolist() == pytest.approx([0.7, 0.9])
    assert area(usd, accuracy, 0.0, 2.0) == pytest.approx(0.7)
    assert reach(usd, accuracy, 0.8) == pytest.approx(1.5)
    assert reach(usd, accuracy, 0.95) is None
    assert area(np.array([3.0]), np.array([0.9]), 0.0, 2.0) is None


def test_the_arena_score_rewards_accuracy_most_and_cost_a_little() -> None:
    assert arena(0.8, ARENA_CHEAP) == pytest.approx(1.1 * 0.8 / (0.1 * 0.8 + 1))
    assert arena(0.8, ARENA_DEAR) == 0.0
    assert arena(0.8, 0.0) == arena(0.8, ARENA_CHEAP)
    assert arena(0.9, 1.0) > arena(0.8, 1.0) > arena(0.8, 10.0)
