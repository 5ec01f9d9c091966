"""The page at /, one file that loads nothing else, and the addresses that it needs beside /v1."""

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

from scope_edge.server.asgi import Json, read_json
from scope_edge.server.errors import ApiError, bad
from scope_edge.server.token import NONCE, PROOF, proof, same

if TYPE_CHECKING:
    from scope_edge.server.state import Service

_FILE = "page.html"
_SHORTEST_NONCE, _LONGEST_NONCE = 16, 200
_CODE_SECONDS = 600.0


class Codes:
    """Codes that open the page in a browser, each once and within ten minutes."""

    def __init__(self) -> None:
        self._codes: dict[str, float] = {}

    def make(self) -> str:
        """Make a new code."""
        code = secrets.token_urlsafe(18)
        self._codes[code] = time.monotonic() + _CODE_SECONDS
        return code

    def redeem(self, given: str) -> bool:
        """Redeem a code; it cannot be used again. False = it is unknown, used or too old."""
        found = next((code for code in self._codes if same(code, given)), None)
        return found is not None and self._codes.pop(found) > time.monotonic()


class PageApi:
    """What gives the page its token and its list, and proves to a client that this server knows the token."""

    def __init__(self, service: Service, token: str) -> None:
        self._service, self._token = service, token
        self.codes = Codes()

    async def prove(self, request: Request) -> Response:
        """GET /identity: an HMAC of the client's nonce and of this server's port, with the token as its key."""
        nonce, (_, port) = request.headers.get(NONCE, ""), request.scope["server"]
        if not _SHORTEST_NONCE <= len(nonce) <= _LONGEST_NONCE:
            raise bad(f"the header {NONCE} is missing, or not {_SHORTEST_NONCE} to {_LONGEST_NONCE} characters long")
        return Json({}, headers={PROOF: proof(self._token, nonce, int(port))})

    async def redeem(self, request: Request) -> Response:
        """POST /page/token: exchange the code of the printed link for the token."""
        code = await read_json(request, 4096, lambda body: body.get("code"))
        if not isinstance(code, str) or not self.codes.redeem(code):
            raise ApiError(403, "this link has been used, or is too old; paste the token", "code")
        return Json({"token": self._token}, headers={"cache-control": "no-store"})

    async def recent(self, request: Request) -> Response:
        """GET /page/recent: the latest answers, without a word of their text."""
        return Json({"recent": list(self._service.recent)})


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
