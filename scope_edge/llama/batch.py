"""Many samples of many prompts, decoded together: the heart of the estimator's speed.

A prompt is read once, into a *slot*; its samples are *lanes*, sequences that share the slot's cells and go on from there.
All lanes take a step in the same decode, while the next prompt is read in what room the batch leaves. Slots stay behind as
a cache: a new prompt starts from the one it shares most with, be it the template's head or a whole prompt asked before.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.llama.answer import Answer, AnswerLine, UnfitVocabularyError, answer_line
from scope_edge.llama.jobs import Job, JobResult, Stats
from scope_edge.llama.sampling import best, draw
from scope_edge.llama.slots import Slot, Slots

if TYPE_CHECKING:
    from scope_edge.llama.engine import Engine, Logits

# Tokens an answer line may take beyond the free text: the marker, the line, five digits, and some room.
LINE_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Layout:
    """slots: prompts at once. lanes: samples decoded at once. batch: tokens a decode may hold. keep: tokens of prompts that
    nobody uses any more which stay in the cache. Slots are sequences 0 ... slots - 1, lanes the ones after them.
    """

    slots: int
    lanes: int
    batch: int
    keep: int


@dataclass(slots=True)
class _Task:
    """A job under way. width: samples decoded at once, at most. answers: begun samples, by number."""

    index: int
    job: Job
    tokens: list[int]
    width: int = 0
    slot: Slot | None = None
    reused: int = 0
    read: int = 0
    begun: int = 0
    first: Logits | None = None
    answers: dict[int, Answer] = field(default_factory=dict)
    problem: str | None = None


@dataclass(slots=True)
class _Lane:
    """One sample being decoded."""

    sequence: int
    task: _Task
    answer: Answer
    position: int
    random: np.random.Generator


@dataclass(slots=True)
class _Clock:
    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0


class Batcher:
    """Runs jobs on one engine. Keeps prompts cached between runs."""

    def __init__(self, engine: Engine, layout: Layout, cancelled: Callable[[], bool]) -> None:
        self._engine, self._layout, self._cancelled = engine, layout, cancelled
        self.slots = Slots(engine, layout.slots, layout.keep)
        self._line: AnswerLine | None = None
        # In a vocabulary that cannot spell the line piece by piece answers are free text, to be parsed by who asked.
        with contextlib.suppress(UnfitVocabularyError):
            self._line = answer_line(engine.tokenize, engine.piece)

    def run(
        self, jobs: Sequence[Job], done: Callable[[int, JobResult], None] | None = None
    ) -> tuple[tuple[JobResult, ...], Stats]:
        """All jobs, results in their order. Raises the engine's errors, after which nothing is cached.

        done: called with a job's number and result as soon as it has all its samples.
        """
        start = perf_counter()
        run = _Run(self, jobs, done)
        finished = False
        try:
            run.go()
            finished = True
        finally:
            if not finished:
                self.slots.clear()
        clock = run.clock
        stats = Stats(
            clock.prefill_tokens,
            clock.prefill_seconds,
            clock.decode_tokens,
            clock.decode_seconds,
            perf_counter() - start,
        )
        return tuple(_result(task) for task in run.tasks), stats

    def tokens_of(self, job: Job) -> list[int]:
        """The prompt's tokens; in direct mode with the beginning of the answer line, which all samples share."""
        prompt = [token for piece in job.pieces for token in self._engine.tokenize(piece.text, markup=piece.markup)]
        if not prompt or job.mode != "direct" or self._line is None:
            return prompt
        return [*prompt, *self._line.marker, *self._line.head]


