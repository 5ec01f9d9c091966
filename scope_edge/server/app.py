"""All of it as one application: addresses, the guard before them, and everything that goes wrong in OpenAI's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scope_edge.server.chat import Chat
from scope_edge.server.exchange import Asgi, Endpoint
from scope_edge.server.guard import Guard
from scope_edge.server.page import PageApi, icon, page
from scope_edge.server.plain import Plain
from scope_edge.server.problems import Problem

if TYPE_CHECKING:
    from scope_edge.server.guard import Access
    from scope_edge.server.service import Service


def make_app(service: Service, page_api: PageApi, access: Access) -> ASGIApp:
    """The application; it needs no lifespan, the process that serves it begins and ends what it uses."""
    chat, plain = Chat(service), Plain(service)
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
    posts: dict[str, Endpoint] = {
        "/v1/chat/completions": chat.chat,
        "/v1/completions": chat.completion,
        "/v1/embeddings": plain.embeddings,
        "/v1/route": plain.route,
        "/page/token": page_api.redeem,
    }
    routes = [Route(path, Asgi(endpoint), methods=["GET"]) for path, endpoint in gets.items()]
    routes += [Route(path, Asgi(endpoint), methods=["POST"]) for path, endpoint in posts.items()]
    inner = Starlette(routes=routes, exception_handlers={HTTPException: _refused, Exception: _unexpected})
    return Counted(Guard(inner, access), service, frozenset((*gets, *posts)))


class Counted:
    """Counts requests by address and status. Addresses that are none are one: who asks must not make the list longer."""

    def __init__(self, app: ASGIApp, service: Service, paths: frozenset[str]) -> None:
        self._app, self._service, self._paths = app, service, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in self._paths else "other"
                self._service.metrics.count("requests_total", path=path, status=str(message["status"]))
            await send(message)

        await self._app(scope, receive, noted if scope["type"] == "http" else send)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = {404: f"there is no {request.url.path} here", 405: f"{request.method} is not taken here"}
    problem = Problem(status, words.get(status, "it is refused"), "not_found" if status == 404 else "refused")
    return JSONResponse(problem.body(), status)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    problem = Problem(500, f"unexpected {type(error).__name__}; the server's own output says more", "internal")
    return JSONResponse(problem.body(), 500)
