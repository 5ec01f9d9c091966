"""Who may ask at all. It stands before everything else.

Any program on this machine can connect, and any web page can make a browser do so. So every request but for the page itself and
/health has the token; its Host must be this server's, or a name that an attacker made lead here would do (DNS rebinding); and a
request that a browser sends for another site is refused, whatever it carries. There is no CORS.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from scope_edge.chat.endpoints import is_loopback
from scope_edge.contact.token import same
from scope_edge.server.exchange import Exchange
from scope_edge.server.problems import Problem

# Of a request: its target and its headers together.
HEAD_BYTES = 64 * 1024
# Who may be asked without a token: what shows nothing and does nothing, and the two that have secrets of their own.
_OPEN = ("/", "/health", "/favicon.ico", "/identity", "/page/token")


@dataclass(frozen=True, slots=True)
class Access:
    """token: None = none is demanded. hosts: names it may be called by, beside loopback and, if `public`, any IP address."""

    token: str | None
    hosts: tuple[str, ...] = ()
    public: bool = False


class Guard:
    """Around the application."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            exchange = Exchange(scope, receive, send)
            problem = self._refusal(exchange)
            if problem is not None:
                await exchange.problem(problem)
                return
        await self._app(scope, receive, send)

    def _refusal(self, exchange: Exchange) -> Problem | None:
        if _head_bytes(exchange) > HEAD_BYTES:
            return Problem(431, f"the request's head is longer than {HEAD_BYTES // 1024} KiB", "too_long")
        host = exchange.header("host")
        if not self._is_here(host):
            return Problem(421, "this server is not called by that name; --host-name NAME allows one", "host")
        if _from_elsewhere(exchange, host):
            return Problem(403, "requests from other web pages are not answered", "origin")
        method, path = exchange.scope["method"], exchange.scope["path"]
        kind = exchange.header("content-type").partition(";")[0].strip().lower()
        if method == "POST" and kind != "application/json":
            return Problem(415, "send JSON: Content-Type: application/json", "content_type")
        if path in _OPEN or self._access.token is None or self._has_token(exchange):
            return None
        return Problem(
            401,
            "the token is missing or wrong; send Authorization: Bearer TOKEN (`scope-edge serve --show-token` prints it)",
            "invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )

    def _is_here(self, header: str) -> bool:
        host = _host(header)
        if host is None:
            return False
        return is_loopback(host) or host in self._access.hosts or (self._access.public and _is_address(host))

    def _has_token(self, exchange: Exchange) -> bool:
        scheme, _, given = exchange.header("authorization").partition(" ")
        token = self._access.token
        return token is not None and scheme.lower() == "bearer" and same(given.strip(), token)


def allowed_hosts(names: Iterable[str]) -> tuple[str, ...]:
    """Names as they come in a header."""
    return tuple(name.strip().lower().rstrip(".") for name in names)


def _head_bytes(exchange: Exchange) -> int:
    scope = exchange.scope
    said = sum(len(name) + len(value) + len(": \r\n") for name, value in scope["headers"])
    return said + len(scope["raw_path"]) + len(scope["query_string"])


def _from_elsewhere(exchange: Exchange, host: str) -> bool:
    """Whether a browser sends it for another page than this server's own."""
    origin = exchange.header("origin")
    if origin and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
        return True
    return exchange.header("sec-fetch-site") in ("cross-site", "same-site")


def _host(header: str) -> str | None:
    """The host of a Host header, without its port; None where it makes no sense."""
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
