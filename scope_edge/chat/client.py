"""Questions to a model behind an OpenAI-compatible endpoint. Beside remote.py the only room that opens a connection.

One question, one POST to ENDPOINT/chat/completions, not streamed; what is served there, one GET of ENDPOINT/models. The key
goes to the endpoint's own origin and nowhere else: not along a redirect, not into an error, and what a server sends back is
cleared of it. What may pass is tried again after a pause (429, 5xx, timeouts, broken connections, bodies that are cut off or
no JSON); an answer that cannot be read whole is no answer, never a wrong one.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urljoin

from scope_edge import __version__
from scope_edge.chat.endpoints import is_loopback, parse_endpoint
from scope_edge.chat.keys import find_key
from scope_edge.chat.wire import NotAnAnswerError, Reply, Served, read_models, read_reply, retry_after, said
from scope_edge.errors import MissingExtraError, NoAnswerError, RemoteError, UsageError

if TYPE_CHECKING:
    from scope_edge.records import ModelCard

MAX_BYTES = 16 * 1024 * 1024
_CONNECT_SECONDS = 20.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
# A server that asks for more patience than this is asked again another day.
_LONGEST_RETRY_AFTER = 120.0
_MAX_REDIRECTS = 3
_AGAIN = (408, 409, 425, 429)
_UNKNOWN_ADDRESS = (404, 405, 501)
_CIRCLE = "it redirects in a circle"


@dataclass(frozen=True, slots=True)
class Patience:
    """timeout: seconds one call may take, whole. attempts: calls for one question. per_minute: calls; None = no limit."""

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
        if card.endpoint is None:
            raise UsageError(f"{card.id} has no endpoint; write one on its card")
        self._endpoint = parse_endpoint(card.endpoint)
        local = is_loopback(self._endpoint.host)
        if offline and not (local and card.where == "device"):
            raise UsageError(
                f"{card.id} is not asked: offline is set, and only a model of this machine whose card says"
                ' where = "device" may be called then'
            )
        self._httpx = _library()
        self._key_env, self._key = card.key_env, find_key(card.key_env, self._endpoint)
        self._model, self._patience = card.served_as or card.id, patience
        self._options: dict[str, Any] = {"temperature": 0}
        self._tokens_name = "max_tokens"
        self._answered = False
        self._pace = _Pace(patience.per_minute)
        # A proxy is for what is elsewhere; a call that stays here must not take the detour.
        self._http = self._httpx.Client(
            headers=self._headers(), trust_env=not (offline or local), follow_redirects=False, timeout=self._timeout()
        )

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every pause and connection; calls under way fail."""
        self._pace.over.set()
        self._http.close()

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
            except _Failed as failed:
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
        url = f"{self._endpoint.url}/models"
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                status, headers, raw = self._send("GET", url)
                if status == 200:
                    return read_models(raw)
                if status in _UNKNOWN_ADDRESS:
                    return None
                if not 300 <= status < 400:
                    raise self._refusal(status, headers, raw)
                url = self._moved(url, str(headers.get("location", "")))
            raise _Failed(_CIRCLE)
        except (_Failed, NotAnAnswerError) as failed:
            raise RemoteError(f"{self._endpoint.url}: {failed}") from failed

    def _call(self, prompt: str, max_tokens: int) -> Reply:
        """One call. Raises _Failed."""
        body = {"model": self._model, "messages": [{"role": "user", "content": prompt}], "stream": False}
        url = f"{self._endpoint.url}/chat/completions"
        for _ in range(_MAX_REDIRECTS + 2):
            started = time.monotonic()
            named = {self._tokens_name: max_tokens}
            status, headers, raw = self._send("POST", url, body | named | self._options)
            if 300 <= status < 400:
                url = self._moved(url, str(headers.get("location", "")))
            elif status == 200:
                return self._read(raw, prompt, max_tokens, time.monotonic() - started)
            elif not (status == 400 and self._adapted(raw)):
                raise self._refusal(status, headers, raw)
        raise _Failed(_CIRCLE, final=True, for_all=True, unbilled=True)

    def _read(self, raw: bytes, prompt: str, max_tokens: int, seconds: float) -> Reply:
        try:
            return read_reply(raw, prompt, max_tokens, seconds, self._key)
        except NotAnAnswerError as error:
            raise _Failed(str(error)) from error

    def _send(self, method: str, url: str, body: dict[str, Any] | None = None) -> tuple[int, Any, bytes]:
        """(status, headers, body), read whole. Raises _Failed."""
        raw, deadline = bytearray(), time.monotonic() + self._patience.timeout
        try:
            with self._http.stream(method, url, json=body) as response:
                for chunk in response.iter_bytes():
                    raw += chunk
                    if len(raw) > MAX_BYTES:
                        raise _Failed(f"its answer is longer than {MAX_BYTES // 2**20} MiB")
                    if time.monotonic() > deadline:
                        raise _Failed(f"no answer within {self._patience.timeout:g} seconds")
                return response.status_code, response.headers, bytes(raw)
        except (self._httpx.ConnectError, self._httpx.ConnectTimeout, self._httpx.ProxyError) as error:
            raise _Failed(f"no connection ({_short(error)})", unbilled=True, unreachable=True) from error
        except self._httpx.TimeoutException as error:
            raise _Failed(f"no answer within {self._patience.timeout:g} seconds") from error
        except (self._httpx.RequestError, self._httpx.StreamError, RuntimeError) as error:
            raise _Failed(f"the connection broke ({_short(error)})") from error

    def _moved(self, url: str, location: str) -> str:
        """Where a redirect leads, if that is the same server. Raises _Failed."""
        try:
            target = parse_endpoint(urljoin(url, location))
        except UsageError:
            target = None
        if not location or target is None or target.origin != self._endpoint.origin:
            where = target.host if target is not None else "an address that is none"
            raise _Failed(
                f"it redirects to {where}, where nothing was sent; if that is right, write it as the card's endpoint",
                final=True,
                for_all=True,
                unbilled=True,
            )
        return urljoin(url, location)

    def _adapted(self, raw: bytes) -> bool:
        """Whether a 400 complains of an option that can be left out or has another name there; then it will be."""
        said = raw[:4096].decode("utf-8", "replace")
        if self._tokens_name == "max_tokens" and "max_completion_tokens" in said:
            self._tokens_name = "max_completion_tokens"
            return True
        return "temperature" in said and self._options.pop("temperature", None) is not None

    def _refusal(self, status: int, headers: Any, raw: bytes) -> _Failed:
        words = said(raw, self._key)
        if status in (401, 403):
            key = f"check the key in {self._key_env}" if self._key_env else "name its key's variable in key_env"
            return _Failed(f"it refuses (HTTP {status}); {key}", final=True, for_all=True, unbilled=True)
        if status == 402 or (status == 429 and "insufficient_quota" in words):
            return _Failed(
                f"no credit is left (HTTP {status}); top it up, then go on", final=True, for_all=True, unbilled=True
            )
        if status == 404:
            why = f"no model {self._model!r} at {self._endpoint.url} (HTTP 404); check endpoint and served_as"
            return _Failed(why, final=True, for_all=True, unbilled=True)
        if status in _AGAIN or status >= 500:
            wait = retry_after(headers.get("retry-after"))
            patient = wait is None or wait <= _LONGEST_RETRY_AFTER
            why = f"HTTP {status}" if patient else f"HTTP {status}, to be asked again in {wait:.0f} seconds"
            return _Failed(why, final=not patient, unbilled=True, retry_after=wait)
        return _Failed(
            f"it refuses the question (HTTP {status}{': ' + words if words else ''})", final=True, unbilled=True
        )

    def _line(self, why: str) -> str:
        return f"{self._model} at {self._endpoint.host}: {why}"

    def _headers(self) -> dict[str, str]:
        headers = {"user-agent": f"scope-edge/{__version__}", "accept": "application/json"}
        return headers | ({"authorization": f"Bearer {self._key}"} if self._key else {})

    def _timeout(self) -> Any:
        whole = self._patience.timeout
        return self._httpx.Timeout(whole, connect=min(whole, _CONNECT_SECONDS), pool=None)


class _Failed(Exception):
    """A call without an answer. final: another would fail too; for_all: for every question; unbilled: it cost nothing.

    unreachable: nobody was there. retry_after: seconds the server asks for.
    """

    def __init__(
        self,
        why: str,
        *,
        final: bool = False,
        for_all: bool = False,
        unbilled: bool = False,
        unreachable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(why)
        self.why, self.final, self.for_all, self.unbilled = why, final, for_all, unbilled
        self.unreachable, self.retry_after = unreachable, retry_after


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


def _library() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError(
            f'calling an endpoint needs httpx ({error}); pip install "scope-edge[cloud]"'
        ) from error
    return httpx


def _pause(attempt: int, retry_after: float | None) -> float:
    """Seconds before the next call: what the server asks for, and at least twice as long each time, less a random part."""
    longest = min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)
    jittered: float = longest * random.uniform(0.5, 1.0)
    # One that asks for no pause and refuses again would use up all attempts at once.
    return jittered if retry_after is None else max(retry_after, jittered)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _times(why: str, attempts: int) -> str:
    return why if attempts == 1 else f"{why}, {attempts} times"
