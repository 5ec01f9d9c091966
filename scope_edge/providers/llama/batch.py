"""Many samples of many prompts, decoded together: the heart of the estimator's speed, and of several chats at once.

A prompt is read once, into a *slot*. The samples of a job in a list are *lanes*, sequences that share the slot's cells and go
on from there; a stream has one sample, which goes on in the slot itself. All lanes take a step in the same decode, while
prompts are read in what room the batch leaves. Slots stay behind as a cache: a new prompt starts from the one it shares most
with, be it the template's head, a whole prompt asked before, or the conversation so far.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.providers.llama.decoding import AnswerLine, SampleDecoder, UnfitVocabularyError, answer_line
from scope_edge.providers.llama.messages import Job, JobResult, Stats
from scope_edge.providers.llama.prompt_cache import Slot, Slots
from scope_edge.providers.llama.sampling import Sampler
from scope_edge.providers.llama.tasks import LINE_TOKENS, Clock, Layout, LogitRows, SampleSequence, Task

if TYPE_CHECKING:
    from scope_edge.providers.llama.native import Engine, Logits

__all__ = ["LINE_TOKENS", "Batcher", "Layout"]
# While no stream writes, reading may take this many times as long as beside one.
_ALONE = 4
# Beyond so many threads it is memory that rows wait for.
_DRAWERS = 8


class Batcher:
    """Runs lists of jobs, or streams that come and go, on one engine. Keeps prompts cached between them."""

    def __init__(self, engine: Engine, layout: Layout, cancelled: Callable[[], bool]) -> None:
        """cancelled: asked between the decodes of a list; once it says so, the rest of the list is broken off."""
        self._engine, self._layout, self._cancelled = engine, layout, cancelled
        self.slots = Slots(engine, layout.slots, layout.keep)
        self._line: AnswerLine | None = None
        # In a vocabulary that cannot spell the line piece by piece answers are free text, to be parsed by who asked.
        with contextlib.suppress(UnfitVocabularyError):
            self._line = answer_line(engine.tokenize, engine.piece)
        # Reading rows of logits is done without Python's lock.
        pool = ThreadPoolExecutor(min(engine.threads, _DRAWERS)) if engine.threads > 1 else None
        self._sampler = Sampler(engine, self._line, pool)
        self._clock = Clock()
        self._count = 0
        self._waiting: deque[Task] = deque()
        self._readers: list[Task] = []
        self._lanes: list[SampleSequence] = []
        self._free: list[int] = []
        self._reset()

    @property
    def busy(self) -> bool:
        """Whether anything is waiting, read or written."""
        return bool(self._waiting or self._readers or self._lanes)

    def run(
        self, jobs: Sequence[Job], done: Callable[[int, JobResult], None] | None = None
    ) -> tuple[tuple[JobResult, ...], Stats]:
        """All jobs, results in their order; nothing else may be under way.

        done: called with a job's number and result as soon as it has all its samples. Raises the engine's errors, after
        which nothing is cached.
        """
        start = perf_counter()
        clock = self._clock = Clock()
        tasks = [Task(job, self.tokens_of(job)) for job in jobs]
        for index, task in enumerate(tasks):
            task.fit(self._engine, self._layout.lanes)
            if done is not None:
                task.done = partial(done, index)
        self._waiting.extend(task for task in tasks if task.problem is None)
        finished = False
        try:
            while self.busy:
                self._admit()
                if self._cancelled() or not self._step():
                    break
            finished = not self.busy
        finally:
            if not finished:
                self._reset()
        seconds = perf_counter() - start
        stats = Stats(clock.prefill_tokens, clock.prefill_seconds, clock.decode_tokens, clock.decode_seconds, seconds)
        return tuple(task.result for task in tasks), stats

    def stream(
        self, job: Job, tell: Callable[[str, int], None], done: Callable[[JobResult], None], until: float = float("inf")
    ) -> Task:
        """Begin a stream: one sample of plain text, told as it is written by `advance`, and what came of it at the end.

        until: when to break it off, by the monotonic clock. What cannot be run has a `problem` and is done already.
        """
        self._count += 1
        task = Task(job, self.tokens_of(job), tell, done, until, number=self._count)
        task.fit(self._engine, self._layout.lanes)
        if task.problem is None:
            self._waiting.append(task)
        return task

    def drop(self, task: Task) -> None:
        """Break a stream off, and leave its place to others at once."""
        lane = next((lane for lane in self._lanes if lane.task is task), None)
        if lane is not None:
            lane.answer.break_off("cancelled")
            self._retire(lane)
            return
        if task in self._waiting:
            self._waiting.remove(task)
        else:
            self._readers.remove(task)
            self.slots.leave(task.slot)
        if task.done is not None:
            task.done(task.result)

    def advance(self) -> None:
        """One decode for all streams, late ones broken off. Raises the engine's errors, after which all are over."""
        self.drop_late()
        if not self.busy:
            return
        finished = False
        try:
            self._admit()
            self._make_room()
            if not self._step():
                # Given up in the middle, as nobody waits for it any more: what was complete before is still good.
                for task in self._reading_or_writing():
                    self.slots.mend(task.slot)
            finished = True
        finally:
            if not finished:
                self._reset()

    def drop_late(self) -> None:
        """Break off the streams whose time is up."""
        now = monotonic()
        for task in (*self._waiting, *self._reading_or_writing()):
            if now > task.until:
                self.drop(task)

    def tokens_of(self, job: Job) -> list[int]:
        """The prompt's tokens; in direct mode with the beginning of the answer line, which all samples share."""
        prompt = [token for piece in job.pieces for token in self._engine.tokenize(piece.text, markup=piece.markup)]
        if not prompt or job.mode != "direct" or self._line is None:
            return prompt
        return [*prompt, *self._line.marker, *self._line.head]

    def _reset(self) -> None:
        """Nothing under way, nothing cached: half a batch may be in the cache."""
        for lane in self._lanes:
            lane.answer.break_off("cancelled")
        self._waiting.clear()
        self._readers.clear()
        self._lanes.clear()
        self._free = list(range(self._layout.slots + self._layout.lanes - 1, self._layout.slots - 1, -1))
        self.slots.clear()

    # Prompts

    def _admit(self) -> None:
        """Start reading the next prompts when their samples will find room, and begin samples that do now."""
        for task in [task for task in self._readers if task.first is not None]:
            self._fork(task)
        while self._waiting and self._may_read(self._waiting[0]):
            task = self._waiting[0]
            slot = self.slots.take(task.tokens, task.claim, self._cells_in_use())
            if slot is None:
                return
            self._waiting.popleft()
            task.slot, task.read = slot, len(slot.tokens)
            task.reused = task.read if task.reused is None else task.reused
            self._readers.append(task)

    def _may_read(self, task: Task) -> bool:
        """Prompts of streams are read beside each other, those of a list one after another."""
        if task.streamed:
            return True
        busy = len(self._lanes)
        return not self._readers and not (busy and busy + task.width > self._layout.lanes)

    def _cells_in_use(self) -> int:
        """Cells that the tasks under way may come to use."""
        return sum(task.held for task in self._reading_or_writing())

    def _reading_or_writing(self) -> set[Task]:
        return {*self._readers, *(lane.task for lane in self._lanes)}

    def _make_room(self) -> None:
        """Streams take cells as they write. When there are none left, the youngest gives way and goes on later."""
        while (used := self._cells_in_use()) > self._engine.context:
            self._yield(max(self._readers + [lane.task for lane in self._lanes], key=lambda task: task.number))
        self.slots.trim(self._engine.context - used)

    def _yield(self, task: Task) -> None:
        """Take a stream's place from it. It waits in front, to read what it had so far, which may still be cached then."""
        if task in self._readers:
            self._readers.remove(task)
        for lane in [lane for lane in self._lanes if lane.task is task]:
            task.tokens += lane.answer.pending
            lane.answer.pending.clear()
            self._lanes.remove(lane)
        self.slots.leave(task.slot)
        task.yielded += 1
        self._waiting.appendleft(task)

    def _fork(self, task: Task) -> None:
        """Begin as many of a read prompt's samples as there are free lanes."""
        slot, first = task.slot, task.first
        if slot is None or first is None:
            return
        fresh = [self._resume(task)] if task.streamed else self._share(task, slot)
        self._lanes += fresh
        starting = [lane for lane in fresh if not lane.answer.pending]
        if starting:
            self._draw(starting, [first] * len(starting))
        if task.begun >= task.job.samples:
            task.first = None
            self._readers.remove(task)
            if not task.streamed:
                self.slots.leave(slot)

    def _resume(self, task: Task) -> SampleSequence:
        """The one sample of a stream, begun or gone on with, in its slot."""
        if not task.begun:
            task.begun = 1
            task.answers[0] = self._answer(task, None)
            task.random = np.random.default_rng((task.job.sampling.seed, 0))
        assert task.slot is not None and task.random is not None
        return SampleSequence(task.slot.sequence, task, task.answers[0], len(task.tokens), task.random)

    def _share(self, task: Task, slot: Slot) -> list[SampleSequence]:
        """Samples of a job in a list, in sequences that share the slot's cells."""
        fresh: list[SampleSequence] = []
        job, under_way = task.job, sum(lane.task is task for lane in self._lanes)
        while task.begun < job.samples and self._free and under_way + len(fresh) < task.width:
            sequence = self._free.pop()
            self._engine.share(slot.sequence, sequence, len(task.tokens))
            line = None if job.mode == "text" else self._line
            answer = self._answer(task, line)
            random = np.random.default_rng((job.sampling.seed, task.begun))
            task.answers[task.begun] = answer
            task.begun += 1
            slot.users += 1
            if job.mode == "direct" and line is not None:
                answer.begin_answered()
            fresh.append(SampleSequence(sequence, task, answer, len(task.tokens), random))
        return fresh

    def _answer(self, task: Task, line: AnswerLine | None) -> SampleDecoder:
        return SampleDecoder(line, self._engine.tokenize, self._engine.piece, limit=task.limit, stop=task.job.stop)

    # Steps

    def _step(self) -> bool:
        """One decode: a step of every lane, and as much of the prompts being read as fits. False when given up."""
        rows = LogitRows(self._layout.batch)
        stepping = [lane for lane in self._lanes if rows.add_lane(lane)]
        written = len(rows.tokens)
        reading = self._read(rows)
        if not rows.tokens:
            return True
        start = perf_counter()
        logits = self._engine.decode(rows.tokens, rows.positions, rows.sequences, rows.wanted)
        if logits is None:
            return False
        self._clock.count(perf_counter() - start, written, len(rows.tokens) - written)
        for lane in stepping:
            lane.fed()
        at = len(stepping)
        for task, chunk in reading:
            if task.fed(chunk):
                task.first = logits[at].copy()
                at += 1
        self._draw(stepping, logits[: len(stepping)])
        for task, _ in reading:
            self._fork(task)
        return True

    def _read(self, rows: LogitRows) -> list[tuple[Task, list[int]]]:
        """Put some of each prompt that is being read into the rows, and give what."""
        readers = [task for task in self._readers if task.first is None]
        room = self._layout.batch - len(rows.tokens)
        if any(task.streamed for task in readers):
            room = min(room, self._layout.chunk * (1 if self._lanes else _ALONE))
        found = []
        for task, size in _shares(readers, room).items():
            chunk = task.tokens[task.read : task.read + size]
            if chunk:
                rows.add_chunk(task, chunk)
                found.append((task, chunk))
        return found

    def _draw(self, lanes: list[SampleSequence], rows: Sequence[Logits] | Logits) -> None:
        """Use every lane's row of logits, tell what streams have written, and retire what is done."""
        self._sampler.advance(lanes, rows)
        for lane in lanes:
            if lane.answer.state == "done":
                self._retire(lane)
            elif lane.task.tell is not None and (text := lane.answer.fresh()):
                lane.task.tell(text, lane.answer.tokens)

    def _retire(self, lane: SampleSequence) -> None:
        task = lane.task
        self._lanes.remove(lane)
        if task.tell is None:
            self._engine.forget(lane.sequence)
            self._free.append(lane.sequence)
        elif text := lane.answer.fresh():
            task.tell(text, lane.answer.tokens)
        self.slots.leave(task.slot)
        whole = task.begun >= task.job.samples and all(one.task is not task for one in self._lanes)
        if task.done is not None and whole:
            task.done(task.result)


def _shares(readers: list[Task], room: int) -> dict[Task, int]:
    """Tokens of each prompt to read now: half for who came first, the rest for those who have the least left.

    So prompts are done one after another, the short ones soon, and a long one is done in the end however many come.
    """
    order = sorted(readers, key=lambda task: task.number)
    halves = [(task, -(-room // 2)) for task in order[:1]]
    order.sort(key=lambda task: len(task.tokens) - task.read)
    shares = dict.fromkeys(order, 0)
    for task, most in (*halves, *((task, room) for task in order)):
        more = min(most, room, len(task.tokens) - task.read - shares[task])
        shares[task] += more
        room -= more
    return shares
