"""Logistic fits: they are at the mode of their posterior, whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_edge.estimation.newton import fit_logistic, fit_platt, logit, sigmoid


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 6), st.floats(0.1, 30))
def test_the_gradient_vanishes_at_the_mode(seed: int, n: int, d: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    rows, offset, mean = spread * rng.normal(size=(n, d)), rng.normal(size=n), rng.normal(size=d)
    half = rng.normal(size=(d, d))
    precision, outcomes = half @ half.T + np.eye(d), rng.integers(0, 2, n).astype(np.float64)
    mode, hessian = fit_logistic(rows, outcomes, mean, precision, offset)
    p = sigmoid(rows @ mode + offset)
    gradient = rows.T @ (p - outcomes) + precision @ (mode - mean)
    # What the next step would promise, in nats.
    assert abs(gradient @ np.linalg.solve(hessian, gradient)) < 1e-9


def test_without_data_the_prior_stays() -> None:
    mean, precision = np.array([0.3, -2.0]), np.diag([2.0, 5.0])
    mode, hessian = fit_logistic(np.zeros((0, 2)), np.zeros(0), mean, precision)
    assert mode == pytest.approx(mean)
    assert hessian == pytest.approx(precision)


def test_outcomes_that_one_row_separates_are_held_by_the_prior() -> None:
    rows = np.linspace(-5, 5, 40)[:, None]
    mode, _ = fit_logistic(rows, (rows[:, 0] > 0).astype(np.float64), np.zeros(1), np.eye(1))
    assert 1 < mode[0] < 10


def test_platt_finds_what_was_done_to_the_log_odds() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 50_000)
    outcomes = (rng.random(50_000) < sigmoid(0.6 * logits - 0.4)).astype(np.float64)
    assert fit_platt(logits, outcomes, 10 * np.eye(2)) == pytest.approx([0.6, -0.4], abs=0.03)


def test_log_odds_are_clipped_where_asked() -> None:
    assert logit(np.array([0.0, 0.5, 1.0]), 0.01) == pytest.approx([-4.59512, 0.0, 4.59512], abs=1e-5)
    assert sigmoid(logit(np.array([0.2, 0.9]))) == pytest.approx([0.2, 0.9])
