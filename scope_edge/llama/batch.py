"""Many samples of many prompts, decoded together: the heart of the estimator's speed.

A prompt is read once, into a *slot*; its samples are *lanes*, sequences that share the slot's cells and go on from there.
All lanes take a step in the same decode, while the next prompt is read in what room the batch leaves. Slots stay behind as
a cache: a new prompt starts from the one it shares most with, be it the template's head or a whole prompt asked before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import numpy as np

from scope_edge.llama.answer import Answer, AnswerLine, UnfitVocabularyError, answer_line
from scope_edge.llama.jobs import Job, JobResult, Stats
from scope_edge.llama.sampling import best, draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]

# Tokens an answer line may take beyond the free text: the marker, the line, five digits, and some room.
LINE_TOKENS = 40


class Engine(Protocol):
    """A loaded model, as `native.Native` is one."""

    context: int

    def tokenize(self, text: str, *, markup: bool = False) -> list[int]: ...
    def piece(self, token: int) -> bytes: ...
    def ends(self, token: int) -> bool: ...
    def share(self, source: int, target: int, length: int) -> None: ...
    def forget(self, sequence: int, start: int = 0) -> None: ...
    def clear(self) -> None: ...
    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int], wanted: Sequence[bool]
    ) -> Logits | None: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """slots: prompts kept. lanes: samples decoded at once. batch: tokens a decode may hold. Slots are sequences
    0 ... slots - 1, lanes the ones after them.
    """

    slots: int
    lanes: int
    batch: int


@dataclass(slots=True)
class _Slot:
    """What a prompt's sequence holds; `users` lanes (and the reading of it) still need it."""

    sequence: int
    tokens: list[int] = field(default_factory=list)
    users: int = 0
    used_at: int = 0


@dataclass(slots=True)
class _Task:
    """A job under way. answers: begun samples, by number."""

    index: int
    job: Job
    tokens: list[int]
    slot: _Slot | None = None
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
        self._slots = [_Slot(i) for i in range(layout.slots)]
        self._turn = 0
        self._line: AnswerLine | None = None
        self._unfit: str | None = None
        try:
            self._line = answer_line(engine.tokenize, engine.piece)
        except UnfitVocabularyError as error:
            self._unfit = str(error)

    def run(self, jobs: Sequence[Job]) -> tuple[tuple[JobResult, ...], Stats]:
        """All jobs, results in their order. Raises the engine's errors, after which nothing is cached."""
        start = perf_counter()
        run = _Run(self, jobs)
        try:
            run.go()
        except BaseException:
            self.forget_all()
            raise
        clock = run.clock
        stats = Stats(
            clock.prefill_tokens,
            clock.prefill_seconds,
            clock.decode_tokens,
            clock.decode_seconds,
            perf_counter() - start,
        )
        return tuple(_result(task) for task in run.tasks), stats

    def forget_all(self) -> None:
        """Empty the cache."""
        self._engine.clear()
        self._slots = [_Slot(i) for i in range(self._layout.slots)]

    def tokens_of(self, job: Job) -> list[int]:
        """The prompt's tokens."""
        return [token for piece in job.pieces for token in self._engine.tokenize(piece.text, markup=piece.markup)]


