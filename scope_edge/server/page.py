"""The page at /, one file that loads no other, and the addresses that it needs beside /v1."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from scope_edge.server.asgi import read_json
from scope_edge.server.errors import ApiError, Json, bad
from scope_edge.server.token import NONCE, PROOF, proof, same

if TYPE_CHECKING:
    from scope_edge.server.state import AppState

_FILE = "page.html"
_SHORTEST_NONCE, _LONGEST_NONCE = 16, 200
_CODE_SECONDS = 600.0


class PageApi:
    """Gives the page its token and its list, and proves to a client that this server knows the token."""

    def __init__(self, state: AppState, token: str) -> None:
        self._state, self._token = state, token
        self._codes: dict[str, float] = {}

    def make_code(self) -> str:
        """Make a code that opens the page in a browser, once and within ten minutes."""
        code = secrets.token_urlsafe(18)
        self._codes[code] = time.monotonic() + _CODE_SECONDS
        return code

    async def prove(self, request: Request) -> Response:
        """GET /identity: an HMAC of the client's nonce and of this server's port, with the token as its key."""
        nonce, (_, port) = request.headers.get(NONCE, ""), request.scope["server"]
        if not _SHORTEST_NONCE <= len(nonce) <= _LONGEST_NONCE:
            raise bad(f"the header {NONCE} is missing, or not {_SHORTEST_NONCE} to {_LONGEST_NONCE} characters long")
        return Json({}, headers={PROOF: proof(self._token, nonce, int(port))})

    async def redeem(self, request: Request) -> Response:
        """POST /page/token: exchange the code of the printed link for the token."""
        given = await read_json(request, 4096, lambda body: body.get("code"))
        found = next((code for code in self._codes if isinstance(given, str) and same(code, given)), "")
        if self._codes.pop(found, 0.0) <= time.monotonic():
            raise ApiError(403, "this link has been used, or is too old; paste the token", "code")
        return Json({"token": self._token}, headers={"cache-control": "no-store"})

    async def recent(self, request: Request) -> Response:
        """GET /page/recent: the latest answers, without their text."""
        return Json({"recent": list(self._state.recent)})


async def page(request: Request) -> Response:
    """GET /."""
    return Response(_page(), headers=_headers(_page()), media_type="text/html")


async def icon(request: Request) -> Response:
    """GET /favicon.ico: empty, and without a token."""
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
