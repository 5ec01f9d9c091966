"""The application: its addresses, access control in front of them, and errors in the form of OpenAI's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scope_edge.errors import ScopeEdgeError
from scope_edge.server.auth import Guard
from scope_edge.server.chat import Chat
from scope_edge.server.errors import ApiError, api_error_of
from scope_edge.server.models import ModelsEndpoints
from scope_edge.server.page import PageApi, icon, page

if TYPE_CHECKING:
    from scope_edge.server.auth import Access
    from scope_edge.server.state import AppState


def make_app(state: AppState, page_api: PageApi, access: Access) -> ASGIApp:
    """Return the application. It has no lifespan: the process that serves it starts and ends what it uses."""
    chat, models = Chat(state), ModelsEndpoints(state)
    gets = {
        "/": page,
        "/favicon.ico": icon,
        "/health": models.health,
        "/metrics": models.metrics,
        "/v1/models": models.models,
        "/v1/models/{name:path}": models.model,
        "/identity": page_api.prove,
        "/page/recent": page_api.recent,
    }
    posts = {
        "/v1/chat/completions": chat.chat,
        "/v1/completions": chat.completion,
        "/v1/embeddings": models.embeddings,
        "/v1/route": models.route,
        "/page/token": page_api.redeem,
    }
    routes = [Route(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()]
    routes += [Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
    errors = (ApiError, ScopeEdgeError, ClientDisconnect, HTTPException, Exception)
    inner = Starlette(routes=routes, exception_handlers=dict.fromkeys(errors, _error_response))
    return _counted(Guard(inner, access, state.connections), state, frozenset((*gets, *posts)))


def _counted(app: ASGIApp, state: AppState, paths: frozenset[str]) -> ASGIApp:
    """Count requests by address and status. Unknown addresses count as one, or a client could make the list endless."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in paths else "other"
                state.metrics.requests.labels(path=path, status=message["status"]).inc()
            await send(message)

        await app(scope, receive, counted)

    return call


async def _error_response(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # for the metrics alone, as other servers count it: the client is gone
    if isinstance(error, (ApiError, ScopeEdgeError)):
        return api_error_of(error).response()
    if isinstance(error, HTTPException):
        status = error.status_code
        words = {404: f"there is no {request.url.path} here", 405: f"{request.method} is not allowed here"}
        code = {404: "not_found", 405: "method_not_allowed"}.get(status, "refused")
        return ApiError(status, words.get(status, "the request is refused"), code).response()
    message = f"unexpected {type(error).__name__}; the server's own output says more"
    return ApiError(500, message, "internal").response()
