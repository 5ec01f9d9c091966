"""The decoder's state: jobs as tasks, their samples, and the slots of the cache, where prompts stay for later ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.providers.llama.decoding import SampleDecoder
from scope_edge.providers.llama.messages import Job, JobResult

if TYPE_CHECKING:
    from scope_edge.providers.llama.native import Logits, Native

# Tokens an answer line may take beyond the free text: the marker, the line, five digits, and some room.
LINE_TOKENS = 40
# Cells a stream begins with beyond its prompt. It takes more as it writes, and gives way when all are taken.
_FIRST_ROOM = 64


@dataclass(slots=True)
class Slot:
    """A prompt's sequence and its tokens. users: samples that continue from it, and the reading of it."""

    sequence: int
    tokens: list[int] = field(default_factory=list)
    users: int = 0
    used_at: int = 0


class Slots:
    """Sequences 0 ... count - 1 of an engine: a new prompt starts with its longest cached part, and only the rest is read."""

    def __init__(self, engine: Native, count: int, keep: int) -> None:
        """Begin empty. keep: tokens of unused prompts that stay; attention reads all cells in use, so they slow all others."""
        self._engine, self._keep = engine, keep
        self._turn = 0
        self._slots = [Slot(i) for i in range(count)]

    def clear(self) -> None:
        """Forget everything that the engine holds."""
        self._engine.clear()
        self._slots = [Slot(slot.sequence) for slot in self._slots]

    def take(self, tokens: Sequence[int], need: int, in_use: int) -> Slot | None:
        """Return a slot with a prompt's cached part and one user; None while the slots in use leave no room.

        need, in_use: cells that the prompt with its samples, and all others, may need.
        """
        room = self._engine.context - in_use - need
        if room < 0 or all(slot.users for slot in self._slots):
            return None
        source = max(self._slots, key=lambda slot: (self._shared(slot, tokens), -slot.users))
        shared = self._shared(source, tokens)
        target = self._target(source, shared, min(room, self._keep))
        self._engine.forget(target.sequence, shared if target is source else 0)
        if target is not source and shared:
            self._engine.share(source.sequence, target.sequence, shared)
        self._turn += 1
        target.tokens, target.users, target.used_at = list(tokens[:shared]), 1, self._turn
        self._trim(tokens, min(room, self._keep))
        return target

    def leave(self, slot: Slot | None) -> None:
        """Remove one user. The tokens stay for a prompt that begins alike, until the room is needed."""
        if slot is not None:
            slot.users -= 1
            self._turn += 1
            slot.used_at = self._turn

    def mend(self, slot: Slot | None) -> None:
        """Drop what an interrupted decode may have left in a sequence."""
        if slot is not None:
            if not self._engine.rewinds:
                slot.tokens = []
            self._engine.forget(slot.sequence, len(slot.tokens))

    def trim(self, room: int) -> None:
        """Leave unused prompts at most so many tokens, the oldest going first."""
        if sum(len(slot.tokens) for slot in self._slots if not slot.users) > room:
            self._trim((), room)

    def _shared(self, slot: Slot, tokens: Sequence[int]) -> int:
        """Return how much of a slot serves a prompt. The last token is always read: samples start from its logits."""
        shared = min(common(slot.tokens, tokens), len(tokens) - 1)
        return shared if self._engine.rewinds or shared == len(slot.tokens) else 0

    def _target(self, source: Slot, shared: int, keep: int) -> Slot:
        """Return the source if overwriting it loses nothing worth keeping, else the oldest slot."""
        rest = len(source.tokens) - shared
        if not source.users and (rest <= 1 or rest > keep):
            return source
        return min((slot for slot in self._slots if not slot.users), key=lambda slot: slot.used_at)

    def _trim(self, tokens: Sequence[int], keep: int) -> None:
        """Drop unused prompts until so many tokens are left: those least like this one first, then the oldest.

        Cells that prompts share count once for each prompt, so at least the promised room is free.
        """
        idle = [slot for slot in self._slots if not slot.users and slot.tokens]
        idle.sort(key=lambda slot: (common(slot.tokens, tokens), slot.used_at))
        kept = sum(len(slot.tokens) for slot in idle)
        for slot in idle:
            if kept <= keep:
                break
            kept -= len(slot.tokens)
            self._engine.forget(slot.sequence)
            slot.tokens, slot.used_at = [], 0


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences share at their beginning."""
    size = min(len(one), len(other))
    if not size:
        return 0
    differ = np.flatnonzero(np.asarray(one[:size]) != np.asarray(other[:size]))
    return int(differ[0]) if len(differ) else size


@dataclass(slots=True, eq=False)
class Task:
    """A job under way.

    Attributes:
        tokens: to be read: the prompt's, and those already written by a stream that gave way.
        tell: for a stream, called with new text and the number of tokens so far; None for a job in a list.
        done: called with the result. number: of a stream, counted up. prompt: tokens of the prompt. limit: of free text.
        width: most samples decoded at once. answers: begun samples, by number. problem: why it cannot be run; overflows: whether that
            is for the length of its prompt.
        began, wrote: when its prompt was begun, and its first token drawn, by time.perf_counter(); None until then.
        yielded: how often it gave way. until: when it is broken off, by the monotonic clock.
    """

    job: Job
    tokens: list[int]
    tell: Callable[[str, int], None] | None = None
    done: Callable[[JobResult], None] | None = None
    until: float = float("inf")
    number: int = 0
    prompt: int = 0
    limit: int = 0
    width: int = 1
    slot: Slot | None = None
    reused: int | None = None
    read: int = 0
    begun: int = 0
    first: Logits | None = None
    answers: dict[int, SampleDecoder] = field(default_factory=dict)
    random: np.random.Generator | None = None
    problem: str | None = None
    overflows: bool = False
    began: float | None = None
    wrote: float | None = None
    yielded: int = 0

    @property
    def streamed(self) -> bool:
        """Whether it has one sample, in the sequence of its own prompt, so that a later prompt finds both cached."""
        return self.tell is not None

    @property
    def held(self) -> int:
        """Cells it uses, or may use without asking."""
        if self.streamed:
            return len(self.tokens) + 1
        return len(self.tokens) + self.width * self.cells

    @property
    def claim(self) -> int:
        """Free cells it needs to begin. A stream that gave way needs more each time, or it would soon give way again."""
        if not self.streamed:
            return self.held
        left = self.limit - sum(answer.tokens for answer in self.answers.values())
        return len(self.tokens) + max(1, min(left, _FIRST_ROOM << self.yielded))

    @property
    def cells(self) -> int:
        """Cells of one sample of a job in a list."""
        return self.limit + LINE_TOKENS

    def speed(self, now: float) -> dict[str, float]:
        """Return the fields of `speed.RunSpeed` of a stream that ends now."""
        if self.began is None or self.wrote is None:
            return {"read": 0, "read_seconds": 0.0, "written": 0, "write_seconds": 0.0}
        written = sum(answer.tokens for answer in self.answers.values())
        # The first token comes with the prompt.
        return {
            "read": self.prompt - (self.reused or 0),
            "read_seconds": self.wrote - self.began,
            "written": max(written - 1, 0),
            "write_seconds": now - self.wrote,
        }

    @property
    def result(self) -> JobResult:
        """The result so far."""
        samples = tuple(self.answers[i].sample() for i in sorted(self.answers))
        return JobResult(self.prompt, self.reused or 0, samples, self.problem)

    def fed(self, chunk: list[int]) -> bool:
        """Note that so much of the prompt was read; return whether that was all."""
        if self.slot is not None:
            self.slot.tokens += chunk
        self.read += len(chunk)
        return self.read == len(self.tokens)

    def fit(self, engine: Native, at_once: int) -> None:
        """Set the limit and width, or the problem. at_once: most samples decoded together."""
        self.prompt = len(self.tokens)
        room = engine.longest - self.prompt - (0 if self.streamed else LINE_TOKENS)
        asked = self.job.max_tokens
        if not self.prompt:
            self.problem = "the prompt is empty"
        elif self.streamed and room < 1:
            self.overflows = True
            self.problem = f"the prompt takes {self.prompt} tokens, the context holds {engine.longest}"
        elif not self.streamed and room < (asked or 1):
            need = engine.longest - room + (asked or 1)
            self.problem = f"the prompt and its answer take {need} tokens, the context holds {engine.longest}"
        else:
            self.limit = room if asked is None else min(asked, room)
            self.width = min(self.job.samples, at_once, (engine.context - self.prompt) // self.cells)


@dataclass(slots=True, eq=False)
class SampleSequence:
    """One sample being decoded."""

    sequence: int
    task: Task
    answer: SampleDecoder
    position: int
    random: np.random.Generator

    def fed(self) -> None:
        """Note that its pending tokens are in the cache."""
        pending, task = self.answer.pending, self.task
        self.position += len(pending)
        if task.streamed and task.slot is not None:
            task.tokens += pending
            task.slot.tokens += pending
        pending.clear()


def batch_rows(
    tokens: Sequence[int], position: int, sequence: int, *, wanted: bool
) -> Iterator[tuple[int, int, int, bool]]:
    """Yield a decode's rows: token, position, sequence, and whether its logits are wanted, only those of the last token."""
    last = len(tokens) - 1
    for i, token in enumerate(tokens):
        yield token, position + i, sequence, wanted and i == last
