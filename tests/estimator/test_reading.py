"""Samples to one reading: what counts, what is dropped, and answers that had to be read out of free text."""

from __future__ import annotations

import pytest

from scope_edge.estimator.refined import read_samples
from scope_edge.providers.llama.messages import Ending, Sample


def sample(
    text: str = "Analysis: so.", p: float | None = None, length: int | None = None, ending: Ending = "answer"
) -> Sample:
    return Sample(text, 20, length, p, ending)


def test_p_is_averaged_and_the_length_is_the_median() -> None:
    reading = read_samples([sample(p=0.9, length=100), sample(p=0.7, length=300), sample(p=0.8, length=9000)])
    assert reading is not None
    assert (reading.p, reading.length, reading.used, reading.dropped) == (pytest.approx(0.8), 300, 3, 0)
    assert reading.error == pytest.approx(0.1 / 3**0.5)


def test_unusable_samples_are_counted_and_cancelled_ones_are_neither() -> None:
    samples = [sample(p=0.5, length=7), sample(p=0.5, length=0), sample(ending="broken"), sample(ending="cancelled")]
    reading = read_samples(samples)
    assert reading is not None
    assert (reading.used, reading.dropped) == (1, 2)
    assert read_samples(samples[1:]) is None


def test_free_text_is_a_vote_and_its_last_answer_counts() -> None:
    line = "Analysis: hm.\n**Predicted Performance:** {{len: {}, correct: {}}}"
    texts = [line.format(10, "yes") + "\n" + line.format(40, "no"), line.format(60, "yes"), line.format(50, "yes")]
    reading = read_samples([sample(text, ending="stop") for text in texts])
    assert reading is not None
    assert (reading.p, reading.length, reading.used) == (pytest.approx(2 / 3), 50, 3)


@pytest.mark.parametrize(
    "said", ["no line at all", "Predicted Performance: {len: -4, correct: yes}", "Predicted Performance: {len: 9"]
)
def test_free_text_without_a_usable_answer_is_dropped(said: str) -> None:
    assert read_samples([sample(said, ending="limit")]) is None


def test_half_a_text_is_not_read() -> None:
    text = "Predicted Performance: {len: 40, correct: no}"
    assert read_samples([sample(text, ending="cancelled")]) is None
