"""The page at /: one file that loads nothing else, and that a browser lets do nothing but talk to this server."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from scope_edge.server.exchange import Exchange, encoded

_FILE = "page.html"


async def page(exchange: Exchange) -> None:
    """GET /."""
    raw = _page()
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-length": str(len(raw)),
        "content-security-policy": _policy(raw),
        "cache-control": "no-cache",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }
    await exchange.start(200, encoded(headers))
    await exchange.write(raw, more=False)


async def icon(exchange: Exchange) -> None:
    """GET /favicon.ico: there is none, and no token is worth asking for it."""
    await exchange.start(204, [])
    await exchange.write(b"", more=False)


@cache
def _page() -> bytes:
    return (files("scope_edge.server") / _FILE).read_bytes()


@cache
def _policy(raw: bytes) -> str:
    """Nothing but the script and the style that are in the page, known by their hashes."""
    script, style = (_hash(raw, tag) for tag in (b"script", b"style"))
    return (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    )


def _hash(raw: bytes, tag: bytes) -> str:
    (inner,) = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), raw, re.DOTALL)
    return "sha256-" + base64.b64encode(hashlib.sha256(inner).digest()).decode()
