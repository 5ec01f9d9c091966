"""Questions to a GGUF in the llama.cpp worker, through its own chat template, many decoded together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scope_edge.errors import UsageError, WorkerError
from scope_edge.fingerprinting.answer_log import LoggedAnswer
from scope_edge.providers.llama.client import START_SECONDS, LlamaClient
from scope_edge.providers.llama.gguf import check_template, describe_gguf, gguf_sha256, parts_of
from scope_edge.providers.llama.loadable import gguf_path, start_worker
from scope_edge.providers.llama.memory import NoRoom, plan_device
from scope_edge.providers.llama.messages import Job, JobResult, Message, Sampling
from scope_edge.storage import assets

if TYPE_CHECKING:
    from scope_edge.fingerprinting.questions import Question
    from scope_edge.providers.llama.memory import Plan
    from scope_edge.providers.llama.messages import ModelShape
    from scope_edge.providers.llama.speed import SpeedRecord
    from scope_edge.types import ModelCard

# Tokens decoded by single answers before their speed is reported.
_TIMED_TOKENS = 32
_ATTEMPTS = 3
_TEMPLATE_TOKENS = 64  # around a question


@dataclass(frozen=True, slots=True)
class GgufModel:
    """The GGUF of a card, with its hash and what its header says."""

    path: Path
    sha256: str
    shape: ModelShape


@dataclass(frozen=True, slots=True)
class GenerationSpeed:
    """Measured tokens a second of a single answer and of a prompt; seconds to load. None = too little was measured."""

    tokens_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    load_seconds: float | None = None


def look_at(card: ModelCard, progress: Callable[[int, int], None] | None = None) -> GgufModel:
    """Read and hash the GGUF of a card. progress: called with (bytes read, total bytes).

    Raises UsageError (missing, no chat template), AssetError (no GGUF, cannot be read), MissingExtraError.
    """
    path = gguf_path(card)
    if not path.is_file():
        raise UsageError(f"{card.id}: no file {path}; write the right gguf on its card")
    shape = describe_gguf(path)
    check_template(path, shape.chat_template)
    try:
        return GgufModel(path, gguf_sha256(path, progress), shape)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def open_worker(gguf: GgufModel, threads: int | None) -> tuple[LlamaClient, Plan]:
    """Return a worker that is not started yet, and its plan for loading. Raises WorkerError: not enough memory."""
    plan = plan_device(gguf.shape, sum(part.stat().st_size for part in parts_of(gguf.path)))
    if isinstance(plan, NoRoom):
        raise WorkerError(f"{gguf.path.name}: {plan.why}")
    if threads is not None:
        plan = replace(plan, threads=min(plan.threads, threads))
    return LlamaClient(gguf.path, gguf.sha256, plan, cache_dir=assets.user_cache_dir()), plan


class LocalAsker:
    """Asks one GGUF."""

    def __init__(self, gguf: GgufModel, *, max_tokens: int, threads: int | None) -> None:
        """Load nothing yet. Raises WorkerError: not enough memory."""
        self._gguf, self._max_tokens = gguf, max_tokens
        self._client, self._plan = open_worker(gguf, threads)
        self._ready: SpeedRecord | None = None
        self._tokens, self._seconds = 0, 0.0

    @property
    def speed(self) -> GenerationSpeed:
        """The speed measured so far."""
        alone = self._tokens / self._seconds if self._tokens >= _TIMED_TOKENS and self._seconds > 0 else None
        if self._ready is None:
            return GenerationSpeed(alone)
        return GenerationSpeed(alone, self._ready.prefill_tps, self._ready.load_seconds)

    def ask(self, next_question: Callable[[], Question | None], record: Callable[[LoggedAnswer], bool]) -> None:
        """Ask `next_question` until it returns None, or `record`, which gets every answer, returns False.

        The first questions are asked one by one, to measure the speed of a single answer, the rest together. The worker ends
        with this call. Raises WorkerError.
        """
        with self._client:
            while self._tokens < _TIMED_TOKENS:
                question = next_question()
                if question is None or not self._run([question], record):
                    return
            self._run(list(iter(next_question, None)), record)

    def _run(self, questions: list[Question], record: Callable[[LoggedAnswer], bool]) -> bool:
        """Ask questions together; return whether to continue. A worker that dies is restarted for the remaining ones."""
        left = {question.anchor: question for question in questions}
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._run_once(left, record)
            except WorkerError:
                continue
        return self._run_once(left, record)

    def _run_once(self, left: dict[str, Question], record: Callable[[LoggedAnswer], bool]) -> bool:
        self._ready = start_worker(self._client, self._gguf.path, START_SECONDS)
        asked = list(left.values())
        more = True

        def each(index: int, result: JobResult) -> bool:
            nonlocal more
            del left[asked[index].anchor]
            more = record(_answer(asked[index], result)) and more
            return more

        results, stats = self._client.run([self._job(one) for one in asked], None, each)
        if len(asked) == 1:
            self._tokens += stats.decode_tokens
            self._seconds += stats.decode_seconds
        for index, (question, result) in enumerate(zip(asked, results, strict=True)):
            # Jobs that could not run at all are reported at the end.
            if more and question.anchor in left:
                each(index, result)
        return more

    def _job(self, question: Question) -> Job:
        context = min(self._gguf.shape.context or self._plan.context, self._plan.context)
        left = context - int(question.prompt_tokens_high) - _TEMPLATE_TOKENS
        tokens = max(1, min(self._max_tokens, left))
        return Job((), 1, "text", tokens, Sampling(temperature=0.0), (Message("user", question.prompt),))


def _answer(question: Question, result: JobResult) -> LoggedAnswer:
    if not result.samples:
        return LoggedAnswer(question.anchor, None, result.problem or "it was not run")
    sample = result.samples[0]
    if sample.ending not in ("stop", "limit", "loop"):
        return LoggedAnswer(question.anchor, None, f"decoding ended early ({sample.ending})")
    return LoggedAnswer(
        anchor=question.anchor,
        text=sample.text,
        cut=sample.ending in ("limit", "loop"),
        prompt_tokens=float(result.prompt_tokens),
        completion_tokens=float(sample.tokens),
        counted="tokenizer",
        usd=0.0,
    )
