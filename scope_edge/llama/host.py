"""Device models as an application uses them: ask one, and read its answer as it is written.

    with Host(settings, cache_dir=assets.user_cache_dir()) as host:
        with host.stream(card, (Message("user", "Hello"),), Generation(200, Sampling())) as stream:
            for piece in stream:
                ...

Each model is loaded into a worker of its own when it is first asked, and stays for a while (setting `keep_alive`). Requests to
one model are decoded together. A worker that dies ends the streams it had with a WorkerError and nothing else: the other models
go on, and the next request starts a new one, a rung lower where llama.cpp crashed.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError, UsageError, WorkerError
from scope_edge.llama.budget import Budget, Store
from scope_edge.llama.client import START_SECONDS, LlamaClient
from scope_edge.llama.counting import count_unloaded
from scope_edge.llama.generation import Generation, chat_job
from scope_edge.llama.jobs import Message, Sampling
from scope_edge.llama.memo import remembered
from scope_edge.llama.memory import STREAM_LAYOUTS, NoRoom
from scope_edge.llama.residents import Residents
from scope_edge.llama.stream import Stream
from scope_edge.llama.turns import Ask
from scope_edge.managing.draft import check_template
from scope_edge.managing.loadable import gguf_path, hash_of, look_up, start_worker

if TYPE_CHECKING:
    from scope_edge.config import Settings
    from scope_edge.records import ModelCard

__all__ = ["Generation", "Host", "Message", "Sampling", "Stream"]


class Host:
    """Owns the workers of the device models. Safe to use from several threads."""

    def __init__(self, settings: Settings, *, cache_dir: Path, reserved_bytes: int = 0) -> None:
        """Nothing is started yet.

        cache_dir: where it is remembered how models load and how long that takes. reserved_bytes: of memory that are not the
        device models' to take, because the estimator holds them or will.
        """
        self._threads, self._cache_dir = settings.threads, cache_dir
        self._budget = Budget(reserved_bytes)
        self._residents = Residents(self._open, _start, settings.keep_alive)
        self._ahead: dict[Path, Future[str]] = {}

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers and wait for them. Streams under way get a WorkerError."""
        self._residents.close()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Ids of the cards whose models are loaded, in order."""
        return tuple(sorted(card for place in self._residents.alive for card in place.cards))

    @property
    def sequences(self) -> int:
        """Requests that workers have not ended yet, those included that nobody waits for any more."""
        return sum(place.worker.requests for place in self._residents.alive)

    def stream(self, card: ModelCard, messages: tuple[Message, ...], options: Generation) -> Stream:
        """An answer to a conversation, begun when it is first read from. Close it, unless it was read to its end.

        Raises UsageError: the card's model does not run here, its file is not there or no model to be asked, the
        conversation or an option cannot be used. AssetError: the file is no GGUF, or cannot be read.
        """
        job = chat_job(messages, options)
        path = _path(card)
        until = math.inf if options.deadline is None else time.monotonic() + options.deadline

        def ask() -> Ask:
            self._look_ahead(path)
            return self._ask(card.id, path)

        return Stream(self._residents, ask, job, until)

    def count(self, card: ModelCard, messages: tuple[Message, ...]) -> int:
        """Tokens of the prompt that a conversation makes. Where the model is not loaded, its vocabulary alone is read.

        Raises what `stream` does, and UsageError for a conversation that the model's chat template refuses; WorkerError.
        """
        path, job = _path(card), chat_job(messages, Generation(None, Sampling()))
        client = next((place.worker for place in self._residents.alive if place.path == path), None)
        if client is not None:
            return client.count(job)
        self._look_ahead(path)  # whoever counts is about to ask
        return count_unloaded(path, job)

    def wait_seconds(self, card: ModelCard) -> float | None:
        """Seconds until a request to the model could begin now: 0 = it is loaded and free, None = unknown.

        Unknown are models that were never loaded here and whose card does not say, and those that have to wait for requests
        to others, which take as long as they take. Raises UsageError or AssetError as `stream` does.
        """
        path = _path(card)
        known = look_up(path).sha256
        measured = None if known is None else remembered(known, self._cache_dir)
        seconds = card.load_seconds if measured is None else measured.load_seconds
        try:
            return self._residents.expected_wait(self._ask(card.id, path), seconds)
        except WorkerError:
            return None

    def _look_ahead(self, path: Path) -> None:
        """Begin what takes long before a model is loaded for the first time: to hash it, and to look for GPUs."""
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

    def _ask(self, card: str, path: Path) -> Ask:
        """A request for a model. Raises WorkerError: it would not fit if it were alone."""
        try:
            known = look_up(path)
        except AssetError as error:
            raise WorkerError(str(error)) from error
        held: dict[Store, int] = {"gpu": self._residents.held("gpu"), "memory": self._residents.held("memory")}
        berth = self._budget.berth(known.shape, known.size, held)
        if isinstance(berth, NoRoom):
            raise WorkerError(f"{path.name}: {berth.why}")
        return Ask(path, card, berth)

    def _open(self, ask: Ask) -> LlamaClient:
        plan = ask.berth.plan
        if self._threads is not None:
            plan = replace(plan, threads=min(plan.threads, self._threads))
        try:
            ahead = self._ahead.get(ask.path)
            if ahead is not None:
                ahead.exception()  # wait; the file may have changed since
            sha256 = hash_of(ask.path)
        except AssetError as error:
            raise WorkerError(str(error)) from error
        return LlamaClient(ask.path, sha256, plan, cache_dir=self._cache_dir, layouts=STREAM_LAYOUTS)


def _start(client: LlamaClient, path: Path) -> None:
    start_worker(client, path, START_SECONDS)


def _path(card: ModelCard) -> Path:
    """The GGUF of a card. Raises UsageError or AssetError."""
    if card.where != "device" or card.gguf is None:
        raise UsageError(f"{card.id}: its card names no gguf, so it is not run here; ask its endpoint, or add gguf")
    path = gguf_path(card)
    if not path.is_file():
        raise UsageError(f"{card.id}: no file {path}; write the right gguf on its card")
    check_template(path, look_up(path).shape.chat_template)
    return path.resolve()
