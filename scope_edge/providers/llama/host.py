"""Device models for an application: send one a conversation, and read its answer as it is written.

    with DeviceHost(cache_dir=assets.user_cache_dir()) as host:
        with host.stream(card, (Message("user", "Hello"),), Generation(200, Sampling())) as stream:
            for piece in stream:
                ...

Each model is loaded into a worker of its own by its first request, and stays for a while (`keep_alive`). Requests to one model are
decoded together. A worker that dies ends its own streams with a WorkerError and nothing else: the other models go on, and the
next request starts a new worker, with the next fallback configuration if llama.cpp crashed.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scope_edge.errors import AssetError, ScopeEdgeError, UsageError, WorkerError
from scope_edge.providers.llama.client import LlamaClient, count_unloaded
from scope_edge.providers.llama.gguf import check_template, resolved
from scope_edge.providers.llama.loadable import gguf_path, hash_of, look_up
from scope_edge.providers.llama.memory import STREAM_LAYOUTS, MemoryBudget, NoRoom
from scope_edge.providers.llama.messages import Job, Message, Sampling
from scope_edge.providers.llama.model_manager import ModelManager, ModelRequest
from scope_edge.providers.llama.speed import remembered
from scope_edge.settings.validation import check_amount, check_count, shown

if TYPE_CHECKING:
    from scope_edge.providers.llama.client import ReplyStream
    from scope_edge.providers.llama.model_manager import LoadedModel
    from scope_edge.types import ModelCard

__all__ = ["DeviceHost", "DeviceStream", "Generation", "Message", "Sampling"]

StreamEnding = Literal["stop", "limit", "loop", "cancelled"]
# More than any model has, and what the worker's messages can hold.
_MOST = 2**31 - 1
_ROLES = ("system", "user", "assistant")


class DeviceStream(AbstractContextManager["DeviceStream"], Iterator[str]):
    """Iterates over pieces of text. One thread reads; `close` may be called from any thread.

    Iterating raises WorkerError when the model cannot be loaded (refused=True: llama.cpp refused it) or its worker dies, and
    UsageError for an unsupported conversation: the model's template refuses it, or the prompt is longer than its context.

    Attributes:
        ending: None until the end, and after an error: "stop" = the model's own end or a stop text, "limit" = max_tokens or
            the context, "loop" = it only repeated itself, "cancelled" = closed, or the deadline.
        prompt_tokens: None until they are counted. cached_tokens: of the prompt, not read again; None until the end.
        completion_tokens: so far, in the model's own tokens; the token that ended its turn is not counted.
        load_seconds: the wait until the model was loaded and free, 0 when it was; None until then.
    """

    def __init__(self, models: ModelManager, make_request: Callable[[], ModelRequest], job: Job, until: float) -> None:
        """Do nothing until it is read from. make_request: called then. until: the deadline by the monotonic clock."""
        self._models, self._make_request, self._job, self._until = models, make_request, job, until
        self._turn = threading.Lock()
        self._closed = self._over = False
        self._model: LoadedModel | None = None
        self._reply: ReplyStream | None = None
        self.ending: StreamEnding | None = None
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.completion_tokens = 0
        self.load_seconds: float | None = None

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> str:
        with self._turn:
            piece = None if self._over else self._next()
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Give it up at any point and free its memory. Does nothing after the end."""
        self._closed = True
        reply = self._reply
        if reply is not None and not self._over:
            reply.cancel()
        self._models.wake()
        with self._turn:
            if not self._over:
                self._end("cancelled")

    def _next(self) -> str | None:
        try:
            reply = self._reply or self._begin()
            piece = None if reply is None else reply.next()
        except ScopeEdgeError:
            self._end(None)
            raise
        if reply is None:
            self._end("cancelled")
            return None
        self._note(reply)
        if piece is None:
            ended = reply.ending
            self._end(ended if ended in ("stop", "limit", "loop") else "cancelled")
        return piece

    def _begin(self) -> ReplyStream | None:
        """Wait for the model and start the reply. None: given up before that."""
        entered = self._models.enter(self._make_request(), self._until, lambda: self._closed)
        if entered is None:
            return None
        self._model, self.load_seconds = entered
        left = self._until - time.monotonic()
        self._reply = self._model.worker.stream(self._job, None if left == float("inf") else max(left, 0.0))
        if self._closed:
            self._reply.cancel()
        return self._reply

    def _note(self, reply: ReplyStream) -> None:
        self.prompt_tokens, self.cached_tokens = reply.prompt_tokens, reply.reused_tokens
        self.completion_tokens = reply.completion_tokens

    def _end(self, ending: StreamEnding | None) -> None:
        self._over, self.ending = True, ending
        if self._reply is not None:
            self._note(self._reply)
            if self._reply.ending is None:
                self._reply.cancel()
        if self._model is not None:
            self._models.leave(self._model)
            self._model = None


