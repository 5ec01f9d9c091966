"""What the user's own commands and the page ask: a proof, a decision or an answer under a caller's settings, the latest work.

These addresses are no interface for others and may change with any release.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from scope_edge.contact.client import NONCE, PROOF
from scope_edge.contact.standing import received, standing
from scope_edge.contact.token import proof, same
from scope_edge.contact.wire import answer_body, attempts_body, error_body
from scope_edge.errors import ScopeEdgeError
from scope_edge.records import Query
from scope_edge.server.asgi import Held, Json, read_json
from scope_edge.server.problems import Problem, bad

if TYPE_CHECKING:
    from scope_edge.api import Stream
    from scope_edge.config import Settings
    from scope_edge.server.desk import Desk
    from scope_edge.server.service import Service

_LONGEST_NONCE = 200
_CODE_SECONDS = 600.0
_LINES = {"content-type": "application/x-ndjson", "cache-control": "no-store"}


class Codes:
    """The code that opens the page in a browser: good once, for ten minutes. What is printed is worth nothing afterwards."""

    def __init__(self) -> None:
        self._codes: dict[str, float] = {}

    def make(self) -> str:
        """A new one."""
        code = secrets.token_urlsafe(18)
        self._codes[code] = time.monotonic() + _CODE_SECONDS
        return code

    def spend(self, given: str) -> bool:
        """Whether it is one; it is none any more."""
        found = next((code for code in self._codes if same(code, given)), None)
        return found is not None and self._codes.pop(found) > time.monotonic()


class OwnStream:
    """`scope-edge ask`, as lines of JSON, read in one thread."""

    def __init__(self, desk: Desk, settings: Settings, text: str, wishes: Mapping[str, Any]) -> None:
        self._desk, self._settings, self._text, self._wishes = desk, settings, text, wishes
        self._cancelled = threading.Event()
        self.stream: Stream | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            stream = self.stream = self._desk.stream_under(self._settings, self._text, self._wishes)
            yield {"decision": stream.decision.as_dict()}
            if self._cancelled.is_set():
                stream.cancel()
            said = False
            for text in stream:
                if not said:
                    said = True
                    yield _who(stream)
                yield {"text": text}
            if not said:
                yield _who(stream)
            if stream.answer is not None:
                yield {"answer": answer_body(stream.answer)}
        except ScopeEdgeError as error:
            if self.stream is not None:
                yield _who(self.stream)
            yield {"error": error_body(error)}

    def cancel(self) -> None:
        """End it, from whichever thread."""
        self._cancelled.set()
        if self.stream is not None:
            self.stream.cancel()

    def close(self) -> None:
        """Done with it."""
        if self.stream is not None:
            self.stream.close()


class Own:
    """Their endpoints."""

    def __init__(self, service: Service, token: str) -> None:
        self._service, self._token = service, token
        self.codes = Codes()

    async def hello(self, request: Request) -> Response:
        """GET /own/hello: proves that this is the user's server, on this port."""
        nonce, (_, port) = request.headers.get(NONCE, ""), request.scope["server"]
        if not 16 <= len(nonce) <= _LONGEST_NONCE:
            raise bad(f"{NONCE} is missing")
        return Json({}, headers={PROOF: proof(self._token, nonce, int(port))})

    async def token(self, request: Request) -> Response:
        """POST /own/token: the token, for the code that was printed."""
        code = (await read_json(request, 4096, dict)).get("code")
        if not isinstance(code, str) or not self.codes.spend(code):
            raise Problem(403, "this link has been used, or is too old; paste the token", "code")
        return Json({"token": self._token}, headers={"cache-control": "no-store"})

    async def recent(self, request: Request) -> Response:
        """GET /own/recent."""
        return Json({"recent": list(self._service.recent)})

    async def route(self, request: Request) -> Response:
        """POST /own/route: one line, the decision or the error."""
        settings, text, wishes = await self._asked(request)
        query = Query(text, system=wishes["system"])
        decide = self._service.desk.decide_under
        try:
            decision = await self._service.quickly(request, decide, settings, query, wishes["exclude"])
        except ScopeEdgeError as error:
            return Json({"error": error_body(error)})
        return Json({"decision": decision.as_dict()})

    async def ask(self, request: Request) -> Held:
        """POST /own/ask: lines as they come."""
        settings, text, wishes = await self._asked(request)
        source = OwnStream(self._service.desk, settings, text, wishes)

        @asynccontextmanager
        async def open_() -> AsyncIterator[Response]:
            try:
                async with self._service.reading(source) as bridge:
                    lines = (json.dumps(row).encode() + b"\n" async for row in bridge)
                    yield StreamingResponse(lines, headers=_LINES)
            finally:
                stream = source.stream
                if stream is not None and stream.answer is not None:
                    self._service.ran("scope-edge ask", stream.decision, stream.answer.run, stream.answer.id)

        return Held(open_)

    async def _asked(self, request: Request) -> tuple[Settings, str, dict[str, Any]]:
        """Raises Problem 409: this server would not decide as the caller would."""
        body = await read_json(request, self._service.bounds.body_bytes, dict)
        mine, given, text = self._service.desk.settings, body.get("settings"), body.get("text")
        if not isinstance(given, dict) or not isinstance(text, str):
            raise bad("settings and text are missing")
        settings = replace(mine, **received(given))
        stricter = (mine.offline and not settings.offline) or (
            mine.local_only and not (settings.local_only or settings.offline)
        )
        if stricter or not same(str(body.get("standing")), await self._standing()):
            raise Problem(409, "this server was started under other settings", "standing")
        wishes = {"system": body.get("system"), "exclude": tuple(body.get("exclude") or ())}
        if "model" in body:
            wishes["model"] = body["model"]
        return settings, text, wishes

    async def _standing(self) -> str:
        return await asyncio.get_running_loop().run_in_executor(
            None, standing, self._service.desk.settings, self._token
        )


def _who(stream: Stream) -> dict[str, Any]:
    return {"attempts": attempts_body(stream.attempts), "model": stream.model, "where": stream.where}
