"""Access control in front of everything else.

Any program on this machine can connect, and any web page can make a browser do so. So every request except for the page and
/health must carry the token; its Host must be this server's, or an attacker's name that leads here would do (DNS rebinding); and
a request that a browser sends for another site is always refused. CORS is off.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from scope_edge.catalog.endpoint import is_loopback
from scope_edge.server.errors import ApiError
from scope_edge.server.token import same

if TYPE_CHECKING:
    from scope_edge.server.limits import Connections

# Of a request's target and headers together.
HEAD_BYTES = 64 * 1024
# Open without a token: they reveal nothing and do nothing, and the last two have secrets of their own.
_OPEN = ("/", "/health", "/favicon.ico", "/identity", "/page/token")
_NO_TOKEN = (
    "the token is missing or wrong; send Authorization: Bearer TOKEN (`scope-edge serve --show-token` prints it)"
)


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of access. token: None = not required. hosts: allowed names beside loopback and, if `public`, any IP address."""

    token: str | None
    hosts: tuple[str, ...] = ()
    public: bool = False


class Guard:
    """The application with access control in front."""

    def __init__(self, app: ASGIApp, access: Access, connections: Connections) -> None:
        self._app, self._access, self._connections = app, access, connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope, Headers(scope=scope))
        await (self._app if refusal is None else refusal.response())(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> ApiError | None:
        if self._connections.full:
            why = "too many connections are open; try again in 5 seconds"
            return ApiError(503, why, "crowded", headers={"retry-after": "5"})
        if _head_bytes(scope) > HEAD_BYTES:
            return ApiError(431, f"the request's head is longer than {HEAD_BYTES // 1024} KiB", "too_long")
        host = headers.get("host", "")
        if not self._is_here(host):
            return ApiError(421, "this server does not have that name; --host-name NAME allows one", "host")
        if _from_elsewhere(headers, host):
            return ApiError(403, "requests from other web pages are refused", "origin")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            return ApiError(415, "send JSON: Content-Type: application/json", "content_type")
        scheme, _, given = headers.get("authorization", "").partition(" ")
        token = self._access.token
        if token is None or scope["path"] in _OPEN or (scheme.lower() == "bearer" and same(given.strip(), token)):
            return None
        return ApiError(401, _NO_TOKEN, "invalid_api_key", headers={"www-authenticate": "Bearer"})

    def _is_here(self, header: str) -> bool:
        host = _host(header)
        return host is not None and (
            is_loopback(host) or host in self._access.hosts or (self._access.public and _is_address(host))
        )


def _head_bytes(scope: Scope) -> int:
    fields = sum(len(name) + len(value) + len(": \r\n") for name, value in scope["headers"])
    return fields + len(scope["raw_path"]) + len(scope["query_string"])


def _from_elsewhere(headers: Headers, host: str) -> bool:
    """Return whether a browser sends the request for another page than this server's own."""
    origin = headers.get("origin", "").lower()
    if origin and origin not in (f"http://{host}".lower(), f"https://{host}".lower()):
        return True
    return headers.get("sec-fetch-site") in ("cross-site", "same-site")


def _host(header: str) -> str | None:
    """Return the host of a Host header, without its port; None if the header is invalid."""
    if header.startswith("["):
        host, bracket, rest = header[1:].partition("]")
        return host.lower() if bracket and (not rest or (rest[0] == ":" and rest[1:].isdigit())) else None
    host, colon, port = header.partition(":")
    if (colon and not port.isdigit()) or not host:
        return None
    return host.lower().rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
