"""One model's server over HTTP. Beside remote.py the only room that opens a connection, and the only one that knows httpx.

The key goes to the endpoint's own origin and nowhere else: not along a redirect, not into an error. Connections are kept and
shared by threads. A call that is read as it comes can be ended from another thread at any time.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from scope_edge import __version__
from scope_edge.chat.endpoints import is_loopback, parse_endpoint
from scope_edge.chat.failed import Failed
from scope_edge.chat.keys import find_key, telling
from scope_edge.chat.watch import WATCH, Alarm
from scope_edge.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from scope_edge.records import ModelCard

MAX_BYTES = 16 * 1024 * 1024
MAX_REDIRECTS = 3
CIRCLE = "it redirects in a circle"
_CONNECT_SECONDS = 20.0
# Of a refusal only the beginning is read: it is one line in an error.
_REFUSAL_BYTES = 64 * 1024


class Connection:
    """To the endpoint of a card. Several threads may use it at once."""

    def __init__(self, card: ModelCard, timeout: float, *, offline: bool = False) -> None:
        """Connects to nothing yet. timeout: seconds without a sign of life.

        Raises UsageError: the card has no endpoint, its key is not there, or `offline` forbids to call it;
        MissingExtraError without httpx.
        """
        if card.endpoint is None:
            raise UsageError(f"{card.id} has no endpoint; write one on its card")
        self.endpoint = parse_endpoint(card.endpoint)
        local = is_loopback(self.endpoint.host)
        if offline and not (local and card.where == "device"):
            raise UsageError(
                f"{card.id} is not asked: offline is set, and only a model of this machine whose card says"
                ' where = "device" may be called then'
            )
        self._httpx = _library()
        self.key_env, self._key = card.key_env, find_key(card.key_env, self.endpoint)
        self.secret = telling(self._key)
        """The key, to be kept out of what its server says; None: there is nothing to keep."""
        self._timeout = timeout
        # A proxy is for what is elsewhere; a call that stays here must not take the detour.
        self._http = self._httpx.Client(
            headers=self._headers(), trust_env=not (offline or local), follow_redirects=False, timeout=None
        )

    def close(self) -> None:
        """End every connection; calls under way fail."""
        self._http.close()

    def whole(self, method: str, url: str, body: dict[str, Any] | None = None) -> tuple[int, Any, bytes]:
        """(status, headers, body) of one call, read whole within `timeout` seconds. Raises Failed."""
        raw, deadline = bytearray(), time.monotonic() + self._timeout
        with (
            self.translated(),
            self._http.stream(method, url, json=body, timeout=self._timeouts(self._timeout)) as response,
        ):
            for chunk in response.iter_bytes():
                raw += chunk
                if len(raw) > MAX_BYTES:
                    raise Failed(f"its answer is longer than {MAX_BYTES // 2**20} MiB")
                if time.monotonic() > deadline:
                    raise Failed(f"no answer within {self._timeout:g} seconds")
            return response.status_code, response.headers, bytes(raw)

    def opened(self, url: str, body: dict[str, Any], seconds: float) -> Incoming:
        """A call whose answer is read as it comes. seconds: what there is, at most, until it must have ended.

        Raises Failed: nobody is there, or nothing came in time.
        """
        with self.translated():
            timeout = self._timeouts(min(self._timeout, seconds))
            request = self._http.build_request("POST", url, json=body, timeout=timeout)
            return Incoming(self, self._http.send(request, stream=True), seconds)

    def moved(self, url: str, location: str) -> str:
        """Where a redirect leads, if that is the same server. Raises Failed."""
        try:
            target = parse_endpoint(urljoin(url, location))
        except UsageError:
            target = None
        if not location or target is None or target.origin != self.endpoint.origin:
            where = target.host if target is not None else "an address that is none"
            raise Failed(
                f"it redirects to {where}, where nothing was sent; if that is right, write it as the card's endpoint",
                final=True,
                for_all=True,
                unbilled=True,
            )
        return urljoin(url, location)

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """httpx's errors in our words: the one place that knows them."""
        try:
            yield
        except (self._httpx.ConnectError, self._httpx.ConnectTimeout, self._httpx.ProxyError) as error:
            raise Failed(f"no connection ({_short(error)})", unbilled=True, unreachable=True) from error
        except self._httpx.TimeoutException as error:
            raise Failed(f"no answer within {self._timeout:g} seconds") from error
        except (self._httpx.RequestError, self._httpx.StreamError, RuntimeError) as error:
            raise Failed(f"the connection broke ({_short(error)})") from error

    def _headers(self) -> dict[str, str]:
        headers = {"user-agent": f"scope-edge/{__version__}", "accept": "application/json, text/event-stream"}
        return headers | ({"authorization": f"Bearer {self._key}"} if self._key else {})

    def _timeouts(self, seconds: float) -> Any:
        seconds = max(seconds, 0.001)
        return self._httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS), pool=None)


class Incoming:
    """An answer on its way. It is read by one thread and may be ended by any."""

    def __init__(self, connection: Connection, response: Any, seconds: float) -> None:
        self._connection, self._response = connection, response
        self._ended = threading.Event()
        self._watch: Alarm | None = None
        self.expire(seconds)

    @property
    def status(self) -> int:
        """Of the answer."""
        return int(self._response.status_code)

    def header(self, name: str) -> str:
        """A header, "" where there is none."""
        return str(self._response.headers.get(name, ""))

    @property
    def ended(self) -> bool:
        """Whether it was ended here, as opposed to there."""
        return self._ended.is_set()

    def chunks(self) -> Iterator[bytes]:
        """What comes, no more than `MAX_BYTES` of it. Raises Failed."""
        read = 0
        with self._connection.translated():
            for chunk in self._response.iter_bytes():
                read += len(chunk)
                if read > MAX_BYTES:
                    raise Failed(f"its answer is longer than {MAX_BYTES // 2**20} MiB")
                yield chunk

    def beginning(self) -> bytes:
        """The beginning of a body that is a refusal. Raises Failed."""
        raw = bytearray()
        for chunk in self.chunks():
            raw += chunk
            if len(raw) > _REFUSAL_BYTES:
                break
        return bytes(raw)

    def expire(self, seconds: float) -> None:
        """End it unless it is closed within so many seconds, whatever was said before."""
        if self._watch is not None:
            self._watch.cancel()
        if seconds < threading.TIMEOUT_MAX:
            self._watch = WATCH.after(seconds, self.end)

    def end(self) -> None:
        """End it, from whichever thread: who reads gets Failed."""
        self._ended.set()
        stream = self._response.extensions.get("network_stream")
        wire = stream.get_extra_info("socket") if stream is not None else None
        if wire is not None:
            # Closing would not wake a thread that waits in recv; and TLS has nothing to say here any more.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(wire, socket.SHUT_RDWR)

    def close(self) -> None:
        """Done with it; for the thread that reads."""
        if self._watch is not None:
            self._watch.cancel()
        with contextlib.suppress(Failed), self._connection.translated():
            self._response.close()


def _library() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError(
            f'calling an endpoint needs httpx ({error}); pip install "scope-edge[cloud]"'
        ) from error
    return httpx


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
