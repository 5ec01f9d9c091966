"""The connection to the user's own server: to a loopback address and no other, with no proxy and no redirect.

Beside remote.py and chat/transport.py the only room that opens a connection. It never leaves this machine, so that it is open in
offline mode, too; what the server then does is asked under the caller's own limits.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from scope_edge.chat.endpoints import is_loopback
from scope_edge.contact.runtime import Running, find
from scope_edge.contact.token import proof, read_token, same
from scope_edge.errors import AssetError, ScopeEdgeError

HELLO = "/own/hello"
NONCE, PROOF = "x-scope-edge-nonce", "x-scope-edge-proof"
_HELLO_SECONDS = 2.0
_MOST_BYTES = 64 * 1024 * 1024


class NotServed(Exception):
    """The server does not take this: do it here. Nothing has been done there."""


class Line:
    """One call and its answer. Use it as a context manager."""

    def __init__(self, running: Running, token: str) -> None:
        """Raises NotServed: the note leads to another machine."""
        if not is_loopback(running.host):
            raise NotServed
        self._token, self._running = token, running
        self._http = http.client.HTTPConnection(running.host, running.port, timeout=_HELLO_SECONDS)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up: what the server does for this call, it ends."""
        self._http.close()

    def hang_up(self) -> None:
        """The same from another thread than the one that reads, which then comes to its end."""
        if self._http.sock is not None:
            with contextlib.suppress(OSError):
                self._http.sock.shutdown(socket.SHUT_RDWR)

    def introduce(self) -> None:
        """Let the other side prove that it is the user's server. Raises NotServed: it does not."""
        nonce = secrets.token_urlsafe(24)
        try:
            self._http.request("GET", HELLO, headers={NONCE: nonce})
            answer = self._http.getresponse()
            answer.read(_MOST_BYTES)
            given = answer.headers.get(PROOF, "")
        except (OSError, http.client.HTTPException) as error:
            raise NotServed from error
        if not same(given, proof(self._token, nonce, self._running.port)):
            raise NotServed

    def post(self, path: str, body: Mapping[str, Any], seconds: float | None) -> http.client.HTTPResponse:
        """A call. seconds: of silence, at most; None = as long as it takes. Raises NotServed: it was not taken."""
        raw = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        try:
            if self._http.sock is None:
                # It would connect anew, to whoever listens there now.
                raise NotServed
            self._http.sock.settimeout(seconds)
            self._http.request("POST", path, raw, headers)
            answer = self._http.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise NotServed from error
        if answer.status != 200:
            raise NotServed
        return answer


@contextlib.contextmanager
def calling() -> Iterator[Line]:
    """A line to the user's own server that runs. Raises NotServed."""
    try:
        running, token = find(), read_token()
    except ScopeEdgeError as error:
        raise NotServed from error
    if running is None or token is None:
        raise NotServed
    with Line(running, token) as line:
        line.introduce()
        yield line


def lines(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The objects of an answer, one a line, as they come. Raises AssetError: it broke off."""
    try:
        while raw := answer.readline(_MOST_BYTES):
            yield json.loads(raw)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise AssetError(f"the server went away in the middle ({error or type(error).__name__}); ask again") from error
