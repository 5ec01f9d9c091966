"""Lengths that a request states are read, in several languages, wherever the request says them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_edge.estimation.stated_length import STATED, stated_length

WORDS, CJK, CHARACTERS, SENTENCES, PARAGRAPHS, ITEMS, COUNTERS = range(0, 14, 2)


@pytest.mark.parametrize(
    ("text", "unit", "count"),
    [
        ("Write about 800 words on bees", WORDS, 800),
        ("an essay of 1,500 words", WORDS, 1500),
        ("a 200-word summary, or 150-250 words", WORDS, 200),
        ("Schreib einen Text mit 300 Wörtern", WORDS, 300),
        ("Escribe 120 palabras sobre el mar", WORDS, 120),
        ("800文字で書いてください", CJK, 800),
        ("in one sentence", SENTENCES, 1),
        ("Erkläre es in zwei Sätzen", SENTENCES, 2),
        ("en trois phrases", SENTENCES, 3),
        ("three short paragraphs, please", PARAGRAPHS, 3),
        ("Give me five bullet points", ITEMS, 5),
        ("3つ挙げて", COUNTERS, 3),
        ("under 140 characters", CHARACTERS, 140),
    ],
)
def test_a_stated_length_is_read(text: str, unit: int, count: float) -> None:
    found = stated_length(text)
    assert found[unit] == 1
    assert found[unit + 1] == pytest.approx(np.log(count) / 3, abs=0.15)


def test_it_may_stand_behind_what_was_pasted() -> None:
    assert (
        stated_length("The minutes:\n" + "We met again and talked. " * 400 + "\nSum it up in two sentences.")[SENTENCES]
        == 1
    )


@pytest.mark.parametrize(
    "text", ["", "hi", "What is 2+2?", "Translate 'good morning' into Danish", "次の文を英語に訳して"]
)
def test_most_requests_state_none(text: str) -> None:
    assert not stated_length(text)[:COUNTERS].any()


def test_briefness_and_length_are_wishes_of_their_own() -> None:
    assert stated_length("Briefly: why is the sky blue?")[-2:].tolist() == [1, 0]
    assert stated_length("Explain in detail why the sky is blue")[-2:].tolist() == [0, 1]


@given(st.text(max_size=400))
def test_any_text_has_finite_features_of_order_one(text: str) -> None:
    found = stated_length(text)
    assert found.shape == (STATED,)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 4