@dataclass(frozen=True, slots=True)
class Generation:
    """Options of an answer.

    Attributes:
        max_tokens: of the answer, in the model's own tokens; None = as many as the context holds.
        stop: texts that end the answer, and are left out of it.
        deadline: seconds, waiting for the model included, after which the answer ends as "cancelled"; None = no deadline.
    """

    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...] = ()
    deadline: float | None = None


def chat_job(messages: Sequence[Message], options: Generation) -> Job:
    """Turn a conversation into a job for the worker. Raises UsageError for an empty or unsupported one."""
    if not messages:
        raise UsageError("a conversation needs at least one message")
    for number, message in enumerate(messages, 1):
        if message.role not in _ROLES:
            raise UsageError(f"message {number}: unknown role {shown(message.role)}; expected {', '.join(_ROLES)}")
        _check_text(f"message {number}", message.text)
    if isinstance(options.stop, str) or not all(isinstance(one, str) and one for one in options.stop):
        raise UsageError(f"stop must be non-empty texts, not {shown(options.stop)}")
    for text in options.stop:
        _check_text("stop", text)
    if options.deadline is not None and math.isnan(options.deadline):
        raise UsageError("deadline must be a number of seconds, not nan")
    limit = options.max_tokens
    if limit is not None:
        limit = min(check_count("max_tokens", limit, least=1), _MOST)
    return Job((), 1, "text", limit, _checked(options.sampling), tuple(messages), tuple(options.stop))


def _checked(sampling: Sampling) -> Sampling:
    if check_amount("top_p", sampling.top_p) > 1:
        raise UsageError(f"top_p must be a number from 0 to 1, not {shown(sampling.top_p)}")
    return Sampling(
        temperature=check_amount("temperature", sampling.temperature),
        top_p=sampling.top_p,
        top_k=min(check_count("top_k", sampling.top_k, least=1), _MOST),
        seed=check_count("seed", sampling.seed) % _MOST,
    )


def _check_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{what}: half of a character (a lone surrogate) at position {error.start}; mend it"
        ) from error


