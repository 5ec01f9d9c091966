"""Streams decoded together give each what it would get alone, whoever joins, leaves, gives way or goes on from what is cached."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_engine import ToyEngine

from scope_edge.providers.llama.batch import Batcher
from scope_edge.providers.llama.decoding import PlainText
from scope_edge.providers.llama.messages import Job, JobResult, Layout, Sampling, TextPiece
from scope_edge.providers.llama.tasks import Task

WORDS = re.findall(r"\w+", "the model reads a question about water and number seven then it thinks of the answer")


def job(words: int, limit: int | None = 20, seed: int = 0, head: str = "", stop: tuple[str, ...] = ()) -> Job:
    text = head + " ".join(WORDS[(i * 7 + words) % len(WORDS)] for i in range(words))
    return Job((TextPiece(text),), 1, "text", limit, Sampling(seed=seed), stop=stop)


@dataclass
class Heard:
    """What a stream was told."""

    pieces: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    result: JobResult | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Decoder:
    """A batcher, and everything that streams in it were told."""

    def __init__(self, context: int = 4000, layout: Layout | None = None, engine: ToyEngine | None = None) -> None:
        self.engine = engine or ToyEngine(context)
        self.batcher = Batcher(self.engine, layout or Layout(4, 4, 64, 4000, 16), lambda: False)

    def begin(self, one: Job, until: float = float("inf")) -> tuple[Task, Heard]:
        heard = Heard()

        def tell(text: str, tokens: int) -> None:
            assert heard.result is None, "told after its end"
            heard.pieces.append(text)
            heard.counts.append(tokens)

        def done(result: JobResult) -> None:
            assert heard.result is None, "ended twice"
            heard.result = result

        return self.batcher.stream(one, tell, done, until), heard

    def finish(self, steps: int = 100_000) -> None:
        while self.batcher.busy:
            self.batcher.advance()
            steps -= 1
            assert steps, "it does not end"


class Endless(ToyEngine):
    """Never ends by itself."""

    def ends(self, token: int) -> bool:
        return False


def alone(one: Job, context: int = 4000) -> Heard:
    """It as a job in a list, on a fresh engine: the oracle."""
    fresh = Batcher(ToyEngine(context + 40), Layout(1, 1, 64, 0), lambda: False)
    result = fresh.run([one])[0][0]
    return Heard([result.samples[0].text], result=result)


def ending(heard: Heard) -> str:
    assert heard.result is not None, "it has not ended"
    return heard.result.samples[0].ending if heard.result.samples else "cancelled"


some_streams = st.lists(
    st.builds(
        job,
        words=st.integers(1, 50),
        limit=st.integers(1, 60),
        seed=st.integers(0, 3),
        head=st.sampled_from(["", "the same beginning of every prompt. ", "the same beginning, or nearly. "]),
        stop=st.sampled_from([(), (" the",), ("e", "question"), ("answer",)]),
    ),
    min_size=1,
    max_size=7,
)


@given(
    jobs=some_streams,
    joins=st.randoms(use_true_random=False),
    slots=st.integers(1, 5),
    batch=st.integers(8, 100),
    chunk=st.integers(1, 30),
    context=st.integers(150, 700),
    keep=st.sampled_from([0, 50, 1000]),
)
def test_whoever_joins_and_whatever_the_layout_a_stream_says_what_it_would_alone(
    jobs: list[Job], joins: random.Random, slots: int, batch: int, chunk: int, context: int, keep: int
) -> None:
    decoder = Decoder(context, Layout(slots, 2, batch, keep, chunk))
    heard = []
    for one in jobs:
        heard.append(decoder.begin(one)[1])
        for _ in range(joins.randrange(20)):
            decoder.batcher.advance()
    decoder.finish()
    for one, told in zip(jobs, heard, strict=True):
        expected = alone(one, context).result
        assert told.result is not None and expected is not None
        assert told.result.samples == expected.samples
        assert told.text == expected.samples[0].text
    assert decoder.engine.cells <= context


def test_streams_are_decoded_together_and_prompts_read_in_between() -> None:
    decoder = Decoder(layout=Layout(8, 2, 64, 4000, 16))
    writing = [decoder.begin(job(5 + n, limit=60, seed=n))[1] for n in range(3)]
    while not all(one.pieces for one in writing):
        decoder.batcher.advance()
    before = [sum(one.counts[-1:]) for one in writing]
    _, late = decoder.begin(job(300, limit=5))
    steps = len(decoder.engine.decodes)
    while not late.pieces:
        decoder.batcher.advance()
    taken = len(decoder.engine.decodes) - steps
    assert taken > 5, "a long prompt is read in pieces"
    assert max(decoder.engine.decodes[steps:]) <= 16 + 3
    going = [one for one in writing if one.result is None or sum(one.counts[-1:]) >= 60]
    assert going and any(sum(one.counts[-1:]) > held for one, held in zip(writing, before, strict=True))


def test_a_short_prompt_does_not_wait_behind_a_long_one() -> None:
    decoder = Decoder()
    _, long = decoder.begin(job(800, limit=3))
    decoder.batcher.advance()
    _, short = decoder.begin(job(6, limit=3))
    while short.result is None:
        decoder.batcher.advance()
    assert not long.pieces


def test_a_long_prompt_is_done_however_many_short_ones_come() -> None:
    decoder = Decoder(9000, Layout(8, 2, 64, 4000, 16))
    _, long = decoder.begin(job(400, limit=3))
    for n in range(400):
        decoder.begin(job(12, limit=1, seed=n))
        decoder.batcher.advance()
        if long.result is not None:
            return
    raise AssertionError("it waits for ever")


def test_when_the_cache_is_full_the_youngest_gives_way_and_goes_on_where_it_was() -> None:
    decoder = Decoder(300, Layout(6, 2, 64, 300, 16), Endless(300))
    jobs = [job(10 + n, limit=200, seed=n) for n in range(4)]
    begun = [decoder.begin(one) for one in jobs]
    decoder.finish()
    yielded = [task.yielded for task, _ in begun]
    assert yielded[0] == 0 and sum(yielded) > 0
    for one, (_, told) in zip(jobs, begun, strict=True):
        expected = Batcher(Endless(1000), Layout(1, 1, 64, 0), lambda: False).run([one])[0][0].samples
        assert told.result is not None and told.result.samples == expected


def test_no_limit_means_as_much_as_the_context_holds() -> None:
    decoder = Decoder(120, Layout(2, 2, 64, 100, 16), Endless(120))
    one, other = (decoder.begin(job(10, limit=None, seed=n))[1] for n in (1, 2))
    decoder.finish()
    for told in (one, other):
        assert told.result is not None
        assert ending(told) == "limit"
        assert told.result.prompt_tokens + told.result.samples[0].tokens == 120


def test_a_prompt_that_does_not_fit_is_told_at_once_and_nothing_is_kept_of_it() -> None:
    decoder = Decoder(100)
    task, heard = decoder.begin(job(300))
    assert task.problem is not None and "the context holds 100" in task.problem
    assert not decoder.batcher.busy and heard.result is None


@pytest.mark.parametrize("steps", [0, 1, 3, 12])
def test_one_that_is_dropped_leaves_its_place_at_once(steps: int) -> None:
    decoder = Decoder(400, Layout(1, 1, 64, 400, 16), Endless(400))
    task, heard = decoder.begin(job(60, limit=200, seed=3))
    _, waiting = decoder.begin(job(30, limit=4))
    for _ in range(steps):
        decoder.batcher.advance()
    assert not waiting.pieces
    decoder.batcher.drop(task)
    assert ending(heard) == "cancelled"
    decoder.finish(10)
    assert waiting.result is not None and waiting.result.samples[0].tokens == 4


def test_time_is_up_for_one_and_not_for_the_others() -> None:
    decoder = Decoder()
    late, fine = decoder.begin(job(9, limit=500, seed=5), time.monotonic() - 1)[1], decoder.begin(job(9))[1]
    decoder.finish()
    assert ending(late) == "cancelled"
    assert fine.text == alone(job(9)).text


@pytest.mark.parametrize("rewinds", [True, False])
def test_a_conversation_that_goes_on_reads_only_what_is_new(rewinds: bool) -> None:
    decoder = Decoder()
    decoder.engine.rewinds = rewinds
    first = job(40, limit=30, seed=1)
    _, heard = decoder.begin(first)
    decoder.finish()
    for n in range(3):  # others come and go
        decoder.begin(job(15 + n, limit=5))
    decoder.finish()
    said = heard.text
    following = replace(first, pieces=(*first.pieces, TextPiece(said), TextPiece(" and then")))
    _, heard = decoder.begin(following)
    decoder.finish()
    assert heard.result is not None and heard.result.samples == alone(following).result.samples  # type: ignore[union-attr]
    # Tokens drawn one by one may be spelled otherwise than the same text read at once.
    least = len(decoder.engine.tokenize(first.pieces[0].text)) - 1 if rewinds else 0
    assert heard.result.reused_tokens >= least


def test_a_model_that_does_not_rewind_never_goes_on_from_the_middle_of_what_it_read() -> None:
    class Recurrent(ToyEngine):
        """Knows the end of a sequence only: cannot cut one, and shares all or nothing."""

        rewinds = False

        def __init__(self, context: int) -> None:
            super().__init__(context)
            self.rewinds = False

        def share(self, source: int, target: int, length: int) -> None:
            assert length == len(self._sequences.get(source, [])), "shares a state of another moment"
            super().share(source, target, length)

        def forget(self, sequence: int, start: int = 0) -> None:
            assert start in (0, len(self._sequences.get(sequence, []))), "cuts what cannot be cut"
            super().forget(sequence, start)

    decoder = Decoder(layout=Layout(3, 2, 64, 4000, 16), engine=Recurrent(4000))
    head = "these words stand at the head of every prompt that is ever asked here. "
    jobs = [job(5 + n % 3, limit=8, seed=n, head=head) for n in range(8)]
    heard = [decoder.begin(one)[1] for one in jobs]
    decoder.finish()
    assert [one.text for one in heard] == [alone(one).text for one in jobs]


def test_a_decode_that_is_given_up_harms_nothing_that_was_complete() -> None:
    class Impatient(ToyEngine):
        """Gives up some decodes in the middle, with half of the batch in the cache."""

        def decode(self, tokens, positions, sequences, wanted):  # type: ignore[no-untyped-def]
            if len(self.decodes) % 3 == 1:
                half = len(tokens) // 2
                super().decode(tokens[:half], positions[:half], sequences[:half], [False] * half)
                return None
            return super().decode(tokens, positions, sequences, wanted)

    decoder = Decoder(engine=Impatient(4000))
    jobs = [job(30 + n, limit=25, seed=n) for n in range(3)]
    heard = [decoder.begin(one)[1] for one in jobs]
    decoder.finish()
    assert [one.text for one in heard] == [alone(one).text for one in jobs]


def test_an_engine_that_fails_leaves_nothing_under_way() -> None:
    class Failing(ToyEngine):
        def decode(self, tokens, positions, sequences, wanted):  # type: ignore[no-untyped-def]
            if len(self.decodes) == 5:
                self.decodes.append(0)
                raise RuntimeError("out of memory")
            return super().decode(tokens, positions, sequences, wanted)

    decoder = Decoder(engine=Failing(4000))
    decoder.begin(job(20, limit=50, seed=1))
    with pytest.raises(RuntimeError, match="out of memory"):
        decoder.finish()
    assert not decoder.batcher.busy and decoder.engine.cells == 0
    _, heard = decoder.begin(job(9))
    decoder.finish()
    assert heard.text == alone(job(9)).text


def test_a_list_and_streams_take_turns_on_one_decoder() -> None:
    decoder = Decoder()
    _, heard = decoder.begin(job(9))
    decoder.finish()
    listed = decoder.batcher.run([replace(job(9), samples=3, mode="cot")])[0][0]
    fresh = Batcher(ToyEngine(4000), Layout(1, 1, 64, 0), lambda: False)
    assert listed.samples == fresh.run([replace(job(9), samples=3, mode="cot")])[0][0].samples
    _, again = decoder.begin(job(9))
    decoder.finish()
    assert again.text == heard.text == alone(job(9)).text


texts = st.text(st.sampled_from("abc é€😀\n"), max_size=40)


@given(
    text=texts,
    stop=st.lists(st.text(st.sampled_from("abé€"), min_size=1, max_size=4), max_size=3),
    seed=st.integers(0, 9),
)
def test_pieces_are_whole_characters_and_never_run_into_a_stop_string(text: str, stop: list[str], seed: int) -> None:
    raw, draw = text.encode(), np.random.default_rng(seed)
    plain, shown = PlainText(tuple(stop)), ""
    cuts = [at for at, one in enumerate(stop) if one in text]
    expected = min((text.find(stop[at]) for at in cuts), default=len(text))
    while raw and not plain.stopped:
        size = int(draw.integers(1, 5))
        plain.take(raw[:size])
        raw = raw[size:]
        shown += plain.fresh()
        assert "\ufffd" not in shown and text.startswith(shown)
        assert not any(one in shown for one in stop)
    plain.end()
    shown += plain.fresh()
    assert shown == plain.text
    assert plain.stopped == bool(cuts)
    if len(cuts) <= 1:
        assert shown == text[:expected]


def test_half_a_character_at_the_end_is_shown_as_one_that_is_none() -> None:
    plain = PlainText()
    plain.take("é".encode()[:1])
    assert plain.text == ""
    plain.end()
    assert plain.text == "\ufffd"
