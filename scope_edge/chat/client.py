"""Questions to a model behind an OpenAI-compatible endpoint, and conversations whose answers come piece by piece.

A question is one POST to ENDPOINT/chat/completions, not streamed; what may pass is tried again after a pause (429, 5xx,
timeouts, broken connections, bodies that are cut off or no JSON). A conversation is one streamed POST, never repeated here: who
asked has other models to turn to. What is served there is one GET of ENDPOINT/models. What a server sends back is cleared of
the key; an answer that cannot be read whole is no answer, never a wrong one.
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from scope_edge.chat.connection import CIRCLE, MAX_REDIRECTS, Connection
from scope_edge.chat.failed import Failed
from scope_edge.chat.incoming import Incoming
from scope_edge.chat.refusals import Dialect, refusal
from scope_edge.chat.stream import AnswerStream
from scope_edge.chat.wire import NotAnAnswerError, Reply, Served, read_models, read_reply
from scope_edge.errors import NoAnswerError, RemoteError

if TYPE_CHECKING:
    from scope_edge.records import ModelCard

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_UNKNOWN_ADDRESS = (404, 405, 501)
# A streamed answer tells what it used only when asked to.
_STREAM_OPTIONS = {"stream_options": {"include_usage": True}}


@dataclass(frozen=True, slots=True)
class Patience:
    """timeout: seconds one call may take, whole; of a streamed one, seconds of silence. attempts: calls for one question.

    per_minute: calls; None = no limit.
    """

    timeout: float = 120.0
    attempts: int = 5
    per_minute: float | None = None


class Meter(Protocol):
    """Told of every call, since every call may cost money."""

    def begin(self) -> bool:
        """A call is about to be made; False forbids it."""

    def unbilled(self) -> None:
        """The call that was begun last has failed in a way that costs nothing."""


class ChatClient:
    """One model behind its card's endpoint. Several threads may ask at once."""

    def __init__(self, card: ModelCard, patience: Patience, *, offline: bool = False) -> None:
        """Connects to nothing yet.

        Raises UsageError: the card has no endpoint, its key is not there, or `offline` forbids to call it;
        MissingExtraError without httpx.
        """
        self._connection = Connection(card, patience.timeout, offline=offline)
        self._model, self._patience = card.served_as or card.id, patience
        self._asking, self._streaming = Dialect({"temperature": 0}), Dialect(_STREAM_OPTIONS)
        self._answered = False
        self._pace = _Pace(patience.per_minute)

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every pause and connection; calls under way fail."""
        self._pace.over.set()
        self._connection.close()

    def ask(self, prompt: str, max_tokens: int, meter: Meter) -> Reply:
        """One answer, as many calls as it takes.

        Raises NoAnswerError (this question got none), RemoteError (no question will: the key is refused, there is no such
        model, no credit is left, it leads to another host).
        """
        for attempt in range(1, self._patience.attempts + 1):
            self._pace.wait()
            if not meter.begin():
                raise NoAnswerError("the limit on spending leaves no room for another call")
            try:
                reply = self._call(prompt, max_tokens)
                self._answered = True
                return reply
            except Failed as failed:
                if failed.unbilled:
                    meter.unbilled()
                if failed.for_all:
                    raise RemoteError(self._line(failed.why)) from failed
                if failed.final:
                    raise NoAnswerError(self._line(failed.why), hopeless=not self._answered) from failed
                if attempt == self._patience.attempts:
                    hopeless = failed.unreachable and not self._answered
                    raise NoAnswerError(self._line(_times(failed.why, attempt)), hopeless=hopeless) from failed
                self._pace.hold(_pause(attempt, failed.retry_after), everyone=failed.retry_after is not None)
        raise NoAnswerError(self._line("it was not asked"))

    def served(self) -> tuple[Served, ...] | None:
        """The models that the server says it serves; None = it does not say. One call, never billed, not tried again.

        Raises RemoteError: nobody is there, it refuses, it leads to another host, or what it sends is no list.
        """
        url = f"{self._connection.endpoint.url}/models"
        try:
            for _ in range(MAX_REDIRECTS + 1):
                status, headers, raw = self._connection.whole("GET", url)
                if status == 200:
                    return read_models(raw)
                if status in _UNKNOWN_ADDRESS:
                    return None
                if not 300 <= status < 400:
                    raise refusal(self._connection, self._model, status, headers.get("retry-after"), raw)
                url = self._connection.moved(url, str(headers.get("location", "")))
            raise Failed(CIRCLE)
        except (Failed, NotAnAnswerError) as failed:
            raise RemoteError(f"{self._connection.endpoint.url}: {failed}") from failed

    def stream(
        self,
        messages: Sequence[Mapping[str, Any]],
        fields: Mapping[str, Any],
        max_tokens: int | None,
        until: float = math.inf,
    ) -> AnswerStream:
        """One answer: one call, not tried again. It is made, and what comes of it is there, for whoever iterates.

        messages, fields: as in the wire format, passed on as they are. max_tokens: None = the server's own limit. until: by
        time.monotonic().
        """
        asked = {"model": self._model, **fields, "messages": list(messages), "stream": True}
        incoming = Incoming(self._connection, until - time.monotonic())
        size = len(json.dumps(asked["messages"], ensure_ascii=False).encode("utf-8", "replace"))
        call = partial(self._open, incoming, asked, max_tokens)
        return AnswerStream(call, incoming, size, max_tokens, self._connection.secret)

    def _open(self, incoming: Incoming, asked: dict[str, Any], max_tokens: int | None) -> None:
        """The streamed call, past redirects and options the server does not know. Raises Failed: nothing has come yet."""
        url = f"{self._connection.endpoint.url}/chat/completions"
        for _ in range(MAX_REDIRECTS + 2):
            incoming.open("POST", url, asked | self._streaming.options(max_tokens))
            if incoming.status == 200:
                return
            if 300 <= incoming.status < 400:
                url = self._connection.moved(url, incoming.header("location"))
                continue
            raw = incoming.beginning()
            if not (incoming.status == 400 and self._streaming.adapted(raw)):
                wait = incoming.header("retry-after") or None
                raise refusal(self._connection, self._model, incoming.status, wait, raw)
        raise Failed(CIRCLE, final=True, for_all=True, unbilled=True)

    def _call(self, prompt: str, max_tokens: int) -> Reply:
        """One call. Raises Failed."""
        body = {"model": self._model, "messages": [{"role": "user", "content": prompt}], "stream": False}
        url = f"{self._connection.endpoint.url}/chat/completions"
        for _ in range(MAX_REDIRECTS + 2):
            started = time.monotonic()
            status, headers, raw = self._connection.whole("POST", url, body | self._asking.options(max_tokens))
            if 300 <= status < 400:
                url = self._connection.moved(url, str(headers.get("location", "")))
            elif status == 200:
                return self._read(raw, prompt, max_tokens, time.monotonic() - started)
            elif not (status == 400 and self._asking.adapted(raw)):
                raise refusal(self._connection, self._model, status, headers.get("retry-after"), raw)
        raise Failed(CIRCLE, final=True, for_all=True, unbilled=True)

    def _read(self, raw: bytes, prompt: str, max_tokens: int, seconds: float) -> Reply:
        try:
            return read_reply(raw, len(prompt.encode("utf-8", "replace")), max_tokens, seconds, self._connection.secret)
        except NotAnAnswerError as error:
            raise Failed(str(error)) from error

    def _line(self, why: str) -> str:
        return f"{self._model} at {self._connection.endpoint.host}: {why}"


class _Pace:
    """When the next call may be made: a number a minute, and after the pauses that servers ask for."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._lock, self._next = threading.Lock(), 0.0
        self.over = threading.Event()

    def wait(self) -> None:
        """Return when a call may be made. Raises NoAnswerError once all is over."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._gap
        self._sleep(turn - time.monotonic())

    def hold(self, seconds: float, *, everyone: bool) -> None:
        """Pause; with `everyone`, no thread calls until then."""
        if everyone:
            with self._lock:
                self._next = max(self._next, time.monotonic() + seconds)
        else:
            self._sleep(seconds)

    def _sleep(self, seconds: float) -> None:
        if self.over.wait(max(seconds, 0.0)):
            raise NoAnswerError("stopped")


def _pause(attempt: int, retry_after: float | None) -> float:
    """Seconds before the next call: what the server asks for, and at least twice as long each time, less a random part."""
    longest = min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)
    jittered: float = longest * random.uniform(0.5, 1.0)
    # One that asks for no pause and refuses again would use up all attempts at once.
    return jittered if retry_after is None else max(retry_after, jittered)


def _times(why: str, attempts: int) -> str:
    return why if attempts == 1 else f"{why}, {attempts} times"
