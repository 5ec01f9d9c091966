"""/v1/chat/completions and /v1/completions."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from scope_edge.errors import ScopeEdgeError
from scope_edge.execution.request import Asked
from scope_edge.providers.openai.stream import Piece
from scope_edge.server.asgi import read_json, unless_disconnected
from scope_edge.server.errors import ApiError, Json, api_error_of, closing
from scope_edge.server.responses import ResponseFormatter, decision_headers, error_details, event
from scope_edge.server.schemas import Conversation, read_chat, read_completion
from scope_edge.types import Run

if TYPE_CHECKING:
    from scope_edge.server.backend import Target
    from scope_edge.server.state import AppState
    from scope_edge.types import Answer

SHOW = "x-scope-edge-decision"


class Chat:
    """The endpoints of both APIs."""

    def __init__(self, state: AppState) -> None:
        self._state = state

    async def chat(self, request: Request) -> _Reply:
        """POST /v1/chat/completions."""
        return await self._reply(request, read_chat, chat=True)

    async def completion(self, request: Request) -> _Reply:
        """POST /v1/completions."""
        return await self._reply(request, read_completion, chat=False)

    async def _reply(self, request: Request, read: Callable[..., Conversation], *, chat: bool) -> _Reply:
        show = request.headers.get(SHOW, "").lower() in ("1", "true", "yes")
        conversation = await read_json(request, self._state.options.body_bytes, lambda body: read(body, show=show))
        target = self._state.backend.names.find(conversation.model)
        return _Reply(self._state, target, conversation, ResponseFormatter(chat, conversation.options.show))


class _Reply:
    """One answer as a response. A thread iterates its pieces, and the event loop sends them."""

    def __init__(
        self, state: AppState, target: Target, conversation: Conversation, formatter: ResponseFormatter
    ) -> None:
        self._state, self._target, self._conversation, self._formatter = state, target, conversation, formatter
        self._cancelled = threading.Event()
        self._asked: Asked | None = None
        self._failed: Run | None = None

    def __iter__(self) -> Iterator[Piece]:
        """Decide, then yield the answer's pieces."""
        asked = self._asked = self._state.backend.ask(self._target, self._conversation)
        self._state.metrics.decision_seconds.observe(asked.deciding)
        self._state.metrics.sticky.inc(asked.sticky)
        if self._cancelled.is_set():
            asked.execution.cancel()
        yield from asked.execution

    def cancel(self) -> None:
        """End the answer, from any thread."""
        self._cancelled.set()
        if self._asked is not None:
            self._asked.execution.cancel()

    def close(self) -> None:
        """Close the answer, in the thread that read it."""
        if self._asked is not None:
            self._asked.execution.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for a turn and send the response; record the run at the end. Raises ApiError (no turn), ClientDisconnect."""
        try:
            async with AsyncExitStack() as stack:
                response = await unless_disconnected(receive, self._respond(stack))
                await response(scope, receive, send)
        finally:
            self._record()

    async def _respond(self, stack: AsyncExitStack) -> Response:
        pieces = aiter(await stack.enter_async_context(self._state.reading(self)))
        try:
            return await (self._stream(pieces) if self._conversation.stream else self._whole(pieces))
        except (ScopeEdgeError, ApiError) as error:
            return self._problem(error).response()

    async def _whole(self, pieces: AsyncIterator[Piece]) -> Response:
        came = [piece async for piece in pieces]
        asked, answer = self._answer()
        self._formatter.model = answer.run.model or ""
        headers = _headers(asked) | {"x-scope-edge-id": answer.id or "none"}
        return Json(self._formatter.whole(answer, came), headers=headers)

    async def _stream(self, pieces: AsyncIterator[Piece]) -> Response:
        """Wait for the first piece: an error before it has a status of its own."""
        first = await anext(pieces, None)
        asked = self._asked or self._answer()[0]
        if first is None:
            self._answer()
        self._formatter.model = asked.execution.model or ""
        headers = {"cache-control": "no-store", **_headers(asked)}
        return StreamingResponse(self._events(asked, first, pieces), headers=headers, media_type="text/event-stream")

    async def _events(self, asked: Asked, first: Piece | None, pieces: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
        begin = self._formatter.first(asked.decision, asked.execution.attempts)
        yield begin if first is None else begin + self._formatter.piece(first)
        try:
            async for piece in pieces:
                yield self._formatter.piece(piece)
            _, answer = self._answer()
        except (ScopeEdgeError, ApiError) as error:
            yield event(self._problem(error).body())
            return
        yield self._formatter.last(answer, usage=self._conversation.usage)

    def _answer(self) -> tuple[Asked, Answer]:
        """Raises ApiError: the answer was cut, since the server is shutting down."""
        answer = None if self._asked is None else self._asked.execution.answer
        if self._asked is None or answer is None or answer.run.ending == "cancelled":
            raise closing()
        return self._asked, answer

    def _problem(self, error: ScopeEdgeError | ApiError) -> ApiError:
        run = getattr(error, "run", None)
        self._failed = run if isinstance(run, Run) else None
        problem = api_error_of(error)
        if self._conversation.options.show and isinstance(error, ScopeEdgeError):
            decision = None if self._asked is None else self._asked.decision
            problem.error["scope_edge"] = error_details(error, decision)
        return problem

    def _record(self) -> None:
        if self._asked is None:
            return
        execution, name = self._asked.execution, self._target.name
        answer = execution.answer
        run = self._failed or (None if answer is None else answer.run)
        if run is None:
            return
        listed_as = self._conversation.options.listed_as or name
        self._state.ran(listed_as, execution.decision, run, None if answer is None else answer.id)
        if run.model is not None and run.ending in ("complete", "cut", "loop") and self._target.pinned is None:
            self._state.backend.conversations.answered(name, self._conversation.messages, run.model)


def _headers(asked: Asked) -> dict[str, str]:
    headers = decision_headers(asked.decision, asked.execution.model, sticky=asked.sticky)
    return headers | {"x-scope-edge-attempts": str(len(asked.execution.attempts))}
