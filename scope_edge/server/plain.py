"""The addresses of /v1 that run no model, and what watches a server: models, route, embeddings, health, metrics."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from scope_edge import __version__
from scope_edge.prompt_tokens import estimate_prompt_tokens
from scope_edge.server.chat import decision_headers
from scope_edge.server.desk import ENCODER
from scope_edge.server.exchange import Exchange, encoded
from scope_edge.server.problems import Problem, bad
from scope_edge.server.wire import parse, read_inputs, read_query

if TYPE_CHECKING:
    from scope_edge.server.service import Service


class Plain:
    """Their endpoints."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def models(self, exchange: Exchange) -> None:
        """GET /v1/models."""
        names = self._service.desk.names
        virtual = [_model(name, "scope-edge") for name in names.virtual]
        real = [_model(card.id, card.where) for card in names.real]
        await exchange.json(200, {"object": "list", "data": [*virtual, *real, _model(ENCODER, "scope-edge")]})

    async def model(self, exchange: Exchange) -> None:
        """GET /v1/models/NAME. Raises Problem: there is none."""
        name = str(exchange.scope["path_params"]["name"])
        if name == ENCODER:
            await exchange.json(200, _model(name, "scope-edge"))
            return
        target = self._service.desk.names.find(name)
        await exchange.json(200, _model(name, "scope-edge" if target.pinned is None else target.pinned.where))

    async def route(self, exchange: Exchange) -> None:
        """POST /v1/route."""
        desk = self._service.desk
        name, query, wishes = read_query(parse(await exchange.body(self._service.bounds.body_bytes)))
        target = desk.names.find(name)
        decision = await exchange.unless_hung_up(self._service.quickly(desk.decide, target, query, wishes))
        await exchange.json(200, decision.as_dict(), decision_headers(decision, None))

    async def embeddings(self, exchange: Exchange) -> None:
        """POST /v1/embeddings."""
        body = parse(await exchange.body(self._service.bounds.body_bytes))
        model, texts, packed = read_inputs(body)
        if model not in (ENCODER, "auto"):
            raise Problem(
                404, f"there is no embedding model {model!r}; {ENCODER} is one", "model_not_found", param="model"
            )
        vectors = await exchange.unless_hung_up(self._service.quickly(self._service.desk.embed, texts))
        if body.get("dimensions") not in (None, len(vectors[0])):
            raise bad(f"dimensions must be {len(vectors[0])}, or left out", "dimensions")
        rows = [
            {"object": "embedding", "index": n, "embedding": _packed(one) if packed else one.tolist()}
            for n, one in enumerate(vectors)
        ]
        tokens = round(sum(estimate_prompt_tokens(text).expected for text in texts))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        await exchange.json(200, {"object": "list", "data": rows, "model": ENCODER, "usage": usage})

    async def health(self, exchange: Exchange) -> None:
        """GET /health: it runs. Who has no token learns no more."""
        await exchange.json(
            200, {"status": "closing" if self._service.answers.closed else "ok", "version": __version__}
        )

    async def metrics(self, exchange: Exchange) -> None:
        """GET /metrics."""
        raw = self._service.metrics.text(self._service.gauges()).encode()
        await exchange.start(200, encoded({"content-type": "text/plain; version=0.0.4; charset=utf-8"}))
        await exchange.write(raw, more=False)


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _packed(vector: Any) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
