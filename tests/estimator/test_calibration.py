"""The estimator's calibration: it finds what is there, leans to the middle when little is, and belongs to one estimator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_edge.errors import PackError
from scope_edge.estimation.newton import logit, sigmoid
from scope_edge.estimator.calibration import (
    CLIP,
    FILE,
    EstimatorCalibration,
    Key,
    Observed,
    fit_calibration,
    load_calibration,
    save_calibration,
    uncalibrated,
)
from scope_edge.storage.packs import write_pack

KEY = Key("a" * 64, "b" * 64, "cot")


def world(n: int, weights: tuple[float, float, float], seed: int = 0, bias: float = 0.0) -> Observed:
    """Outcomes drawn from the model that is fitted: logit p = weights . (1, estimator, prior), lengths off by a bias."""
    rng = np.random.default_rng(seed)
    said, prior = rng.normal(0, 1.2, n), rng.normal(0, 1.2, n)
    p = sigmoid(weights[0] + weights[1] * said + weights[2] * prior)
    prior_tokens = np.exp(rng.normal(6, 0.5, n))
    tokens = prior_tokens * np.exp(rng.normal(0, 0.6, n))
    real = prior_tokens * (tokens / prior_tokens) ** 0.8 * np.exp(bias + rng.normal(0, 0.3, n))
    correct = (rng.random(n) < p).astype(float)
    return Observed(
        sigmoid(said), sigmoid(prior), tokens, prior_tokens, correct, real, tuple(f"a{i}" for i in range(n))
    )


def test_the_fit_finds_the_weights_that_made_the_outcomes() -> None:
    fitted = fit_calibration(world(20_000, (0.4, 0.9, 0.2), bias=0.3))
    assert fitted.weights == pytest.approx([0.4, 0.9, 0.2], abs=0.06)
    assert fitted.length == pytest.approx([0.3, 0.8], abs=0.03)
    assert fitted.prompts == 20_000


def test_an_estimator_that_knows_nothing_ends_up_without_weight() -> None:
    rng = np.random.default_rng(1)
    seen = world(4_000, (0.0, 0.0, 1.0))
    noise = Observed(rng.random(4_000), *(getattr(seen, n) for n in Observed.__slots__[1:]))
    assert abs(fit_calibration(noise).weights[1]) < 0.05


def test_little_data_stays_near_the_middle() -> None:
    assert fit_calibration(world(0, (1, 1, 1))).weights == pytest.approx([0, 0.5, 0.5])
    few = fit_calibration(world(5, (3.0, 3.0, -3.0)))
    assert np.abs(few.weights - [0, 0.5, 0.5]).max() < 0.35


def test_what_is_left_out_is_covered_as_promised() -> None:
    fitted, fresh = fit_calibration(world(3_000, (0, 0.5, 0.5))), world(3_000, (0, 0.5, 0.5), seed=9)
    upper = fitted.upper_residual(0.9)
    assert upper is not None
    bound = fitted.log_tokens(fresh.tokens, fresh.prior_tokens) + upper
    assert (np.log(fresh.real_tokens) <= bound).mean() == pytest.approx(0.9, abs=0.02)


def test_too_few_residuals_promise_nothing() -> None:
    assert fit_calibration(world(5, (0, 0.5, 0.5))).upper_residual(0.9) is None
    assert uncalibrated().upper_residual(0.5) is None


def test_the_reach_covers_nearly_all_moves_and_is_no_wider() -> None:
    seen = world(2_000, (0.1, 0.6, 0.5))
    fitted = fit_calibration(seen)
    moved = np.abs(fitted.logit(seen.p, seen.prior) - logit(seen.prior, CLIP))
    assert (moved <= fitted.reach).mean() == pytest.approx(0.95, abs=0.01)


def test_missing_lengths_are_left_out_of_the_length_fit_only() -> None:
    seen = world(500, (0, 0.5, 0.5))
    holes = seen.real_tokens.copy()
    holes[::2] = np.nan
    fitted = fit_calibration(
        Observed(seen.p, seen.prior, seen.tokens, seen.prior_tokens, seen.correct, holes, seen.group)
    )
    assert np.isfinite(fitted.length).all() and len(fitted.residuals) == 250
    assert fitted.weights == pytest.approx(fit_calibration(seen).weights)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1, 1e5), st.one_of(st.floats(1, 1e5), st.just(float("nan"))))
def test_estimates_are_always_numbers(p: float, prior: float, tokens: float, prior_tokens: float) -> None:
    for one in (
        uncalibrated(),
        EstimatorCalibration(np.array([1.0, 2.0, -1.0]), np.array([0.1, 0.7]), np.zeros(0), 1, 9),
    ):
        assert np.isfinite(one.logit(p, prior))
        assert np.isfinite(one.log_tokens(tokens, prior_tokens))


def test_it_comes_back_as_it_was_for_its_own_estimator_only(tmp_path: Path) -> None:
    fitted = fit_calibration(world(300, (0.1, 0.6, 0.5)))
    assert load_calibration(tmp_path, KEY) is None
    save_calibration(tmp_path, KEY, fitted)
    back = load_calibration(tmp_path, KEY)
    assert back is not None and back.reach == fitted.reach and back.prompts == 300
    for name in ("weights", "length", "residuals"):
        assert np.array_equal(getattr(back, name), getattr(fitted, name))
    for other in (
        Key("c" * 64, KEY.template, "cot"),
        Key(KEY.gguf, "c" * 64, "cot"),
        Key(KEY.gguf, KEY.template, "direct"),
    ):
        assert load_calibration(tmp_path, other) is None


def body(**changes: object) -> dict[str, object]:
    key = {"gguf": KEY.gguf, "template": KEY.template, "mode": KEY.mode}
    good = {
        "key": key,
        "weights": np.zeros(3),
        "length": np.zeros(2),
        "residuals": np.zeros(4),
        "reach": 1.0,
        "prompts": 4,
    }
    return {**good, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": np.zeros(2)},
        {"weights": np.array([0, np.nan, 1.0])},
        {"residuals": np.array([1.0, 0.0])},
        {"residuals": np.zeros((2, 2))},
        {"reach": float("inf")},
        {"reach": -1.0},
        {"prompts": None},
        {"length": "long"},
    ],
)
def test_one_that_makes_no_sense_is_refused_in_one_line(tmp_path: Path, changes: dict[str, object]) -> None:
    write_pack(tmp_path / FILE, "estimator-calibration", body(**changes))
    with pytest.raises(PackError, match="calibrate again") as caught:
        load_calibration(tmp_path, KEY)
    assert "\n" not in str(caught.value) and FILE in str(caught.value)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    save_calibration(tmp_path, KEY, uncalibrated())
    blob = bytearray((tmp_path / FILE).read_bytes())
    blob[-1] ^= 1
    (tmp_path / FILE).write_bytes(blob)
    with pytest.raises(PackError, match="damaged"):
        load_calibration(tmp_path, KEY)