class DeviceHost(AbstractContextManager["DeviceHost"]):
    """Runs the workers of the device models. Safe to use from several threads."""

    def __init__(
        self, *, cache_dir: Path, threads: int | None = None, keep_alive: float = 300.0, reserved_bytes: int = 0
    ) -> None:
        """Start nothing yet.

        Args:
            cache_dir: of the speed cache.
            threads: cores to use; None = all.
            keep_alive: seconds a model stays loaded after its last use; -1 = forever.
            reserved_bytes: memory of the estimator, loaded or not, which device models may not take.
        """
        self._threads, self._cache_dir = threads, cache_dir
        self._budget = MemoryBudget(reserved_bytes)
        self._models = ModelManager(self._open, keep_alive)
        self._ahead: dict[Path, Future[str]] = {}

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers and wait for them. Streams under way get a WorkerError."""
        self._models.close()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Ids of the cards whose models are loaded, in order."""
        return tuple(sorted(card for model in self._models.alive for card in model.cards))

    @property
    def sequences(self) -> int:
        """The number of requests that workers have not ended yet, abandoned ones included."""
        return sum(model.worker.requests for model in self._models.alive)

    def stream(self, card: ModelCard, messages: tuple[Message, ...], options: Generation) -> DeviceStream:
        """Return the answer to a conversation; it begins when it is first read from. Close it, unless it was read to its end.

        Raises UsageError: the card's model does not run here, its file is missing or has no chat template, the conversation or
        an option is invalid. AssetError: the file is no GGUF, or cannot be read.
        """
        job = chat_job(messages, options)
        path = card_path(card)
        until = math.inf if options.deadline is None else time.monotonic() + options.deadline

        def make_request() -> ModelRequest:
            self._look_ahead(path)
            return self._request(card.id, path)

        return DeviceStream(self._models, make_request, job, until)

    def count(self, card: ModelCard, messages: tuple[Message, ...]) -> int:
        """Count the tokens of a conversation's prompt. If the model is not loaded, only its vocabulary is read.

        Raises what `stream` does, UsageError when the model's chat template refuses the conversation, and WorkerError.
        """
        path, job = card_path(card), chat_job(messages, Generation(None, Sampling()))
        client = next((model.worker for model in self._models.alive if model.path == path), None)
        if client is not None:
            return client.count(job)
        self._look_ahead(path)  # the caller will probably send it next
        return count_unloaded(path, job)

    def wait_seconds(self, card: ModelCard) -> float | None:
        """Return the seconds until a request to the model could begin: 0 = it is loaded and free, None = unknown.

        It is unknown for a model that was never loaded here and whose card does not say, and for one that waits for requests to
        other models. Raises UsageError or AssetError as `stream` does.
        """
        path = card_path(card)
        known = look_up(path).sha256
        measured = None if known is None else remembered(known, self._cache_dir)
        seconds = card.load_seconds if measured is None else measured.load_seconds
        try:
            return self._models.expected_wait(self._request(card.id, path), seconds)
        except WorkerError:
            return None

    def _look_ahead(self, path: Path) -> None:
        """Begin the slow steps of a first load: to hash the file, and to look for GPUs."""
        found: Future[str] = Future()
        if self._ahead.setdefault(path, found) is not found:
            return

        def look() -> None:
            try:
                found.set_result(hash_of(path))
            except AssetError as error:
                found.set_exception(error)

        for do in (look, self._budget.look):
            threading.Thread(target=do, daemon=True).start()

    def _request(self, card: str, path: Path) -> ModelRequest:
        """Return a request for a model. Raises WorkerError when it would not fit even alone."""
        try:
            known = look_up(path)
        except AssetError as error:
            raise WorkerError(str(error)) from error
        load_plan = self._budget.load_plan(known.shape, known.size, self._models.held())
        if isinstance(load_plan, NoRoom):
            raise WorkerError(f"{path.name}: {load_plan.why}")
        return ModelRequest(path, card, load_plan)

    def _open(self, request: ModelRequest) -> LlamaClient:
        plan = request.load_plan.plan
        if self._threads is not None:
            plan = replace(plan, threads=min(plan.threads, self._threads))
        try:
            ahead = self._ahead.get(request.path)
            if ahead is not None:
                ahead.exception()  # wait; the file may have changed since
            sha256 = hash_of(request.path)
        except AssetError as error:
            raise WorkerError(str(error)) from error
        return LlamaClient(request.path, sha256, plan, cache_dir=self._cache_dir, layouts=STREAM_LAYOUTS)


def card_path(card: ModelCard) -> Path:
    """Return the GGUF of a card. Raises UsageError or AssetError."""
    if card.where != "device" or card.gguf is None:
        raise UsageError(f"{card.id}: its card names no gguf, so it does not run here; call its endpoint, or add gguf")
    path = gguf_path(card)
    if not path.is_file():
        raise UsageError(f"{card.id}: no file {path}; write the right gguf on its card")
    check_template(path, look_up(path).shape.chat_template)
    return resolved(path)
