"""Ability: recovered from a few outcomes, honest about what it does not know, indifferent to what is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scope_edge.errors import PackError
from scope_edge.estimation.ability import (
    Population,
    design,
    fit_ability,
    population_body,
    population_from_body,
    upper_residual,
)
from scope_edge.estimation.anchors import AnchorSet
from scope_edge.estimation.fingerprints import Fingerprint, load_anchor_sets, load_fingerprints
from scope_edge.estimation.irt import load_irt_model


@pytest.fixture(scope="module")
def population() -> Population:
    return load_irt_model().population


@pytest.fixture(scope="module")
def anchors() -> AnchorSet:
    return load_anchor_sets()[0]


def simulated(anchors: AnchorSet, population: Population, level: float, seed: int = 0) -> Fingerprint:
    """A model of general ability `level`, otherwise typical, answering every anchor by the model of ability.py."""
    rng = np.random.default_rng(seed)
    able = population.mean.copy()
    able[0] = level
    logits = design(anchors) @ able - anchors.discrimination * anchors.difficulty
    correct = (rng.random(len(anchors)) < 1 / (1 + np.exp(-logits))).astype(float)
    return Fingerprint("made up", anchors, correct, np.exp(anchors.log_length + rng.normal(0, 0.4, len(anchors))))


def only(one: Fingerprint, n: int) -> Fingerprint:
    correct, tokens = one.correct.copy(), one.tokens.copy()
    correct[n:], tokens[n:] = np.nan, np.nan
    return replace(one, correct=correct, tokens=tokens)


@pytest.mark.parametrize("level", [-1.5, 0.0, 1.5])
def test_ability_is_recovered_within_its_own_error(anchors: AnchorSet, population: Population, level: float) -> None:
    misses = []
    for seed in range(20):
        fit = fit_ability([simulated(anchors, population, level, seed)], population)
        # What the set's anchors can tell is general ability plus the set's own shift.
        row = np.zeros(len(fit.mean))
        row[0], row[1] = 1.0, 1.0
        error = float(np.sqrt(row @ fit.covariance @ row))
        misses.append((row @ fit.mean - level) / error)
    assert np.sqrt(np.mean(np.square(misses))) < 1.8


def test_more_anchors_leave_less_unknown(anchors: AnchorSet, population: Population) -> None:
    one = simulated(anchors, population, 0.5)
    errors = [fit_ability([only(one, n)], population).covariance[0, 0] for n in (5, 25, 100, 250)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < population.covariance[0, 0]


def test_missing_outcomes_are_left_out_not_taken_as_wrong(anchors: AnchorSet, population: Population) -> None:
    one = simulated(anchors, population, 1.0)
    shorter = AnchorSet(
        **{
            name: value[:40] if isinstance(value := getattr(anchors, name), (np.ndarray, tuple)) else value
            for name in AnchorSet.__dataclass_fields__
        }
    )
    asked_less = Fingerprint("made up", shorter, one.correct[:40], one.tokens[:40])
    missing, absent = fit_ability([only(one, 40)], population), fit_ability([asked_less], population)
    assert missing.mean == pytest.approx(absent.mean)
    assert missing.measured == 40


def test_a_fractional_outcome_is_worth_its_fraction(anchors: AnchorSet, population: Population) -> None:
    shape = np.full(len(anchors), np.nan)
    levels = [
        fit_ability([Fingerprint("m", anchors, np.full_like(shape, value), shape)], population).mean[0]
        for value in (0.25, 0.5, 0.75)
    ]
    assert levels == sorted(levels)


def test_all_right_and_all_wrong_stay_finite(anchors: AnchorSet, population: Population) -> None:
    for value in (0.0, 1.0):
        fit = fit_ability(
            [Fingerprint("m", anchors, np.full(len(anchors), value), np.full(len(anchors), 9.0))], population
        )
        assert np.isfinite(fit.mean).all()
        assert np.linalg.eigvalsh(fit.covariance).min() > 0


def test_a_model_with_no_lengths_is_as_long_as_others_and_as_uncertain_as_they_differ(
    anchors: AnchorSet, population: Population
) -> None:
    one = simulated(anchors, population, 0.0)
    fit = fit_ability([replace(one, tokens=np.full(len(anchors), np.nan))], population)
    assert (fit.length_mean == population.length_mean).all()
    assert (fit.length_covariance == population.length_covariance).all()
    assert np.isfinite(fit.mean).all()


def test_a_talkative_model_is_seen_as_talkative(anchors: AnchorSet, population: Population) -> None:
    one = simulated(anchors, population, 0.0)
    terse, talkative = (fit_ability([replace(one, tokens=one.tokens * k)], population) for k in (1.0, 3.0))
    assert talkative.length_mean[0] - terse.length_mean[0] == pytest.approx(np.log(3.0), abs=0.3)


def test_two_anchor_sets_tell_more_than_one(population: Population) -> None:
    parts = load_fingerprints()[1]["llama-3.1-8b-instruct"]
    assert len(parts) > 1
    together, alone = fit_ability(parts, population), fit_ability(parts[:1], population)
    assert together.covariance[0, 0] < alone.covariance[0, 0]


def test_the_upper_bound_covers_what_it_should() -> None:
    rng = np.random.default_rng(0)
    population = np.sort(rng.normal(size=401))
    reached = []
    for _ in range(300):
        own = np.sort(rng.normal(size=30))
        reached.append(rng.normal() <= upper_residual(own, population, 0.9))
    assert 0.85 <= np.mean(reached) <= 0.97


def test_a_bound_without_own_residuals_falls_back_on_the_population() -> None:
    population = np.linspace(-2, 2, 401)
    assert 1.5 < upper_residual(np.zeros(0), population, 0.9) <= 2.0


def test_a_population_survives_its_pack_and_is_refused_without_a_part(population: Population) -> None:
    body = population_body(population)
    assert population_from_body(body, "here").covariance == pytest.approx(population.covariance)
    with pytest.raises(PackError, match="unexplained"):
        population_from_body({k: v for k, v in body.items() if k != "unexplained"}, "here")
    with pytest.raises(PackError, match="shapes"):
        population_from_body({**body, "covariance": population.covariance[1:]}, "here")
