"""Batched decoding gives every sample what it would get alone, whatever is cached, shared, interleaved or refused."""

from __future__ import annotations

import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from toy_engine import ToyEngine

from scope_edge.providers.llama.batch import Batcher
from scope_edge.providers.llama.decoding import UnfitVocabularyError, answer_line
from scope_edge.providers.llama.messages import Job, JobResult, Layout, Mode, Sample, Sampling, TextPiece
from scope_edge.providers.llama.sampling import best, draw
from scope_edge.providers.llama.tasks import LINE_TOKENS

WORDS = re.findall(r"\w+", "the model reads a question about water and number seven then it thinks of the answer")
ANSWER = re.compile(r"Predicted Performance: \{len: ([1-9][0-9]{0,4}), correct: (yes|no)\}$")


def job(words: int, mode: Mode = "cot", samples: int = 3, limit: int = 12, seed: int = 0, head: str = "") -> Job:
    text = head + " ".join(WORDS[(i * 7 + words) % len(WORDS)] for i in range(words))
    return Job((TextPiece(text),), samples, mode, limit, Sampling(seed=seed))


def batcher(
    context: int = 4000, slots: int = 3, lanes: int = 8, batch: int = 64, keep: int = 4000
) -> tuple[Batcher, ToyEngine]:
    engine = ToyEngine(context)
    return Batcher(engine, Layout(slots, lanes, batch, keep), lambda: False), engine


def alone(one: Job) -> tuple[Sample, ...]:
    """Its samples, one after another on a fresh engine."""
    return batcher(slots=1, lanes=1)[0].run([one])[0][0].samples


def drawn(row: NDArray[np.float32], sampling: Sampling, uniform: float) -> int:
    """A token as the settings are defined: of the top_k likeliest the smallest head that holds top_p, by their shares."""
    order = np.argsort(-row, kind="stable")[: sampling.top_k]
    if sampling.temperature == 0:
        return int(order[0])
    shares = np.exp((row[order].astype(np.float64) - row[order[0]]) / sampling.temperature)
    shares /= shares.sum()
    head = np.cumsum(shares) - shares < sampling.top_p
    head[0] = True
    reached = np.cumsum(np.where(head, shares, 0.0))
    return int(order[np.flatnonzero(reached > uniform * reached[-1])[0]])


def written(one: Job) -> list[str]:
    """Plain text by the plainest loop there is: all that was said so far, its logits, one token more."""
    engine, texts = ToyEngine(10**6), []
    for number in range(one.samples):
        random = np.random.default_rng((one.sampling.seed, number))
        tokens, said = engine.tokenize(one.pieces[0].text), b""
        for _ in range(one.max_tokens):
            token = drawn(engine.logits(tokens), one.sampling, random.random())
            if engine.ends(token):
                break
            tokens.append(token)
            said += engine.piece(token)
        texts.append(said.decode("utf-8", "replace"))
    return texts


def test_plain_text_is_what_the_plainest_loop_writes() -> None:
    jobs = [job(9, "text", samples=5, limit=40, seed=1), job(30, "text", samples=4, limit=25, seed=2)]
    results = batcher()[0].run(jobs)[0]
    assert [[sample.text for sample in result.samples] for result in results] == [written(one) for one in jobs]


modes = st.sampled_from(["cot", "direct", "text"])
some_jobs = st.lists(
    st.builds(
        job,
        words=st.integers(1, 60),
        mode=modes,
        samples=st.integers(1, 6),
        limit=st.integers(1, 30),
        seed=st.integers(0, 3),
        head=st.sampled_from(["", "the same beginning of every prompt. ", "the same beginning, or nearly. "]),
    ),
    min_size=1,
    max_size=6,
)


@given(
    runs=st.lists(some_jobs, min_size=1, max_size=2),
    slots=st.integers(1, 4),
    lanes=st.integers(1, 9),
    batch=st.integers(48, 120),
    context=st.integers(260, 900),
    keep=st.sampled_from([0, 50, 1000]),
)
def test_no_layout_changes_a_sample(
    runs: list[list[Job]], slots: int, lanes: int, batch: int, context: int, keep: int
) -> None:
    shared = batcher(context, slots, lanes, batch, keep)[0]
    for jobs in runs:
        results = shared.run(jobs)[0]
        assert [result.samples for result in results] == [alone(one) for one in jobs]


@pytest.mark.parametrize("mode", ["cot", "direct"])
def test_every_sample_ends_in_a_whole_answer(mode: Mode) -> None:
    for result in batcher()[0].run([job(n, mode, samples=8, limit=30, seed=n) for n in range(1, 12)])[0]:
        for sample in result.samples:
            found = ANSWER.search(sample.text)
            assert found, sample.text
            assert sample.p_yes is not None
            assert (int(found[1]), found[2]) == (sample.length, "yes" if sample.p_yes >= 0.5 else "no")


