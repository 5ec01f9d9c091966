"""Endpoints that run no model: models, decisions, embeddings, health, metrics."""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from scope_edge._version import __version__
from scope_edge.encoding.token_count import estimate_prompt_tokens
from scope_edge.server.asgi import read_json
from scope_edge.server.backend import ENCODER
from scope_edge.server.errors import ApiError, Json, bad, closing
from scope_edge.server.responses import decision_headers
from scope_edge.server.schemas import AUTO, read_inputs, read_query
from scope_edge.types import Query

if TYPE_CHECKING:
    from scope_edge.server.state import AppState


class ModelsEndpoints:
    """The endpoints of models, decisions, embeddings, health and metrics."""

    def __init__(self, state: AppState) -> None:
        self._state, self._backend = state, state.backend

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        names = self._backend.names
        owners = dict.fromkeys(names.virtual, "scope-edge") | {card.id: card.where for card in names.real}
        data = [_model(name, owner) for name, owner in (owners | {ENCODER: "scope-edge"}).items()]
        return Json({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME. Raises ApiError: there is no such model."""
        name = str(request.path_params["name"])
        pinned = None if name == ENCODER else self._backend.names.find(name).pinned
        return Json(_model(name, "scope-edge" if pinned is None else pinned.where))

    async def route(self, request: Request) -> Response:
        """POST /v1/route."""
        name, query, options = await read_json(request, self._state.options.body_bytes, read_query)
        target = self._backend.names.find(name)
        decision = await self._state.quickly(request, self._backend.decide, target, query, options)
        return Json(decision.as_dict(), headers=decision_headers(decision, None))

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings."""
        body = await read_json(request, self._state.options.body_bytes, dict)
        model, texts, packed = read_inputs(body)
        if model not in (ENCODER, AUTO):
            why = f"there is no embedding model {model!r}; {ENCODER} is one"
            raise ApiError(404, why, "model_not_found", param="model")
        over = threading.Event()
        try:
            return await self._state.quickly(request, self._embedded, texts, packed, body.get("dimensions"), over)
        finally:
            over.set()

    async def health(self, request: Request) -> Response:
        """GET /health. It needs no token, so it reveals only this."""
        return Json({"status": "closing" if self._state.answers.closed else "ok", "version": __version__})

    def _embedded(self, texts: tuple[str, ...], packed: bool, dimensions: object, over: threading.Event) -> Response:
        """Encode until the request is `over`. Raises ApiError: the encoder has another dimension, or the server is shutting down."""
        cache = self._backend.cache
        dimension = cache.load_encoder().dimension
        if dimensions not in (None, dimension):
            raise bad(f"dimensions must be {dimension}, or left out", "dimensions")
        rows = []
        for n, text in enumerate(texts):
            if over.is_set() or self._state.is_cut:
                raise closing()
            vector = cache.encode(Query(text)).vector
            rows.append(
                {"object": "embedding", "index": n, "embedding": _base64(vector) if packed else vector.tolist()}
            )
        tokens = round(sum(estimate_prompt_tokens(text).expected for text in texts))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Json({"object": "list", "data": rows, "model": ENCODER, "usage": usage})

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        gauges = await self._state.quickly(request, self._state.gauges)
        raw = self._state.metrics.text(gauges)
        return Response(raw, headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})


def _model(name: str, owner: str) -> Mapping[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _base64(vector: Any) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
