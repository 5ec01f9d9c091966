"""The map: harder texts read as harder, longer answers as longer, and odd text never leaves it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_edge.encoding.encoder import Encoder
from scope_edge.encoding.multilingual import DIMENSION
from scope_edge.errors import PackError
from scope_edge.estimation.difficulty import (
    FEATURES,
    DifficultyMap,
    map_body,
    map_from_body,
    memberships,
    text_features,
)
from scope_edge.estimation.fingerprints import load_anchor_sets
from scope_edge.estimation.irt import MAP, load_irt_model
from scope_edge.storage import assets
from scope_edge.storage.packs import unpack
from scope_edge.types import Query


@pytest.fixture(scope="module")
def fitted() -> DifficultyMap:
    return load_irt_model().map


@pytest.mark.parametrize(
    ("easy", "hard"),
    [
        ("What is 7 plus 5?", "Find all real solutions of x^5 - 3x^3 + 2x - 11 = 0 to four decimals."),
        (
            "Tom has 3 apples and buys 2 more. How many apples has he now?",
            "How many positive integers below 1000 are divisible by neither 2, 3 nor the square of any larger prime?",
        ),
        (
            "Which organ pumps blood through the body?\n(A) Liver\n(B) Heart\n(C) Lung",
            "In a two-photon absorption experiment the selection rule changes. What is the dipole matrix element between "
            "the 2s and 3d states of hydrogen?\n(A) 0\n(B) 1.7 a.u.\n(C) 3.2 a.u.\n(D) 5.1 a.u.\n(E) 6.0 a.u.",
        ),
    ],
)
def test_a_hard_question_reads_as_harder_than_an_easy_one(
    fitted: DifficultyMap, encoder: Encoder, easy: str, hard: str
) -> None:
    places = [fitted.place(encoder.encode(Query(text))) for text in (easy, hard)]
    assert places[0].difficulty < places[1].difficulty


def test_a_worked_problem_takes_longer_to_answer_than_a_fact(fitted: DifficultyMap, encoder: Encoder) -> None:
    fact = fitted.place(encoder.encode(Query("Who wrote Hamlet?")))
    worked = fitted.place(
        encoder.encode(
            Query(
                "A farmer sells 3/5 of 240 eggs at 12 for $3 and the rest at $0.40 each. How much does he take in all?"
            )
        )
    )
    assert worked.log_length > fact.log_length


def test_the_map_ranks_the_core_anchors_it_had_not_seen(fitted: DifficultyMap) -> None:
    for anchors in load_anchor_sets():
        correlation = np.corrcoef(anchors.difficulty, anchors.map_difficulty)[0, 1]
        assert correlation > 0.1, f"{anchors.name}: {correlation:.2f}"


@given(st.text(max_size=300))
def test_any_text_has_finite_features(text: str) -> None:
    features = text_features(text)
    assert features.shape == (FEATURES,)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("text", ["", "\0" * 50, "\ud800 lone", "0" * 100_000, "שלום 👋🏽 مرحبا", "$" * 9_000])
def test_odd_text_stays_on_the_map(fitted: DifficultyMap, text: str) -> None:
    vector = np.zeros(fitted.axes.shape[1], np.float32)
    vector[0] = 1.0
    place = fitted.place_of(vector, vector, np.zeros(DIMENSION, np.float32), text_features(text))
    assert np.isfinite([place.difficulty, place.log_length]).all()
    assert place.domains.min() >= 0
    assert place.domains.sum() == pytest.approx(1)


def test_text_beyond_the_limit_changes_no_feature() -> None:
    assert (text_features("a b\n" * 5_000) == text_features("a b\n" * 9_000)).all()


def test_memberships_are_weights_even_where_nothing_fits() -> None:
    weights = memberships(np.array([[-1.0, -2.0, -0.5], [0.2, 0.9, -0.1]]))
    assert weights.sum(axis=1) == pytest.approx(1)
    assert weights[0] == pytest.approx(1 / 3)
    assert weights[1].argmax() == 1


def test_a_map_survives_its_pack(fitted: DifficultyMap) -> None:
    again = map_from_body(map_body(fitted), "here")
    vector = np.full(fitted.axes.shape[1], fitted.axes.shape[1] ** -0.5, np.float32)
    features = text_features("How far is the moon?")
    multilingual = np.full(DIMENSION, DIMENSION**-0.5, np.float32)
    assert again.place_of(vector, vector, multilingual, features).difficulty == pytest.approx(
        fitted.place_of(vector, vector, multilingual, features).difficulty, abs=1e-3
    )


@pytest.mark.parametrize("missing", ["axes", "landmarks", "linear", "mix", "trait_mean"])
def test_a_map_without_a_part_is_refused_in_one_line(missing: str) -> None:
    body = dict(unpack(assets.read(MAP), "map", MAP)["map"])
    del body[missing]
    with pytest.raises(PackError, match=missing) as error:
        map_from_body(body, "some.pack")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("some.pack")


def test_a_map_whose_parts_do_not_fit_is_refused() -> None:
    body = dict(unpack(assets.read(MAP), "map", MAP)["map"])
    body["curved"] = body["curved"][:-1]
    with pytest.raises(PackError, match="shapes"):
        map_from_body(body, "some.pack")
