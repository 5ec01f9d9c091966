"""A client for a model behind an OpenAI-compatible endpoint: questions, streamed conversations, and the list of models.

A question is one POST to ENDPOINT/chat/completions, streamed as a conversation is, so that what passes here passes there. It is
repeated after a pause where that may help: HTTP 429 and 5xx, timeouts, broken connections, answers that break off. A conversation
is never repeated here: the caller can turn to other models. A list of models is one GET of ENDPOINT/models. The key is removed from
the server's texts; an answer that cannot be read whole counts as missing, never as wrong.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from scope_edge.errors import MissingExtraError, NoAnswerError, ProviderError, RemoteError
from scope_edge.providers.openai.dialect import ServerDialect
from scope_edge.providers.openai.pace import ANY_PACE, Pace, tokens_in
from scope_edge.providers.openai.responses import ChatReply, Served, read_models, refusal
from scope_edge.providers.openai.stream import AnswerStream, Chunk, read_answer

if TYPE_CHECKING:
    from scope_edge.providers.openai.transport import HttpCall
    from scope_edge.types import ModelCard

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
# Redirects on the same server, and things that a server does not accept.
_MOST_REQUESTS = 10
_UNKNOWN_ADDRESS = (404, 405, 501)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """timeout: seconds of a question's call, or of silence in a conversation. pace: of a conversation's answer.

    attempts: calls for one question. per_minute: None = no limit.
    """

    timeout: float = 120.0
    attempts: int = 5
    per_minute: float | None = None
    pace: Pace = ANY_PACE


class CostHook(Protocol):
    """Counts calls, since every call may cost money."""

    def begin(self) -> bool:
        """Return whether a call may be made, and count it."""

    def unbilled(self) -> None:
        """Note that the latest call has failed and costs nothing."""


class ChatClient:
    """One model behind its card's endpoint. Threads may share one."""

    def __init__(self, card: ModelCard, retry: RetryPolicy, *, offline: bool = False) -> None:
        """Prepare; nothing is connected yet.

        Raises UsageError: the card has no endpoint, its key is missing, or `offline` forbids the call; MissingExtraError without
        httpx and httpx-sse.
        """
        try:
            from scope_edge.providers.openai import transport
        except ImportError as error:
            raise MissingExtraError(
                f'calling an endpoint needs httpx and httpx-sse ({error}); pip install "scope-edge[cloud]"'
            ) from error
        self._transport = transport.Transport(card, retry.timeout, offline=offline)
        self._call = partial(transport.HttpCall, self._transport)
        self._model, self._retry = card.served_as or card.id, retry
        # A streamed answer only includes its usage on request.
        counted = {"stream_options": {"include_usage": True}}
        self._asking, self._streaming = ServerDialect({"temperature": 0} | counted), ServerDialect(counted)
        self._answered = False
        self._rate = _RateLimiter(retry.per_minute)

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every pause and connection; running calls fail."""
        self._rate.over.set()
        self._transport.close()

    def ask(self, prompt: str, max_tokens: int, meter: CostHook) -> ChatReply:
        """Return one answer, after as many calls as the retry policy allows.

        Raises NoAnswerError (this question got no answer), RemoteError (no question will: the key is refused, the model is
        unknown, no credit is left, it leads to another host).
        """
        body = {"model": self._model, "messages": [{"role": "user", "content": prompt}], "stream": True}
        produce = partial(self._chunks, body, max_tokens, self._asking)
        for attempt in range(1, self._retry.attempts + 1):
            self._rate.wait()
            if not meter.begin():
                raise NoAnswerError("the limit on spending leaves no room for another call")
            try:
                reply = self._whole(self._call(produce, self._retry.timeout), prompt, max_tokens)
                self._answered = True
                return reply
            except ProviderError as error:
                self._pause_or_raise(error, attempt, meter)
        raise NoAnswerError(self._line("it was not asked"))

    def served(self) -> tuple[Served, ...] | None:
        """Return the models that the server lists; None = it has no list. One call, never billed or repeated.

        Raises RemoteError: there is no server, it refuses, it leads to another host, or it sends an invalid list.
        """
        try:
            (found,) = self._call(self._listed, self._retry.timeout)
            return found
        except ProviderError as error:
            raise RemoteError(f"{self._transport.endpoint.url}: {error}") from error

    def stream(
        self,
        messages: Sequence[Mapping[str, Any]],
        fields: Mapping[str, Any],
        max_tokens: int | None,
        until: float = math.inf,
    ) -> AnswerStream:
        """Return one answer; iterating it makes the call, once.

        messages, fields: in the wire format, passed on unchanged. max_tokens: None = the server's limit. until: by time.monotonic().
        """
        body = {"model": self._model, **fields, "messages": list(messages), "stream": True}
        size = len(json.dumps(body["messages"], ensure_ascii=False).encode("utf-8", "replace"))
        produce = partial(self._chunks, body, max_tokens, self._streaming)
        call = self._call(produce, until - time.monotonic(), self._retry.pace)
        return AnswerStream(call, size, max_tokens, self._transport.secret)

    def _pause_or_raise(self, error: ProviderError, attempt: int, meter: CostHook) -> None:
        """Pause before the next attempt. Raises NoAnswerError, RemoteError: no attempt is left."""
        if error.unbilled:
            meter.unbilled()
        if error.every_question:
            raise RemoteError(self._line(str(error))) from error
        if not error.retryable:
            raise NoAnswerError(self._line(str(error)), hopeless=not self._answered) from error
        if attempt == self._retry.attempts:
            why = str(error) if attempt == 1 else f"{error}, {attempt} times"
            raise NoAnswerError(self._line(why), hopeless=error.unreachable and not self._answered) from error
        self._rate.hold(_pause(attempt, error.retry_after), all_threads=error.retry_after is not None)

    def _whole(self, call: HttpCall[Chunk], prompt: str, max_tokens: int) -> ChatReply:
        """Return an answer once it is whole. Raises ProviderError."""
        asked = len(prompt.encode("utf-8", "replace"))
        stream = AnswerStream(call, asked, max_tokens, self._transport.secret)
        text = "".join(piece.text for piece in stream)
        seconds = time.monotonic() - call.started
        return ChatReply(text, stream.finish == "length", stream.prompt_tokens, stream.completion_tokens, seconds)

    async def _chunks(
        self, body: dict[str, Any], max_tokens: int | None, dialect: ServerDialect, call: HttpCall[Chunk]
    ) -> AsyncIterator[Chunk]:
        async with self._responding(call, "chat/completions", body, dialect, max_tokens) as response:
            async for chunk in read_answer(call, call.read(response), self._transport.secret):
                if tokens := tokens_in(chunk):
                    call.wrote(tokens)
                yield chunk

    async def _listed(self, call: HttpCall[tuple[Served, ...] | None]) -> AsyncIterator[tuple[Served, ...] | None]:
        async with self._responding(call, "models", also=_UNKNOWN_ADDRESS) as response:
            yield read_models(await call.read_whole(response)) if response.status_code == 200 else None

    @contextlib.asynccontextmanager
    async def _responding(
        self,
        call: HttpCall[Any],
        path: str,
        body: dict[str, Any] | None = None,
        dialect: ServerDialect | None = None,
        max_tokens: int | None = None,
        also: Sequence[int] = (),
    ) -> AsyncIterator[Any]:
        """Yield a response with status 200 or one of `also`; follow redirects, and drop options that the server does not know.

        Raises ProviderError.
        """
        url = self._transport.endpoint.at(path)
        draft = None if dialect is None else dialect.draft()
        for _ in range(_MOST_REQUESTS):
            sent = body if body is None or draft is None else draft.applied(body, max_tokens)
            async with call.request("GET" if body is None else "POST", url, sent) as response:
                status = response.status_code
                if dialect is not None and draft is not None and status not in (400, 422):
                    dialect.adopt(draft)
                if status == 200 or status in also:
                    yield response
                    return
                raw = await call.read_beginning(response)
            if 300 <= status < 400:
                url = self._transport.moved(url, response.headers.get("location", ""))
            elif not (status in (400, 422) and draft is not None and draft.learn(raw, sent or {})):
                raise refusal(self._transport, self._model, status, response.headers.get("retry-after"), raw)
        raise ProviderError("it redirects or refuses without end", every_question=True, unbilled=True)

    def _line(self, why: str) -> str:
        return f"{self._model} at {self._transport.endpoint.host}: {why}"


class _RateLimiter:
    """Spreads calls over the minute, and keeps the pauses that servers demand."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._lock, self._next = threading.Lock(), 0.0
        self.over = threading.Event()

    def wait(self) -> None:
        """Wait until a call may be made. Raises NoAnswerError: the client is closed."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._gap
        self._sleep(turn - time.monotonic())

    def hold(self, seconds: float, *, all_threads: bool) -> None:
        """Pause this thread's calls, or those of all threads."""
        if all_threads:
            with self._lock:
                self._next = max(self._next, time.monotonic() + seconds)
        else:
            self._sleep(seconds)

    def _sleep(self, seconds: float) -> None:
        if self.over.wait(max(seconds, 0.0)):
            raise NoAnswerError("the client was closed")


def _pause(attempt: int, retry_after: float | None) -> float:
    """Return seconds before the next call: at least the server's demand, and about twice as long each time."""
    longest = min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)
    jittered: float = longest * random.uniform(0.5, 1.0)
    # A server that demands no pause and refuses again would use up all attempts at once.
    return jittered if retry_after is None else max(retry_after, jittered)
