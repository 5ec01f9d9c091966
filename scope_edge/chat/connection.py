"""One model's server over HTTP. Beside remote.py the only room that opens a connection, and the only one that knows httpx.

The key goes to the endpoint's own origin and nowhere else: not along a redirect, not into an error. Connections are kept, and
taken by one call at a time: so a call has its socket from the moment it is connected, and can be ended from another thread while
the other side has not said anything yet.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from scope_edge import __version__
from scope_edge.chat.endpoints import is_loopback, parse_endpoint
from scope_edge.chat.failed import Failed
from scope_edge.chat.incoming import Incoming
from scope_edge.chat.keys import find_key, telling
from scope_edge.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from scope_edge.records import ModelCard

MAX_REDIRECTS = 3
CIRCLE = "it redirects in a circle"
# A call that is still being connected is the only one that cannot be ended: it ends by itself, after so long.
_CONNECT_SECONDS = 20.0
# Connections that are kept though nobody uses them: so many, for so long.
_KEPT, _KEPT_SECONDS = 20, 5.0
_CONNECTED = ("connect_tcp.complete", "start_tls.complete")


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
        self.timeout = timeout
        # A proxy is for what is elsewhere; a call that stays here must not take the detour.
        self._trust_env = not (offline or local)
        self._lock = threading.Lock()
        self._lines: set[Line] = set()
        self._idle: list[Line] = []
        self._closed = False

    def close(self) -> None:
        """End every connection; calls under way fail."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = self._lines - set(idle)
        for line in busy:
            line.cut()
        self._drop(idle)

    def whole(self, method: str, url: str, body: dict[str, Any] | None = None) -> tuple[int, Mapping[str, str], bytes]:
        """(status, headers, body) of one call, read whole within `timeout` seconds. Raises Failed."""
        incoming = Incoming(self, self.timeout)
        try:
            incoming.open(method, url, body)
            return incoming.status, incoming.headers, b"".join(incoming.chunks())
        finally:
            incoming.close()

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
            raise Failed(f"no answer within {self.timeout:g} seconds") from error
        except (self._httpx.RequestError, self._httpx.StreamError, RuntimeError) as error:
            raise Failed(f"the connection broke ({_short(error)})") from error

    def take(self) -> Line:
        """A line for one call; `give_back` must follow. Raises Failed: all is over."""
        with self._lock:
            if self._closed:
                raise Failed("it is not asked any more", unbilled=True)
            line = self._idle.pop() if self._idle else None
        if line is None:
            line = Line(self._client())
            with self._lock:
                self._lines.add(line)
        return line

    def give_back(self, line: Line) -> None:
        """The call is over."""
        line.free(time.monotonic())
        with self._lock:
            self._idle.append(line)
            old = time.monotonic() - _KEPT_SECONDS
            gone = []
            while self._idle and (self._closed or len(self._idle) > _KEPT or self._idle[0].since < old):
                gone.append(self._idle.pop(0))
        self._drop(gone)

    def timeouts(self, seconds: float) -> Any:
        """For a call that has so many seconds: how long there may be silence."""
        connect = max(min(seconds, self.timeout, _CONNECT_SECONDS), 0.001)
        return self._httpx.Timeout(self.timeout, connect=connect, pool=None)

    def _client(self) -> Any:
        tls = _tls(self._httpx, self._trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        return self._httpx.Client(
            headers=self._headers(),
            trust_env=self._trust_env,
            verify=tls,
            follow_redirects=False,
            timeout=None,
            limits=self._httpx.Limits(max_keepalive_connections=1, keepalive_expiry=_KEPT_SECONDS),
        )

    def _drop(self, lines: list[Line]) -> None:
        with self._lock:
            self._lines.difference_update(lines)
        for line in lines:
            line.http.close()

    def _headers(self) -> dict[str, str]:
        headers = {"user-agent": f"scope-edge/{__version__}", "accept": "application/json, text/event-stream"}
        return headers | ({"authorization": f"Bearer {self._key}"} if self._key else {})


class Line:
    """One connection of a client's own, kept between calls, for one call at a time."""

    def __init__(self, http: Any) -> None:
        self.http, self.since = http, 0.0
        self._lock = threading.Lock()
        self._wire: socket.socket | None = None
        self._lent: socket.socket | None = None
        self._cut = False

    def noted(self, event: str, info: Mapping[str, Any]) -> None:
        """What httpx's transport says it is doing: this is how a socket is known before anything has come over it."""
        _, _, step = event.partition(".")
        if step in _CONNECTED:
            self._hold(info["return_value"].get_extra_info("socket"), None)
        elif step == "start_tls.started" and self._wire is not None:
            # The handshake takes the socket away from the one that is held; a second name for it stays good meanwhile.
            with contextlib.suppress(OSError):
                lent = self._wire.dup()
                self._hold(lent, lent)
        elif step == "start_tls.failed":
            self._hold(None, None)

    def cut(self) -> None:
        """End the call, from whichever thread. Closing would not wake a thread that waits in recv; TLS has nothing to say any more."""
        with self._lock:
            self._cut = True
            _shut(self._wire)

    def free(self, now: float) -> None:
        """The call is over; the connection may serve the next one, unless it was cut."""
        with self._lock:
            self._cut, self.since = False, now

    def _hold(self, wire: socket.socket | None, lent: socket.socket | None) -> None:
        with self._lock:
            if self._lent is not None:
                self._lent.close()
            self._wire, self._lent = wire, lent
            if self._cut:
                _shut(wire)


def _library() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError(
            f'calling an endpoint needs httpx ({error}); pip install "scope-edge[cloud]"'
        ) from error
    return httpx


@functools.lru_cache(maxsize=4)
def _tls(httpx: Any, trust_env: bool, *_: str | None) -> ssl.SSLContext:
    """Whom to trust: read once, since all the authorities there are take a while, and some memory. _: what else decides it."""
    context: ssl.SSLContext = httpx.create_ssl_context(verify=True, trust_env=trust_env)
    return context


def _shut(wire: socket.socket | None) -> None:
    if wire is not None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(wire, socket.SHUT_RDWR)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
