"""The prior and its calibration: unknown stays unknown, doubt pulls towards one half, and nothing depends on the pool."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scope_edge.encoding.encoder import Encoder
from scope_edge.errors import PackError
from scope_edge.estimation.calibration import Calibration, calibration_from_body, probability
from scope_edge.estimation.fingerprints import Fingerprint, load_fingerprints
from scope_edge.estimation.irt import IrtEstimator, ability_of, load_irt_model
from scope_edge.types import EncodedQuery, ModelCard, Query

SMALL, LARGE, NEW = "gemma-2-2b-it", "llama-3.1-405b-instruct", "nobody-measured-this"


def prior_of(*models: str, factors: dict[str, float] | None = None, coverage: float = 0.9) -> IrtEstimator:
    cards = [ModelCard(id=m, where="cloud", token_factor=(factors or {}).get(m, 1.0)) for m in models]
    return IrtEstimator(load_irt_model(), cards, load_fingerprints()[1], coverage=coverage)


@pytest.fixture(scope="module")
def encoded() -> EncodedQuery:
    return Encoder.load().encode(Query("If 3x + 7 = 22, what is x^2 - 4x?"))


def test_the_larger_model_is_expected_to_do_better(encoded: EncodedQuery) -> None:
    estimates, _ = prior_of(SMALL, LARGE).estimate(encoded, 0.8)
    assert estimates.p_correct[1] > estimates.p_correct[0] + 0.1


def test_numbers_are_in_range_and_in_order(encoded: EncodedQuery) -> None:
    estimates, report = prior_of(SMALL, LARGE).estimate(encoded, 0.8)
    assert ((estimates.p_low <= estimates.p_correct) & (estimates.p_correct <= estimates.p_high)).all()
    assert (estimates.p_low > 0).all()
    assert (estimates.p_high < 1).all()
    assert (estimates.tokens_hi >= estimates.tokens).all()
    assert report.prompts_run == 0


def test_a_model_without_a_fingerprint_is_an_average_one_with_a_wide_band(encoded: EncodedQuery) -> None:
    estimates, _ = prior_of(SMALL, NEW, LARGE).estimate(encoded, 0.8)
    band = estimates.p_high - estimates.p_low
    assert estimates.p_low[1] < estimates.p_correct[1] < estimates.p_high[1] and band[1] > 2 * band[2]
    assert min(estimates.p_correct[[0, 2]]) < estimates.p_correct[1] < max(estimates.p_correct[[0, 2]])
    assert 0 < estimates.tokens[1] < estimates.tokens_hi[1]
    assert estimates.evidence[1] == "none" and estimates.evidence[0] != "none"


def test_an_estimate_does_not_depend_on_who_else_is_in_the_pool(encoded: EncodedQuery) -> None:
    alone = prior_of(SMALL).estimate(encoded, 0.8)[0]
    among = prior_of(LARGE, NEW, SMALL).estimate(encoded, 0.8)[0]
    assert among.p_correct[2] == pytest.approx(alone.p_correct[0], abs=1e-12)
    assert among.tokens_hi[2] == pytest.approx(alone.tokens_hi[0], rel=1e-12)


def test_tokens_are_the_models_own(encoded: EncodedQuery) -> None:
    plain, counted = (prior_of(SMALL, factors=f).estimate(encoded, 0.8)[0] for f in (None, {SMALL: 1.26}))
    assert counted.tokens[0] == pytest.approx(1.26 * plain.tokens[0])
    assert counted.tokens_hi[0] == pytest.approx(1.26 * plain.tokens_hi[0])


def test_more_coverage_asks_for_a_wider_bound(encoded: EncodedQuery) -> None:
    bounds = [prior_of(SMALL, coverage=c).estimate(encoded, 0.8)[0].tokens_hi[0] for c in (0.5, 0.8, 0.9, 0.99)]
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[-1]


def test_evidence_is_weak_far_from_everything_known(encoded: EncodedQuery) -> None:
    prior = prior_of(LARGE)
    assert prior.estimate(encoded, 0.8)[0].evidence == ("strong",)
    assert prior.estimate(encoded, 0.1)[0].evidence == ("weak",)


def test_slices_hold_what_the_model_really_did(encoded: EncodedQuery) -> None:
    (one,) = prior_of(SMALL, NEW).slices(encoded)
    assert one.model == SMALL
    similarities = [neighbor.similarity for neighbor in one.neighbors]
    assert similarities == sorted(similarities, reverse=True)
    parts = {part.anchors.name: part for part in load_fingerprints()[1][SMALL]}
    for neighbor, outcome in zip(one.neighbors, one.outcomes, strict=True):
        part = parts[neighbor.category.split("/")[0]]
        assert outcome.correct == part.correct[part.anchors.ids.index(neighbor.anchor)]


def test_the_anchors_read_as_one_query_at_a_time_would() -> None:
    prior = prior_of(SMALL, LARGE)
    anchors = load_fingerprints()[1][SMALL][0].anchors
    table = prior.table(anchors.positions, np.ones(len(anchors)))
    for i in (0, 17, len(anchors) - 1):
        one = prior.at(anchors.positions.take(i), 0.8)
        assert table.p_correct[i] == pytest.approx(one.p_correct)
        assert table.tokens[i] == pytest.approx(one.tokens)
        assert table.tokens_hi[i] == pytest.approx(one.tokens_hi)
        assert (table.tokens_mean[i] > table.tokens[i]).all()


def test_doubt_pulls_towards_one_half() -> None:
    logit = np.array([2.0, 2.0, -2.0, -2.0])
    p = probability(logit, np.array([0.0, 4.0, 0.0, 4.0]), np.array([0.3, 0.7]), Calibration.none(2))
    assert p[0] > p[1] > 0.5 > p[3] > p[2]


def test_calibration_moves_what_it_says(encoded: EncodedQuery) -> None:
    prior, place = prior_of(LARGE), load_irt_model().map.place(encoded)
    position = replace(place, unknowable=np.float64(0.0))
    zeros = np.zeros_like(position.domains)
    ones = zeros + 1
    prior.calibration = Calibration(zeros, zeros)
    assert prior.at(position, 0.8).p_correct[0] == pytest.approx(0.5)
    prior.calibration = Calibration.none(len(zeros))
    plain = prior.at(position, 0.8).p_correct[0]
    prior.calibration = Calibration(ones, ones)
    assert prior.at(position, 0.8).p_correct[0] > plain


def test_a_query_is_calibrated_as_the_sets_it_is_like() -> None:
    calibration = Calibration(np.ones(2), np.array([0.0, -1.0]))
    first, between, second = (
        probability(np.zeros(1), np.zeros(1), np.array([1 - w, w]), calibration)[0] for w in (0.0, 0.5, 1.0)
    )
    assert first == pytest.approx(0.5)
    assert first > between > second


def test_a_calibration_without_numbers_is_refused() -> None:
    with pytest.raises(PackError, match="calibration"):
        calibration_from_body({"slope": np.ones(2)}, "some.pack")
    with pytest.raises(PackError, match="shapes"):
        calibration_from_body({"slope": np.ones(2), "intercept": np.zeros(3)}, "some.pack")


def test_an_intercept_moves_new_models_and_not_those_that_taught_the_bank() -> None:
    basis, fingerprints = load_irt_model(), load_fingerprints()[1]
    moved = replace(basis, calibration=replace(basis.calibration, intercept=basis.calibration.intercept + 1))
    cards = [ModelCard(id=model, where="cloud") for model in (LARGE, NEW)]
    prints = {LARGE: fingerprints[LARGE], NEW: fingerprints[SMALL]}
    before, after = (
        IrtEstimator(one, cards, prints, coverage=0.9)
        .table(basis.reference.places, np.ones(len(basis.reference)))
        .p_correct
        for one in (basis, moved)
    )
    assert after[:, 0] == pytest.approx(before[:, 0])
    assert after[:, 1].mean() > before[:, 1].mean() + 0.1


def test_a_model_that_taught_the_bank_is_known_by_all_it_did_not_by_its_core_anchors() -> None:
    basis, prints = load_irt_model(), load_fingerprints()[1]
    for model in (SMALL, LARGE):
        taught = ability_of(basis, model, prints[model])
        assert taught is basis.abilities[model]
        assert taught.measured > sum(int(np.isfinite(one.correct).sum()) for one in prints[model])


def test_what_the_user_measured_soon_outweighs_what_was_known() -> None:
    """A quantized copy that fails at nearly everything is no longer taken for the model that was measured."""
    from scope_edge.estimation.anchor_spec import load_core

    basis, prints = load_irt_model(), load_fingerprints()[1]
    anchors = replace(load_core().anchors, own=True)
    shares = []
    for count in (0, 10, 50, 250):
        correct = np.where(np.arange(len(anchors)) < count, 0.0, np.nan)
        own = (Fingerprint(LARGE, anchors, correct, np.full(len(anchors), np.nan)),) if count else ()
        prior = IrtEstimator(basis, [ModelCard(id=LARGE, where="cloud")], {LARGE: (*prints[LARGE], *own)}, coverage=0.9)
        shares.append(prior.table(anchors.positions, np.ones(len(anchors))).p_correct.mean())
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < shares[0] / 2


def test_outcomes_on_a_bundled_set_measured_anew_replace_what_was_known() -> None:
    basis, prints = load_irt_model(), load_fingerprints()[1]
    first = prints[SMALL][0]
    anew = replace(first, correct=np.ones(len(first.correct)), own=True)
    found = ability_of(basis, SMALL, (anew, *prints[SMALL][1:]))
    assert found is not None
    assert found.mean[0] > basis.abilities[SMALL].mean[0]
