"""Makes the HTTP client of one server: its proxy and its trusted authorities come from the environment, which may be wrong."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass_environment  # type: ignore[attr-defined]

import httpx

from scope_edge.errors import ProviderError

if TYPE_CHECKING:
    from scope_edge.catalog.endpoint import Endpoint

_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=5.0)
# Python's ssl reads these; the first two only where the environment is trusted.
_AUTHORITIES, _KEYLOG = ("SSL_CERT_FILE", "SSL_CERT_DIR"), "SSLKEYLOGFILE"


def open_http(
    endpoint: Endpoint, headers: Mapping[str, str], timeout: httpx.Timeout, *, trust_env: bool
) -> httpx.AsyncClient:
    """Return a client for calls to one server. trust_env: whether the environment names proxies and authorities.

    Raises ProviderError, naming the variable that cannot be used.
    """
    proxy, variable = _proxy(endpoint) if trust_env else (None, "")
    try:
        return httpx.AsyncClient(
            headers=dict(headers),
            # Read above: httpx does not accept all that may stand in NO_PROXY, and it is one server only.
            trust_env=False,
            proxy=proxy and httpx.Proxy(proxy),
            # A call over http has no certificate to check.
            verify=_trusted(trust_env) if endpoint.scheme == "https" else False,
            timeout=timeout,
            limits=_LIMITS,
        )
    except ImportError as error:
        why = f'{variable} names a SOCKS proxy, which needs socksio; pip install "scope-edge[cloud]"'
        raise _unusable(why) from error
    except (ValueError, httpx.InvalidURL) as error:
        why = f"{variable} is not the address of a proxy, such as http://HOST:3128 or socks5://HOST:1080"
        # The address may hold a password, and so may the error.
        raise _unusable(f"{why}; correct or unset it") from error


def _proxy(endpoint: Endpoint) -> tuple[str | None, str]:
    """Return the proxy for a server and the variable that names it; None = no proxy."""
    found = getproxies()
    kind = endpoint.scheme if found.get(endpoint.scheme) else "all"
    value = found.get(kind)
    if not value or _without_proxy(endpoint, found.get("no", "")):
        return None, ""
    named = (name for name, text in os.environ.items() if name.lower() == f"{kind}_proxy" and text == value)
    return value if "://" in value else f"http://{value}", next(named, "the system's proxy setting")


def _without_proxy(endpoint: Endpoint, listed: str) -> bool:
    """Return whether NO_PROXY lists a server: by name, domain or address, with or without port and brackets, or in a network."""
    names = [name.strip().lower() for name in listed.split(",")]
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    spellings = (endpoint.host, host, f"{host}:{endpoint.port}")
    if "*" in names or any(proxy_bypass_environment(one, {"no": listed}) for one in spellings):
        return True
    networks = [name for name in names if "/" in name]
    with contextlib.suppress(ValueError):  # the host is a name
        address = ipaddress.ip_address(endpoint.host)
        return any(address in network for network in map(_network, networks) if network is not None)
    return False


def _network(name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(name, strict=False)
    except ValueError:
        return None


def _trusted(trust_env: bool) -> ssl.SSLContext:
    """Return the trusted authorities. Raises ProviderError: a variable leads to a file or folder that is of no use."""
    read = {name: os.environ.get(name) for name in (*(_AUTHORITIES if trust_env else ()), _KEYLOG)}
    try:
        folders = read.get("SSL_CERT_DIR")
        # OpenSSL takes a missing folder for one without authorities, and would then trust no server.
        if folders and not read["SSL_CERT_FILE"] and not any(Path(one).is_dir() for one in folders.split(os.pathsep)):
            raise ValueError("no such folder")
        return _tls(trust_env, *read.values())
    except (OSError, ValueError) as error:
        # Only the error of the last of them has a file's name.
        last = _KEYLOG if isinstance(error, OSError) and error.filename else None
        name = last or next((name for name in _AUTHORITIES if read.get(name)), "TLS")
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _unusable(f"{name} cannot be used ({reason[:120]}); correct or unset it") from error


@functools.lru_cache(maxsize=4)
def _tls(trust_env: bool, *_environment: str | None) -> ssl.SSLContext:
    """Read the trusted authorities, once: they take time and memory."""
    return httpx.create_ssl_context(verify=True, trust_env=trust_env)


def _unusable(why: str) -> ProviderError:
    return ProviderError(f"no call can be made: {why}", every_question=True, unbilled=True)
