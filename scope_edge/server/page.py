"""The page at /: one file that loads nothing else, and that a browser lets do nothing but talk to this server."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

_FILE = "page.html"


async def page(request: Request) -> Response:
    """GET /."""
    return Response(_page(), headers=_headers(_page()), media_type="text/html")


async def icon(request: Request) -> Response:
    """GET /favicon.ico: there is none, and no token is worth asking for it."""
    return Response(status_code=204)


@cache
def _page() -> bytes:
    return (files("scope_edge.server") / _FILE).read_bytes()


@cache
def _headers(raw: bytes) -> dict[str, str]:
    """Allow nothing but the script and the style in the page, known by their hashes."""
    script, style = (_hash(raw, tag) for tag in (b"script", b"style"))
    policy = (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "cache-control": "no-cache",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }


def _hash(raw: bytes, tag: bytes) -> str:
    (inner,) = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), raw, re.DOTALL)
    return "sha256-" + base64.b64encode(hashlib.sha256(inner).digest()).decode()
