"""Many samples of many prompts, decoded together: the heart of the estimator's speed, and of several chats at once.

A prompt is read once, into a *slot*. The samples of a job in a list are sequences that share the slot's cells and continue from
there; a stream has one sample, which continues in the slot itself. All samples take a step in the same decode, and prompts are
read in the rest of the batch. Slots remain as a cache: a new prompt starts from the one it shares most with, which may be the
template's head, an earlier prompt, or the conversation so far.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.providers.llama.decoding import AnswerLine, SampleDecoder, UnfitVocabularyError, answer_line
from scope_edge.providers.llama.messages import Job, JobResult, Layout, Stats, TextPiece
from scope_edge.providers.llama.sampling import Sampler
from scope_edge.providers.llama.tasks import SampleSequence, Slot, Slots, Task, batch_rows
from scope_edge.providers.thoughts import opened_thought

if TYPE_CHECKING:
    from scope_edge.providers.llama.native import Logits, Native

# While no stream writes, reading may take this many times as long as beside one.
_ALONE = 4
# With more threads, reading rows of logits waits for memory.
_DRAWERS = 8


class Batcher:
    """Runs lists of jobs, or streams that come and go, on one engine. Keeps prompts cached between them."""

    def __init__(self, engine: Native, layout: Layout, cancelled: Callable[[], bool]) -> None:
        """Keep nothing yet. cancelled: called between the decodes of a list; once it returns True, the rest is broken off."""
        self._engine, self._layout, self._cancelled = engine, layout, cancelled
        self.slots = Slots(engine, layout.slots, layout.keep)
        self._line: AnswerLine | None = None
        # In a vocabulary that cannot spell the line piece by piece, answers are free text, which the caller parses.
        with contextlib.suppress(UnfitVocabularyError):
            self._line = answer_line(engine.tokenize, engine.piece)
        # numpy reads rows of logits without Python's lock.
        pool = ThreadPoolExecutor(min(engine.threads, _DRAWERS)) if engine.threads > 1 else None
        self._sampler = Sampler(engine, self._line, pool)
        self._stats = Stats()
        self._count = 0
        self._waiting: deque[Task] = deque()
        self._readers: list[Task] = []
        self._samples: list[SampleSequence] = []
        self._free: list[int] = []
        self._reset()

    @property
    def busy(self) -> bool:
        """Whether anything is waiting, read or written."""
        return bool(self._waiting or self._readers or self._samples)

    def run(
        self, jobs: Sequence[Job], done: Callable[[int, JobResult], None] | None = None
    ) -> tuple[tuple[JobResult, ...], Stats]:
        """Run all jobs and return their results in order; nothing else may be under way.

        done: called with a job's number and result as soon as it has all its samples. Raises the engine's errors, after
        which nothing is cached.
        """
        start = perf_counter()
        self._stats = Stats()
        tasks = [Task(job, self.tokens_of(job)) for job in jobs]
        for index, task in enumerate(tasks):
            task.fit(self._engine, self._layout.lanes)
            if done is not None:
                task.done = partial(done, index)
        self._waiting.extend(task for task in tasks if task.problem is None)
        with contextlib.ExitStack() as stack:
            stack.callback(self._reset)  # unless all is done
            while self.busy:
                self._admit()
                if self._cancelled() or not self._step():
                    break
            if not self.busy:
                stack.pop_all()
        return tuple(task.result for task in tasks), replace(self._stats, seconds=perf_counter() - start)

    def stream(
        self, job: Job, tell: Callable[[str, int], None], done: Callable[[JobResult], None], until: float = float("inf")
    ) -> Task:
        """Begin a stream: one sample of plain text. `advance` calls `tell` as it is written, and `done` at the end.

        until: when to break it off, by the monotonic clock. A task with a `problem` cannot be run and is done already.
        """
        self._count += 1
        task = Task(job, self.tokens_of(job), tell, done, until, number=self._count)
        task.fit(self._engine, self._layout.lanes)
        if task.problem is None:
            self._waiting.append(task)
        return task

    def drop(self, task: Task) -> None:
        """Break a stream off, and give its place to others at once."""
        sample = next((sample for sample in self._samples if sample.task is task), None)
        if sample is not None:
            sample.answer.break_off("cancelled")
            self._retire(sample)
            return
        if task in self._waiting:
            self._waiting.remove(task)
        else:
            self._readers.remove(task)
            self.slots.leave(task.slot)
        if task.done is not None:
            task.done(task.result)

    def advance(self) -> None:
        """Break off late streams and do one decode for the others. Raises the engine's errors, after which all are over."""
        now = monotonic()
        for task in (*self._waiting, *self._reading_or_writing()):
            if now > task.until:
                self.drop(task)
        if not self.busy:
            return
        with contextlib.ExitStack() as stack:
            stack.callback(self._reset)  # unless it goes well
            self._admit()
            self._make_room()
            if not self._step():
                # Given up in the middle, as all were cancelled: what was complete before is still valid.
                for task in self._reading_or_writing():
                    self.slots.mend(task.slot)
            stack.pop_all()

    def tokens_of(self, job: Job) -> list[int]:
        """Return the prompt's tokens; in direct mode with the beginning of the answer line, which all samples share."""
        prompt = [token for piece in job.pieces for token in self._engine.tokenize(piece.text, markup=piece.markup)]
        if not prompt or job.mode != "direct" or self._line is None:
            return prompt
        return [*prompt, *self._line.marker, *self._line.head]

    def _reset(self) -> None:
        """Drop all tasks and the whole cache, which may hold half a batch."""
        for sample in self._samples:
            sample.answer.break_off("cancelled")
        self._waiting.clear()
        self._readers.clear()
        self._samples.clear()
        self._free = list(range(self._layout.slots + self._layout.lanes - 1, self._layout.slots - 1, -1))
        self.slots.clear()

    # Prompts

    def _admit(self) -> None:
        """Start reading the next prompts if their samples will have room, and begin samples that have room now."""
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
            task.began = task.began or perf_counter()
            self._readers.append(task)

    def _may_read(self, task: Task) -> bool:
        """Prompts of streams are read side by side, those of a list one after another."""
        if task.streamed:
            return True
        busy = len(self._samples)
        return not self._readers and (not busy or busy + task.width <= self._layout.lanes)

    def _cells_in_use(self) -> int:
        """Return the number of cells that the tasks under way may need."""
        return sum(task.held for task in self._reading_or_writing())

    def _reading_or_writing(self) -> set[Task]:
        return {*self._readers, *(sample.task for sample in self._samples)}

    def _make_room(self) -> None:
        """Streams take cells as they write. When all are taken, the youngest stream gives way and continues later."""
        while (used := self._cells_in_use()) > self._engine.context:
            self._yield(max(self._readers + [sample.task for sample in self._samples], key=lambda task: task.number))
        self.slots.trim(self._engine.context - used)

    def _yield(self, task: Task) -> None:
        """Take a stream's place. It waits in front, to read again what it had so far, which may still be cached then."""
        if task in self._readers:
            self._readers.remove(task)
        for sample in [sample for sample in self._samples if sample.task is task]:
            task.tokens += sample.answer.pending
            sample.answer.pending.clear()
            self._samples.remove(sample)
        self.slots.leave(task.slot)
        task.yielded += 1
        self._waiting.appendleft(task)

    def _fork(self, task: Task) -> None:
        """Begin as many of a read prompt's samples as there are free sequences."""
        slot, first = task.slot, task.first
        if slot is None or first is None:
            return
        fresh = [self._resume(task)] if task.streamed else self._share(task, slot)
        self._samples += fresh
        starting = [sample for sample in fresh if not sample.answer.pending]
        if starting:
            self._draw(starting, [first] * len(starting))
        if task.begun >= task.job.samples:
            task.first = None
            self._readers.remove(task)
            if not task.streamed:
                self.slots.leave(slot)

    def _resume(self, task: Task) -> SampleSequence:
        """Begin or continue the one sample of a stream, in its slot."""
        if not task.begun:
            task.begun, task.wrote = 1, perf_counter()
            task.answers[0] = self._answer(task, None)
            task.random = np.random.default_rng((task.job.sampling.seed, 0))
        assert task.slot is not None and task.random is not None
        return SampleSequence(task.slot.sequence, task, task.answers[0], len(task.tokens), task.random)

    def _share(self, task: Task, slot: Slot) -> list[SampleSequence]:
        """Begin samples of a job in a list, in sequences that share the slot's cells."""
        fresh: list[SampleSequence] = []
        job, under_way = task.job, sum(sample.task is task for sample in self._samples)
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
        job, engine = task.job, self._engine
        # The template may have begun the thought that the model only ends.
        last = job.pieces[-1] if job.mode == "text" else TextPiece("")
        begun = opened_thought(last.text) if last.markup else ""
        return SampleDecoder(line, engine.tokenize, engine.piece, limit=task.limit, stop=job.stop, begun=begun)

    # Steps

    def _step(self) -> bool:
        """Do one decode: a step of every sample, and as much of the prompts as fits. Return False when it was given up."""
        rows: list[tuple[int, int, int, bool]] = []
        stepping = []
        for sample in self._samples:
            pending = sample.answer.pending
            if len(rows) + len(pending) <= self._layout.batch:
                rows += batch_rows(pending, sample.position, sample.sequence, wanted=True)
                stepping.append(sample)
        written = len(rows)
        reading = self._read(rows)
        if not rows:
            return True
        start = perf_counter()
        tokens, positions, sequences, wanted = zip(*rows, strict=True)
        logits = self._engine.decode(tokens, positions, sequences, wanted)
        if logits is None:
            return False
        self._stats = self._stats.plus(perf_counter() - start, written, len(rows) - written)
        for sample in stepping:
            sample.fed()
        at = len(stepping)
        for task, chunk in reading:
            if task.fed(chunk):
                task.first = logits[at].copy()
                at += 1
        self._draw(stepping, logits[: len(stepping)])
        for task, _ in reading:
            self._fork(task)
        return True

    def _read(self, rows: list[tuple[int, int, int, bool]]) -> list[tuple[Task, list[int]]]:
        """Put some of each prompt that is being read into the rows, and return that."""
        readers = [task for task in self._readers if task.first is None]
        room = self._layout.batch - len(rows)
        if any(task.streamed for task in readers):
            room = min(room, self._layout.chunk * (1 if self._samples else _ALONE))
        found = []
        for task, size in _shares(readers, room).items():
            chunk = task.tokens[task.read : task.read + size]
            if chunk and task.slot is not None:
                ends = task.read + size == len(task.tokens)
                rows += batch_rows(chunk, task.read, task.slot.sequence, wanted=ends)
                found.append((task, chunk))
        return found

    def _draw(self, samples: list[SampleSequence], rows: Sequence[Logits] | Logits) -> None:
        """Use every sample's row of logits, send the text of streams, and retire finished samples."""
        self._sampler.advance(samples, rows)
        for sample in samples:
            if sample.answer.state == "done":
                self._retire(sample)
            elif sample.task.tell is not None and (text := sample.answer.plain.fresh()):
                sample.task.tell(text, sample.answer.tokens)

    def _retire(self, sample: SampleSequence) -> None:
        task = sample.task
        self._samples.remove(sample)
        if task.tell is None:
            self._engine.forget(sample.sequence)
            self._free.append(sample.sequence)
        elif text := sample.answer.plain.fresh():
            task.tell(text, sample.answer.tokens)
        self.slots.leave(task.slot)
        whole = task.begun >= task.job.samples and all(one.task is not task for one in self._samples)
        if task.done is not None and whole:
            task.done(task.result)


def _shares(readers: list[Task], room: int) -> dict[Task, int]:
    """Return how many tokens of each prompt to read now: half the room for the oldest, the rest for those with the least left.

    So prompts finish one after another, short ones soon, and a long one finishes however many others come.
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
