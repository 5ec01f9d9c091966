"""The application: addresses, the guard in front of them, and errors in the form of OpenAI's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scope_edge.errors import ScopeEdgeError
from scope_edge.server.asgi import Json
from scope_edge.server.auth import Guard
from scope_edge.server.chat import Chat
from scope_edge.server.errors import ApiError, api_error_of
from scope_edge.server.models import ModelsEndpoints
from scope_edge.server.page import PageApi, icon, page

if TYPE_CHECKING:
    from scope_edge.server.auth import Access
    from scope_edge.server.state import Service


def make_app(service: Service, page_api: PageApi, access: Access) -> ASGIApp:
    """Return the application. It has no lifespan: the process that serves it starts and ends what it uses."""
    chat, plain = Chat(service), ModelsEndpoints(service)
    gets = {
        "/": page,
        "/favicon.ico": icon,
        "/health": plain.health,
        "/metrics": plain.metrics,
        "/v1/models": plain.models,
        "/v1/models/{name:path}": plain.model,
        "/identity": page_api.prove,
        "/page/recent": page_api.recent,
    }
    posts = {
        "/v1/chat/completions": chat.chat,
        "/v1/completions": chat.completion,
        "/v1/embeddings": plain.embeddings,
        "/v1/route": plain.route,
        "/page/token": page_api.redeem,
    }
    routes = [Route(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()]
    routes += [Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
    handlers = {ApiError: _problem, ScopeEdgeError: _problem, ClientDisconnect: _gone, HTTPException: _refused}
    inner = Starlette(routes=routes, exception_handlers={**handlers, Exception: _unexpected})
    return Counted(Guard(inner, access, service.connections), service, frozenset((*gets, *posts)))


class Counted:
    """Counts requests by address and status. Unknown addresses count as one, or a client could make the list endless."""

    def __init__(self, app: ASGIApp, service: Service, paths: frozenset[str]) -> None:
        self._app, self._requests, self._paths = app, service.metrics.requests, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in self._paths else "other"
                self._requests.labels(path=path, status=message["status"]).inc()
            await send(message)

        await self._app(scope, receive, counted)


async def _problem(request: Request, error: Exception) -> Response:
    problem = api_error_of(error)  # type: ignore[arg-type]  # starlette calls it for these types alone
    return Json(problem.body(), problem.status, problem.headers)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = {404: f"there is no {request.url.path} here", 405: f"{request.method} is not allowed here"}
    code = "not_found" if status == 404 else "refused"
    return Json(ApiError(status, words.get(status, "the request is refused"), code).body(), status)


async def _unexpected(request: Request, error: Exception) -> Response:
    message = f"unexpected {type(error).__name__}; the server's own output says more"
    return Json(ApiError(500, message, "internal").body(), 500)