def test_some_answers_are_the_models_own_and_some_are_written_at_the_limit_or_the_end() -> None:
    results = batcher()[0].run([job(n, samples=8, limit=30, seed=n) for n in range(1, 12)])[0]
    assert {sample.ending for result in results for sample in result.samples} == {"answer", "limit", "stop"}


def test_a_prompt_asked_again_is_not_read_again_and_a_common_head_is_read_once() -> None:
    many, _ = batcher()
    head = "these words stand at the head of every prompt that is ever asked here. "
    first, second = many.run([job(20, head=head), job(25, head=head)])[0]
    assert first.reused_tokens == 0
    assert second.reused_tokens >= len(ToyEngine(10).tokenize(head)) - 1
    again = many.run([job(20, head=head)])[0][0]
    assert again.reused_tokens == again.prompt_tokens - 1


def test_prompts_nobody_uses_leave_but_for_what_the_next_one_shares() -> None:
    bare, engine = batcher(keep=0)
    head = "these words stand at the head of every prompt that is ever asked here. "
    bare.run([job(30, head=head, samples=1, limit=2)])
    again = bare.run([job(30, head=head, samples=1, limit=2)])[0][0]
    assert again.reused_tokens == again.prompt_tokens - 1
    other = bare.run([job(12, head=head, samples=1, limit=2)])[0][0]
    assert other.reused_tokens >= len(engine.tokenize(head)) - 1
    assert engine.cells == other.prompt_tokens


def test_samples_are_decoded_together() -> None:
    together, engine = batcher(lanes=8)
    together.run([job(5, samples=8, limit=20)])
    assert max(engine.decodes) >= 8
    one_by_one, single = batcher(lanes=1)
    one_by_one.run([job(5, samples=8, limit=20)])
    assert len(engine.decodes) < len(single.decodes) / 3


def test_what_does_not_fit_says_so_and_the_others_go_on() -> None:
    results = batcher(context=200)[0].run([job(400), job(10), Job((TextPiece(""),), 1, "text", 5)])[0]
    long, short, empty = results
    assert long.samples == ()
    assert long.problem is not None and "the context holds 200" in long.problem
    assert len(short.samples) == 3
    assert empty.problem == "the prompt is empty"


def test_more_samples_than_cells_for_all_at_once_are_taken_in_turn() -> None:
    one = job(20, samples=9, limit=60)
    context = 20 * 2 + 3 * (60 + LINE_TOKENS)
    assert batcher(context=context)[0].run([one])[0][0].samples == alone(one)


def test_a_vocabulary_that_cannot_spell_the_line_piece_by_piece_answers_in_free_text() -> None:
    class Words(ToyEngine):
        """A word, however long, is one token: "7," and "8," are two that have nothing to do with digits."""

        def tokenize(self, text: str, *, markup: bool = False) -> list[int]:
            return [1 + zlib.crc32(word.encode()) % (self.size - 1) for word in text.split()]

        def piece(self, token: int) -> bytes:
            return b" word"

    with pytest.raises(UnfitVocabularyError):
        answer_line(Words(10).tokenize, Words(10).piece)
    for mode in ("cot", "direct"):
        asked = [job(9, mode, samples=4, limit=30)]
        samples = Batcher(Words(4000), Layout(2, 8, 64, 0), lambda: False).run(asked)[0][0].samples
        assert len(samples) == 4
        assert all(one.p_yes is None and one.ending in ("stop", "limit") for one in samples)


def test_a_deadline_keeps_what_is_done() -> None:
    engine = ToyEngine(4000)
    late = Batcher(engine, Layout(2, 4, 64, 0), lambda: len(engine.decodes) > 25)
    results = late.run([job(10, samples=4, limit=6), job(11, "text", samples=4, limit=500, seed=5)])[0]
    endings = [[sample.ending for sample in result.samples] for result in results]
    assert all(ending != "cancelled" for ending in endings[0])
    assert "cancelled" in endings[1] or not endings[1]
    assert engine.cells == 0, "half a batch may be in the cache; it must not be used"


def test_numbers_that_are_none_end_a_sample_and_nothing_else() -> None:
    class Broken(ToyEngine):
        def logits(self, tokens: object) -> np.ndarray:  # type: ignore[override]
            row = super().logits(tokens)  # type: ignore[arg-type]
            if len(tokens) % 13 == 0:  # type: ignore[arg-type]
                row[:] = np.nan
            return row

    run = Batcher(Broken(4000), Layout(2, 8, 64, 0), lambda: False)
    result: JobResult = run.run([job(6, samples=8, limit=25)])[0][0]
    assert {sample.ending for sample in result.samples} >= {"broken"}
    assert all(sample.p_yes is None and sample.length is None for sample in result.samples if sample.ending == "broken")


def test_the_same_seed_gives_the_same_samples_and_another_gives_others() -> None:
    texts = [
        [s.text for s in batcher()[0].run([job(9, samples=4, limit=30, seed=seed)])[0][0].samples] for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) == 4


