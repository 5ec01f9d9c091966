"""Addresses of OpenAI-compatible servers: their form, and whether they are on this machine. Nothing here connects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

_PORTS = {"http": 80, "https": 443}
# The only thing that may follow an address: Azure's version of its interface.
_VERSION = re.compile(r"api-version=[\w.-]{1,40}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's base address without a final slash, and its parts. host: in small letters, no brackets.

    query: "" or what follows each path, such as "?api-version=2024-10-21".
    """

    url: str
    scheme: str
    host: str
    port: int
    query: str = ""

    def at(self, path: str) -> str:
        """Return the address of a method, such as "chat/completions"."""
        return f"{self.url.removesuffix(self.query)}/{path}{self.query}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Equal for two addresses of one server."""
        return self.scheme, self.host, self.port


def parse_endpoint(value: object, name: str = "endpoint") -> Endpoint:
    """Read an address such as https://api.openai.com/v1. Raises UsageError, which does not repeat a name and key in it."""
    wanted = f"{name} must be an address such as https://HOST/v1 or http://127.0.0.1:11434/v1"
    if not isinstance(value, str) or not value.isascii() or any(one.isspace() for one in value):
        raise UsageError(f"{wanted}, not {str(value)[:40]!r}")
    if "@" in value:
        raise UsageError(f"{wanted}, with no user name or key in it; name the key's variable in key_env")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError(f"{wanted}, not {value[:80]!r}") from error
    if parts.scheme not in _PORTS or not host or parts.fragment or not value.isprintable():
        raise UsageError(f"{wanted}, not {value.partition('?')[0][:80]!r}")
    base, mark, query = value.partition("?")
    if mark and not _VERSION.fullmatch(query):
        raise UsageError(f"{wanted}, with nothing after ? but api-version=...; name a key's variable in key_env")
    # People often copy the address of one method.
    base = base.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    port = _PORTS[parts.scheme] if port is None else port
    return Endpoint(f"{base}{mark}{query}", parts.scheme, host, port, f"{mark}{query}")


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine. Where that matters, connect to `addresses_of`, never to the name itself."""
    if _is_local_name(host):
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def addresses_of(host: str) -> tuple[str, ...]:
    """Return the addresses to connect to, best first: of a name of this machine its own, any other host as it is.

    localhost and the names below it mean this machine (RFC 6761), but a resolver or a hosts file may send them elsewhere.
    """
    return ("127.0.0.1", "::1") if _is_local_name(host) else (host,)


def _is_local_name(host: str) -> bool:
    return f".{host}".lower().rstrip(".").endswith(".localhost")


def is_private(host: str) -> bool:
    """Return whether a host is this machine or has the address of a private network; a name never counts."""
    address = _address(host)
    return is_loopback(host) or (address is not None and address.is_private)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    import ipaddress  # few cards have an address, and routing must start fast

    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