class _Run:
    """One call of `Batcher.run`."""

    def __init__(
        self, batcher: Batcher, jobs: Sequence[Job], done: Callable[[int, JobResult], None] | None = None
    ) -> None:
        self._done = done
        self._b, self._engine, self._layout = batcher, batcher._engine, batcher._layout
        self.clock = _Clock()
        self.tasks = [_Task(i, job, batcher.tokens_of(job)) for i, job in enumerate(jobs)]
        for task in self.tasks:
            task.problem = self._refusal(task)
        self._waiting = deque(task for task in self.tasks if task.problem is None)
        self._reading: _Task | None = None
        self._lanes: list[_Lane] = []
        self._free = list(range(self._layout.slots + self._layout.lanes - 1, self._layout.slots - 1, -1))

    def go(self) -> None:
        while self._waiting or self._reading or self._lanes:
            self._admit()
            if self._b._cancelled() or not self._step():
                return self._cancel()
        return None

    def _refusal(self, task: _Task) -> str | None:
        job = task.job
        if not task.tokens:
            return "the prompt is empty"
        one = _sample_cells(job)
        need = len(task.tokens) + one
        if need > self._engine.longest:
            return f"the prompt and its answer take {need} tokens, the context holds {self._engine.longest}"
        task.width = min(job.samples, self._layout.lanes, (self._engine.context - len(task.tokens)) // one)
        return None

    # Prompts

    def _admit(self) -> None:
        """Start reading the next prompt when its samples will find room, and begin samples that do now."""
        if self._reading is not None and self._reading.first is not None:
            self._fork(self._reading)
        if self._reading is not None or not self._waiting:
            return
        task = self._waiting[0]
        busy = len(self._lanes)
        if busy and busy + task.width > self._layout.lanes:
            return
        slot = self._b.slots.take(task.tokens, _need(task), self._cells_in_use())
        if slot is not None:
            self._waiting.popleft()
            task.slot, self._reading = slot, task
            task.reused = task.read = len(slot.tokens)

    def _cells_in_use(self) -> int:
        """Cells that the tasks under way may come to use."""
        tasks = [lane.task for lane in self._lanes] + ([self._reading] if self._reading else [])
        return sum({task.index: _need(task) for task in tasks}.values())

    def _fork(self, task: _Task) -> None:
        """Begin as many of a read prompt's samples as there are free lanes."""
        slot, first, job = task.slot, task.first, task.job
        if slot is None or first is None:
            return
        fresh: list[_Lane] = []
        under_way = sum(lane.task is task for lane in self._lanes)
        while task.begun < job.samples and self._free and under_way + len(fresh) < task.width:
            sequence = self._free.pop()
            self._engine.share(slot.sequence, sequence, len(task.tokens))
            line = None if job.mode == "text" else self._b._line
            answer = Answer(line, self._engine.tokenize, self._engine.piece, limit=job.max_tokens)
            random = np.random.default_rng((job.sampling.seed, task.begun))
            task.answers[task.begun] = answer
            task.begun += 1
            slot.users += 1
            if job.mode == "direct" and line is not None:
                answer.begin_answered()
            fresh.append(_Lane(sequence, task, answer, len(task.tokens), random))
        self._lanes += fresh
        starting = [lane for lane in fresh if not lane.answer.pending]
        if starting:
            self._advance(starting, np.repeat(first, len(starting), axis=0))
        if task.begun >= job.samples and task.first is not None:
            task.first = None
            slot.users -= 1
            if task is self._reading:
                self._reading = None

    # Steps

    def _step(self) -> bool:
        """One decode: a step of every lane, and as much of the prompt being read as fits. False when cancelled."""
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        wanted: list[bool] = []
        stepping = []
        for lane in self._lanes:
            pending = lane.answer.pending
            if len(tokens) + len(pending) > self._layout.batch:
                break
            stepping.append(lane)
            tokens += pending
            positions += range(lane.position, lane.position + len(pending))
            sequences += [lane.sequence] * len(pending)
            wanted += [False] * (len(pending) - 1) + [True]
        decoded, reading = len(tokens), self._reading
        chunk: list[int] = []
        if reading is not None and reading.first is None and reading.slot is not None:
            chunk = reading.tokens[reading.read : reading.read + self._layout.batch - len(tokens)]
            tokens += chunk
            positions += range(reading.read, reading.read + len(chunk))
            sequences += [reading.slot.sequence] * len(chunk)
            wanted += [False] * len(chunk)
            complete = reading.read + len(chunk) == len(reading.tokens)
            wanted[-1] = wanted[-1] or complete
        if not tokens:
            return True
        start = perf_counter()
        logits = self._engine.decode(tokens, positions, sequences, wanted)
        if logits is None:
            return False
        self._count(perf_counter() - start, decoded, len(chunk))
        for lane in stepping:
            lane.position += len(lane.answer.pending)
            lane.answer.pending.clear()
        if reading is not None and chunk and reading.slot is not None:
            reading.read += len(chunk)
            reading.slot.tokens += chunk
            if complete:
                reading.first = logits[-1:].copy()
        self._advance(stepping, logits[: len(stepping)])
        if reading is not None and reading.first is not None:
            self._fork(reading)
        return True

    def _count(self, seconds: float, decoded: int, read: int) -> None:
        """Time goes to what the batch was made of."""
        share = read / (decoded + read)
        self.clock.prefill_tokens += read
        self.clock.prefill_seconds += seconds * share
        self.clock.decode_tokens += decoded
        self.clock.decode_seconds += seconds * (1 - share)

    def _advance(self, lanes: list[_Lane], logits: Logits) -> None:
        """Use every lane's logits, row by row, and retire what is done."""
        free = [i for i, lane in enumerate(lanes) if lane.answer.state == "free"]
        if free:
            self._draw_free([lanes[i] for i in free], logits if len(free) == len(lanes) else logits[free])
        for i, lane in enumerate(lanes):
            if i not in free:
                self._draw_answer(lane, logits[i])
        for lane in lanes:
            if lane.answer.state == "done":
                self._retire(lane)

    def _draw_free(self, lanes: list[_Lane], logits: Logits) -> None:
        k = max(lane.task.job.sampling.top_k for lane in lanes)
        ids, values = best(logits, k)
        for row, lane in enumerate(lanes):
            sampling = lane.task.job.sampling
            some = slice(row, row + 1), slice(0, sampling.top_k)
            if not np.isfinite(values[some]).all():
                lane.answer.break_off("broken")
                continue
            token = int(draw(ids[some], values[some], sampling, np.array([lane.random.random()]))[0])
            lane.answer.take(token, ends=self._engine.ends(token))

    def _draw_answer(self, lane: _Lane, row: Logits) -> None:
        answer, line = lane.answer, self._b._line
        if answer.state == "word" and line is not None:
            answer.take_word(float(row[line.yes]), float(row[line.no]))
            return
        ids = answer.allowed()
        values = row[ids].astype(np.float64)
        if not np.isfinite(values).all():
            answer.break_off("broken")
            return
        order = np.argsort(-values, kind="stable")
        uniform = np.array([lane.random.random()])
        answer.take_digit(int(draw(ids[order][None], values[order][None], lane.task.job.sampling, uniform)[0]))

    def _retire(self, lane: _Lane) -> None:
        self._engine.forget(lane.sequence)
        self._lanes.remove(lane)
        self._free.append(lane.sequence)
        task = lane.task
        if task.slot is not None:
            task.slot.users -= 1
        if (
            self._done is not None
            and task.begun >= task.job.samples
            and all(one.task is not task for one in self._lanes)
        ):
            self._done(task.index, _result(task))

    def _cancel(self) -> None:
        """The deadline: what is complete stays, the rest is broken off. The cache may hold half a batch: it goes."""
        for lane in self._lanes:
            lane.answer.break_off("cancelled")
        self._b.slots.clear()


def _need(task: _Task) -> int:
    """Cells a task may come to use."""
    return len(task.tokens) + task.width * _sample_cells(task.job)


def _sample_cells(job: Job) -> int:
    return job.max_tokens + LINE_TOKENS


def _result(task: _Task) -> JobResult:
    samples = tuple(task.answers[i].sample() for i in sorted(task.answers))
    return JobResult(len(task.tokens), task.reused, samples, task.problem)