@given(
    rows=st.integers(1, 9),
    size=st.sampled_from([7, 130, 1000, 3001]),
    k=st.integers(1, 25),
    steps=st.sampled_from([1, 3, 10_000]),
    seed=st.integers(0, 99),
)
def test_the_best_are_those_of_a_full_sort(rows: int, size: int, k: int, steps: int, seed: int) -> None:
    # Few steps make many equals.
    noise = np.random.default_rng(seed).standard_normal((rows, size))
    logits = (np.round(noise * steps) / steps).astype(np.float32)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    with ThreadPoolExecutor(2) as pool:
        for helpers in (None, pool):
            ids, values = best(logits, k, helpers)
            np.testing.assert_array_equal(ids, order)
            np.testing.assert_array_equal(values, np.take_along_axis(logits, order, axis=1))


@pytest.mark.parametrize("k", [1, 3, 900])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_with_a_number_that_is_none_is_found_out_and_the_others_are_not(k: int, bad: float) -> None:
    logits = np.random.default_rng(1).standard_normal((4, 1000)).astype(np.float32)
    logits[2, 437] = bad
    _, values = best(logits, k)
    assert np.isfinite(values).all(axis=1).tolist() == [True, True, False, True]


def test_streams_with_settings_of_their_own_get_what_each_would_get_alone() -> None:
    settings = [
        Sampling(0.0, 1.0, 20, 1),
        Sampling(1.3, 1.0, 200, 2),
        Sampling(0.7, 0.5, 5, 3),
        Sampling(1.3, 0.0, 200, 4),
    ]
    jobs = [replace(job(9 + 4 * n, "text", 3, 30), sampling=one) for n, one in enumerate([*settings, *settings])]
    results = batcher(lanes=24, slots=8)[0].run(jobs)[0]
    assert [[sample.text for sample in result.samples] for result in results] == [written(one) for one in jobs]


def test_many_draws_have_the_shares_of_the_plain_definition() -> None:
    # Far more tokens than are drawn among, which is what makes the choice of the best cut corners.
    row = np.random.default_rng(3).standard_normal(40_000).astype(np.float32) * 2
    uniform = (np.arange(500) + 0.5) / 500
    for sampling in (Sampling(0.6, 0.95, 20), Sampling(1.0, 0.9, 200), Sampling(1.5, 1.0, 400)):
        ids, values = best([row], sampling.top_k)
        every = np.ones(len(uniform))
        many = np.repeat(ids, len(uniform), 0), np.repeat(values, len(uniform), 0)
        tokens = draw(*many, every * sampling.temperature, every * sampling.top_p, uniform)
        assert tokens.tolist() == [drawn(row, sampling, float(one)) for one in uniform]


def test_draws_follow_temperature_and_top_p() -> None:
    ids, values = np.array([[5, 6, 7, 8]]), np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))
    grid = (np.arange(10_000) + 0.5) / 10_000

    def shares(sampling: Sampling) -> list[float]:
        every = np.ones(len(grid))
        heat, mass = every * sampling.temperature, every * sampling.top_p
        tokens = draw(np.repeat(ids, len(grid), 0), np.repeat(values, len(grid), 0), heat, mass, grid)
        return [round(float((tokens == one).mean()), 3) for one in (5, 6, 7, 8)]

    assert shares(Sampling(temperature=1.0, top_p=1.0)) == [0.5, 0.3, 0.15, 0.05]
    # top_p keeps the smallest head that reaches it: 0.5 + 0.3 < 0.9 <= 0.95, so the last one goes.
    assert shares(Sampling(temperature=1.0, top_p=0.9)) == [0.526, 0.316, 0.158, 0.0]
    cold = np.array([0.5, 0.3, 0.15, 0.05]) ** 2
    assert shares(Sampling(temperature=0.5, top_p=1.0)) == pytest.approx(list(cold / cold.sum()), abs=2e-3)
    assert shares(Sampling(temperature=0.0)) == [1.0, 0.0, 0.0, 0.0]


def test_a_thought_that_the_template_began_begins_the_answer() -> None:
    def answers(tail: TextPiece, mode: Mode = "text") -> list[str]:
        one = Job((TextPiece("water"), tail), 2, mode, 12, Sampling(seed=4))
        return [sample.text for sample in alone(one)]

    heard: list[str] = []
    opened = TextPiece("\n<think>\n", markup=True)
    made = batcher()[0]
    made.stream(Job((TextPiece("water"), opened), 1, "text", 12), lambda new, _: heard.append(new), lambda _: None)
    while made.busy:
        made.advance()
    assert "".join(heard).startswith("<think>") and "".join(heard).count("<think>") == 1
    assert all(text.startswith("<think>") for text in answers(opened))
    closed = TextPiece("\n<think>\n\n</think>\n", markup=True)
    for tail, mode in ((TextPiece("\n<think>\n"), "text"), (closed, "text"), (opened, "cot")):
        assert not any(text.startswith("<think>") for text in answers(tail, mode))