class _Run:
    """One call of `Batcher.run`."""

    def __init__(self, batcher: Batcher, jobs: Sequence[Job]) -> None:
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
        if job.mode != "text" and self._b._unfit:
            return self._b._unfit
        need = len(task.tokens) + job.max_tokens + LINE_TOKENS
        if need > self._engine.context:
            return f"the prompt and its answer take {need} tokens, the context holds {self._engine.context}"
        return None

    # Prompts

    def _admit(self) -> None:
        """Start reading the next prompt when its samples will find room, and begin samples that do now."""
        for lane_task in [lane.task for lane in self._lanes] + ([self._reading] if self._reading else []):
            if lane_task.first is not None:
                self._fork(lane_task)
        if self._reading is not None or not self._waiting:
            return
        task = self._waiting[0]
        busy = len(self._lanes)
        if busy and busy + task.job.samples > self._layout.lanes:
            return
        slot = self._slot_for(task)
        if slot is not None:
            self._waiting.popleft()
            task.slot, self._reading = slot, task

    def _slot_for(self, task: _Task) -> _Slot | None:
        """A slot that begins with what is cached of the prompt; None while those in use leave no room."""
        if not self._make_room(task):
            return None
        tokens, engine = task.tokens, self._engine
        source = max(self._b._slots, key=lambda slot: _common(slot.tokens, tokens))
        # The last token is always read: its logits are what the samples start from.
        shared = min(_common(source.tokens, tokens), len(tokens) - 1)
        unused = [slot for slot in self._b._slots if not slot.users]
        # An empty slot if there is one, else the one unused for longest; a prompt asked again goes on in its own.
        target = source if not source.users and shared >= len(source.tokens) - 1 else min(unused, key=lambda s: s.used_at)
        if target is source:
            engine.forget(target.sequence, shared)
        else:
            engine.forget(target.sequence)
            if shared:
                engine.share(source.sequence, target.sequence, shared)
        self._b._turn += 1
        target.tokens, target.users, target.used_at = tokens[:shared], 1, self._b._turn
        task.reused = task.read = shared
        return target

    def _make_room(self, task: _Task) -> bool:
        """Whether cells will do for this task on top of those in use; cached prompts give way, the oldest first."""
        slots = self._b._slots
        need = _need(task)
        active = {id(t): _need(t) for t in [lane.task for lane in self._lanes] + ([self._reading] if self._reading else [])}
        room = self._engine.context - sum(active.values())
        if room < need or all(slot.users for slot in slots):
            return False
        # What the prompt itself will reuse stays until last.
        idle = sorted((s for s in slots if not s.users and s.tokens), key=lambda s: (_common(s.tokens, task.tokens), s.used_at))
        kept = sum(len(slot.tokens) for slot in idle)
        for slot in idle:
            if kept <= room - need:
                break
            kept -= len(slot.tokens)
            self._engine.forget(slot.sequence)
            slot.tokens, slot.used_at = [], 0
        return True

    def _fork(self, task: _Task) -> None:
        """Begin as many of a read prompt's samples as there are free lanes."""
        slot, first, job = task.slot, task.first, task.job
        if slot is None or first is None:
            return
        fresh = []
        while task.begun < job.samples and self._free:
            sequence = self._free.pop()
            self._engine.share(slot.sequence, sequence, len(task.tokens))
            line = None if job.mode == "text" else self._b._line
            answer = Answer(line, self._engine.tokenize, self._engine.piece, limit=job.max_tokens)
            random = np.random.default_rng((job.sampling.seed, task.begun))
            lane = _Lane(sequence, task, answer, len(task.tokens), random)
            task.answers[task.begun] = answer
            task.begun += 1
            slot.users += 1
            answer.begin(job.mode)
            self._lanes.append(lane)
            if not answer.pending:
                fresh.append(lane)
        if fresh:
            self._advance(fresh, np.repeat(first, len(fresh), axis=0))
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
        if lane.task.slot is not None:
            lane.task.slot.users -= 1

    def _cancel(self) -> None:
        """The deadline: what is complete stays, the rest is broken off. The cache may hold half a batch: it goes."""
        for lane in self._lanes:
            lane.answer.break_off("cancelled")
        self._b.forget_all()


def _need(task: _Task) -> int:
    """Cells a task may come to use."""
    return len(task.tokens) + task.job.samples * (task.job.max_tokens + LINE_TOKENS)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    size = min(len(one), len(other))
    if not size:
        return 0
    differ = np.flatnonzero(np.asarray(one[:size]) != np.asarray(other[:size]))
    return int(differ[0]) if len(differ) else size


def _result(task: _Task) -> JobResult:
    samples = tuple(task.answers[i].sample() for i in sorted(task.answers))
    return JobResult(len(task.tokens), task.reused, samples, task.problem)
