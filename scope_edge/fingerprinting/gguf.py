"""Questions to a GGUF, in the llama.cpp worker: through its own chat template, many decoded together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scope_edge.errors import UsageError, WorkerError
from scope_edge.fingerprinting.answer_log import LoggedAnswer
from scope_edge.providers.llama.client import START_SECONDS, LlamaClient
from scope_edge.providers.llama.gguf import check_template
from scope_edge.providers.llama.loadable import gguf_path, start_worker
from scope_edge.providers.llama.memory import plan_device
from scope_edge.providers.llama.messages import Job, JobResult, Message, Sampling
from scope_edge.storage import assets

if TYPE_CHECKING:
    from scope_edge.fingerprinting.questions import Question
    from scope_edge.providers.llama.memory import Plan
    from scope_edge.providers.llama.messages import ModelShape
    from scope_edge.providers.llama.speed import SpeedRecord
    from scope_edge.types import ModelCard

# Decoded by one sample alone before its speed is believed.
_TIMED_TOKENS = 32
_ATTEMPTS = 3
_ROOM = 64  # for the template around a question


@dataclass(frozen=True, slots=True)
class GgufModel:
    """The file of a card, and what it says of itself."""

    path: Path
    sha256: str
    shape: ModelShape


@dataclass(frozen=True, slots=True)
class GenerationSpeed:
    """Measured: tokens a second of one answer alone and of a prompt; seconds to load. None = too little was read."""

    tokens_per_second: float | None
    prompt_tokens_per_second: float | None
    load_seconds: float | None


def look_at(card: ModelCard, progress: Callable[[int, int], None] | None = None) -> GgufModel:
    """The GGUF of a card, hashed. progress: bytes read, bytes in all.

    Raises UsageError (not there, no chat template), AssetError (no GGUF, cannot be read), MissingExtraError.
    """
    from scope_edge.providers.llama.gguf import describe_gguf
    from scope_edge.storage.files import file_sha256

    path = gguf_path(card)
    if not path.is_file():
        raise UsageError(f"{card.id}: no file {path}; write the right gguf on its card")
    shape = describe_gguf(path)
    check_template(path, shape.chat_template)
    try:
        return GgufModel(path, file_sha256(path, progress), shape)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def open_worker(gguf: GgufModel, threads: int | None) -> tuple[LlamaClient, Plan]:
    """A worker for it, not started yet, and how it will be loaded. Raises WorkerError: there is no room for it."""
    from scope_edge.providers.llama.memory import NoRoom

    plan = plan_device(gguf.shape, gguf.path.stat().st_size)
    if isinstance(plan, NoRoom):
        raise WorkerError(f"{gguf.path.name}: {plan.why}")
    plan = _threaded(plan, threads)
    return LlamaClient(gguf.path, gguf.sha256, plan, cache_dir=assets.user_cache_dir()), plan


class LocalAsker:
    """Asks one GGUF."""

    def __init__(self, gguf: GgufModel, *, max_tokens: int, threads: int | None) -> None:
        """Nothing is loaded yet. Raises WorkerError: there is no room for it."""
        self._gguf, self._max_tokens = gguf, max_tokens
        self._client, self._plan = open_worker(gguf, threads)
        self._ready: SpeedRecord | None = None
        self._tokens, self._seconds = 0, 0.0

    def __enter__(self) -> LocalAsker:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def speed(self) -> GenerationSpeed:
        """As measured so far."""
        alone = self._tokens / self._seconds if self._tokens >= _TIMED_TOKENS and self._seconds > 0 else None
        ready = self._ready
        return GenerationSpeed(alone, ready.prefill_tps if ready else None, ready.load_seconds if ready else None)

    def ask(self, following: Callable[[], Question | None], take: Callable[[LoggedAnswer], bool]) -> None:
        """Ask what `following` gives until it gives None, or `take`, which gets every answer, says False.

        The first ones one by one, to see how fast a single answer is; then all together. Raises WorkerError.
        """
        while self._tokens < _TIMED_TOKENS:
            question = following()
            if question is None:
                return
            if not self._run([question], take):
                return
        rest: list[Question] = []
        while (question := following()) is not None:
            rest.append(question)
        self._run(rest, take)

    def _run(self, questions: list[Question], take: Callable[[LoggedAnswer], bool]) -> bool:
        """Ask these together; whether there is to be more. A worker that dies is started again for what is left."""
        left = {question.anchor: question for question in questions}
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._once(left, take)
            except WorkerError:
                if attempt == _ATTEMPTS:
                    raise
        return False

    def _once(self, left: dict[str, Question], take: Callable[[LoggedAnswer], bool]) -> bool:
        self._ready = start_worker(self._client, self._gguf.path, START_SECONDS)
        asked = list(left.values())
        more = True

        def each(index: int, result: JobResult) -> bool:
            nonlocal more
            del left[asked[index].anchor]
            more = take(_answer(asked[index], result)) and more
            return more

        results, stats = self._client.run([self._job(one) for one in asked], None, each)
        if len(asked) == 1:
            self._tokens += stats.decode_tokens
            self._seconds += stats.decode_seconds
        for question, result in zip(asked, results, strict=True):
            # What could not be run at all is told of at the end.
            if more and question.anchor in left:
                del left[question.anchor]
                more = take(_answer(question, result))
        return more

    def _job(self, question: Question) -> Job:
        room = min(self._gguf.shape.context or self._plan.context, self._plan.context)
        fits = room - int(question.prompt_tokens_high) - _ROOM
        tokens = max(1, min(self._max_tokens, fits))
        return Job((), 1, "text", tokens, Sampling(temperature=0.0), (Message("user", question.prompt),))


def _threaded(plan: Plan, threads: int | None) -> Plan:
    from dataclasses import replace

    return plan if threads is None else replace(plan, threads=min(plan.threads, threads))


def _answer(question: Question, result: JobResult) -> LoggedAnswer:
    if not result.samples:
        return LoggedAnswer(question.anchor, None, result.problem or "it was not run")
    sample = result.samples[0]
    if sample.ending not in ("stop", "limit"):
        return LoggedAnswer(question.anchor, None, f"decoding ended early ({sample.ending})")
    return LoggedAnswer(
        anchor=question.anchor,
        text=sample.text,
        cut=sample.ending == "limit",
        prompt_tokens=float(result.prompt_tokens),
        completion_tokens=float(sample.tokens),
        counted="tokenizer",
        usd=0.0,
    )
