"""What the decoder has under way: jobs as tasks, samples as lanes, and the cells of the cache each may come to use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scope_edge.providers.llama.decoding import SampleDecoder
from scope_edge.providers.llama.messages import Job, JobResult

if TYPE_CHECKING:
    import numpy as np

    from scope_edge.providers.llama.native import Engine, Logits
    from scope_edge.providers.llama.prompt_cache import Slot

# Tokens an answer line may take beyond the free text: the marker, the line, five digits, and some room.
LINE_TOKENS = 40
# Cells a stream begins with beyond its prompt. It takes more as it writes, and gives way when there are none.
_FIRST_ROOM = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """slots: prompts at once. lanes: samples decoded at once. batch: tokens a decode may hold. keep: tokens of prompts that
    nobody uses any more which stay in the cache. chunk: tokens of prompts that are read beside a step of streams, so that it
    does not take long; four times as many while none writes. Slots are sequences 0 ... slots - 1, lanes the ones after them.
    """

    slots: int
    lanes: int
    batch: int
    keep: int
    chunk: int = 64


@dataclass(slots=True, eq=False)
class Task:
    """A job under way.

    Attributes:
        tokens: to be read. Those of the prompt; where a stream gave way, those it had written too.
        tell, done: for a stream, called with new text and how many tokens it has written, and at its end. None: of a list.
        number: of a stream, counted up. prompt: tokens of the prompt. limit: of free text. width: samples decoded at once, at most.
        answers: begun samples, by number. problem: why there are none.
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
    yielded: int = 0

    @property
    def streamed(self) -> bool:
        """One sample, told as it is written, in the sequence of its own prompt: so that what comes after finds both cached."""
        return self.tell is not None

    @property
    def held(self) -> int:
        """Cells it uses, or may come to use without asking."""
        if self.streamed:
            return len(self.tokens) + 1
        return len(self.tokens) + self.width * self.cells

    @property
    def claim(self) -> int:
        """Cells there must be before it is begun. One that gave way waits for more each time, or it would soon do so again."""
        if not self.streamed:
            return self.held
        left = self.limit - sum(answer.tokens for answer in self.answers.values())
        return len(self.tokens) + max(1, min(left, _FIRST_ROOM << self.yielded))

    @property
    def cells(self) -> int:
        """Of one sample of a job in a list."""
        return self.limit + LINE_TOKENS

    @property
    def result(self) -> JobResult:
        """What came of it so far."""
        samples = tuple(self.answers[i].sample() for i in sorted(self.answers))
        return JobResult(self.prompt, self.reused or 0, samples, self.problem)

    def fed(self, chunk: list[int]) -> bool:
        """So much of the prompt was read; whether that was all."""
        if self.slot is not None:
            self.slot.tokens += chunk
        self.read += len(chunk)
        return self.read == len(self.tokens)

    def fit(self, engine: Engine, lanes: int) -> None:
        """Set its limit and width, or say what is the problem."""
        self.prompt = len(self.tokens)
        room = engine.longest - self.prompt - (0 if self.streamed else LINE_TOKENS)
        asked = self.job.max_tokens
        if not self.prompt:
            self.problem = "the prompt is empty"
        elif self.streamed and room < 1:
            self.problem = f"the prompt takes {self.prompt} tokens, the context holds {engine.longest}"
        elif not self.streamed and room < (asked or 1):
            need = engine.longest - room + (asked or 1)
            self.problem = f"the prompt and its answer take {need} tokens, the context holds {engine.longest}"
        else:
            self.limit = room if asked is None else min(asked, room)
            self.width = min(self.job.samples, lanes, (engine.context - self.prompt) // self.cells)


@dataclass(slots=True, eq=False)
class SampleSequence:
    """One sample being decoded."""

    sequence: int
    task: Task
    answer: SampleDecoder
    position: int
    random: np.random.Generator

    def fed(self) -> None:
        """Its pending tokens are in the cache."""
        pending, task = self.answer.pending, self.task
        self.position += len(pending)
        if task.streamed and task.slot is not None:
            task.tokens += pending
            task.slot.tokens += pending
        pending.clear()


class LogitRows:
    """One decode's batch: tokens with their positions and sequences, and whose logits are wanted."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.sequences: list[int] = []
        self.wanted: list[bool] = []

    def add_lane(self, lane: SampleSequence) -> bool:
        """A lane's pending tokens and its wish for what follows them. False when it has to wait for the next batch."""
        pending = lane.answer.pending
        if len(self.tokens) + len(pending) > self._size:
            return False
        self._add(pending, lane.position, lane.sequence, wanted=True)
        return True

    def add_chunk(self, task: Task, chunk: list[int]) -> None:
        """Some of a prompt; what follows is wanted at its end."""
        if task.slot is not None:
            self._add(chunk, task.read, task.slot.sequence, wanted=task.read + len(chunk) == len(task.tokens))

    def _add(self, tokens: list[int], position: int, sequence: int, *, wanted: bool) -> None:
        self.tokens += tokens
        self.positions += range(position, position + len(tokens))
        self.sequences += [sequence] * len(tokens)
        self.wanted += [False] * (len(tokens) - 1) + [wanted]


@dataclass(slots=True)
class Clock:
    """Where decoding's time goes."""

    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0

    def count(self, seconds: float, written: int, read: int) -> None:
        """Time goes to what the batch was made of."""
        share = read / (written + read)
        self.prefill_tokens += read
        self.prefill_seconds += seconds * share
        self.decode_tokens += written
        self.decode_seconds += seconds * (1 - share)
