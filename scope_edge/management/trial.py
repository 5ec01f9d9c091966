"""A trial of a model with one tiny call: whether it answers, how fast, and the problem if it does not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scope_edge.errors import ScopeEdgeError, UsageError, WorkerError
from scope_edge.types import ModelCard

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPT = "Reply with the one word: ready"
MAX_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of one call.

    Attributes:
        how: the called file or address, in words. works: whether an answer came.
        text: of the answer. cut: whether `MAX_TOKENS` ended it, as may happen to a model that thinks first.
        seconds: from the question to the whole answer, without loading. load_seconds: of a GGUF.
        prompt_tokens, completion_tokens: the model's own; None = not reported. exit_code: of the command.
    """

    model: str
    how: str
    works: bool
    text: str | None = None
    cut: bool = False
    seconds: float | None = None
    load_seconds: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    problem: str | None = None
    exit_code: int = 0


def try_model(
    card: ModelCard,
    timeout: float,
    reading: Callable[[str, int, int], None] | None = None,
    *,
    threads: int | None = None,
    offline: bool = False,
) -> Trial:
    """Ask a model one tiny question. Errors of the call are in the result.

    timeout: seconds for the answer. reading: progress of reading a large file, as (what, done, in all).
    Raises UsageError for a card without a GGUF or an endpoint.
    """
    if card.gguf is None and card.endpoint is None:
        raise UsageError(
            f"the card of {card.id} does not say how it is called;"
            f" `scope-edge models add` writes one that does, with --id {card.id}"
        )
    how = card.gguf or f"{card.served_as or card.id} at {card.endpoint}"
    try:
        if card.gguf is not None:
            return _try_gguf(card, how, timeout, reading, threads)
        return _try_endpoint(card, how, timeout, offline=offline)
    except ScopeEdgeError as error:
        return Trial(card.id, how, works=False, problem=str(error), exit_code=error.exit_code)


def _try_gguf(
    card: ModelCard, how: str, timeout: float, reading: Callable[[str, int, int], None] | None, threads: int | None
) -> Trial:
    from scope_edge.fingerprinting.gguf import look_at, open_worker
    from scope_edge.providers.llama.client import START_SECONDS
    from scope_edge.providers.llama.loadable import start_worker
    from scope_edge.providers.llama.messages import Job, Message, Sampling

    gguf = look_at(card, None if reading is None else lambda done, total: reading("reading the GGUF", done, total))
    client, _ = open_worker(gguf, threads)
    job = Job((), 1, "text", MAX_TOKENS, Sampling(temperature=0.0), (Message("user", PROMPT),))
    with client:
        ready = start_worker(client, gguf.path, START_SECONDS)
        started = time.monotonic()
        (result,), _ = client.run([job], timeout)
        seconds = time.monotonic() - started
    if not result.samples:
        raise WorkerError(f"{gguf.path.name}: {result.problem or 'it did not run'}")
    (sample,) = result.samples
    if sample.ending not in ("stop", "limit", "loop"):
        raise WorkerError(f"{gguf.path.name}: no answer within {timeout:g} seconds ({sample.ending})")
    return Trial(
        model=card.id,
        how=how,
        works=True,
        text=sample.text,
        cut=sample.ending in ("limit", "loop"),
        seconds=seconds,
        load_seconds=ready.load_seconds,
        prompt_tokens=result.prompt_tokens,
        completion_tokens=sample.tokens,
    )


def _try_endpoint(card: ModelCard, how: str, timeout: float, *, offline: bool) -> Trial:
    from scope_edge.providers.openai.client import ChatClient, RetryPolicy

    with ChatClient(card, RetryPolicy(timeout, attempts=1), offline=offline) as client:
        reply = client.ask(PROMPT, MAX_TOKENS, _Unmetered())
    return Trial(
        model=card.id,
        how=how,
        works=True,
        text=reply.text,
        cut=reply.cut,
        seconds=reply.seconds,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
    )


class _Unmetered:
    """No budget: one call has only a few tokens."""

    def begin(self) -> bool:
        return True

    def unbilled(self) -> None:
        pass
