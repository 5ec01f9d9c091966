"""The addresses of /v1 that run no model, and what watches a server: models, route, embeddings, health, metrics."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from scope_edge import __version__
from scope_edge.prompt_tokens import estimate_prompt_tokens
from scope_edge.server.chat import decision_headers
from scope_edge.server.desk import ENCODER
from scope_edge.server.exchange import Exchange, encoded
from scope_edge.server.problems import Problem, bad
from scope_edge.server.wire import parse, read_inputs, read_query

if TYPE_CHECKING:
    from scope_edge.server.desk import Desk
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
        most = self._service.bounds.body_bytes
        name, query, wishes = await exchange.read(most, lambda raw: read_query(parse(raw)))
        target = desk.names.find(name)
        decision = await exchange.unless_hung_up(self._service.quickly(desk.decide, target, query, wishes))
        await exchange.json(200, decision.as_dict(), decision_headers(decision, None))

    async def embeddings(self, exchange: Exchange) -> None:
        """POST /v1/embeddings."""
        body = await exchange.read(self._service.bounds.body_bytes, parse)
        model, texts, packed = read_inputs(body)
        if model not in (ENCODER, "auto"):
            raise Problem(
                404, f"there is no embedding model {model!r}; {ENCODER} is one", "model_not_found", param="model"
            )
        wanted = body.get("dimensions")
        work = self._service.quickly(_embedded, self._service.desk, texts, packed, wanted)
        await exchange.whole(200, await exchange.unless_hung_up(work))

    async def health(self, exchange: Exchange) -> None:
        """GET /health: it runs. Who has no token learns no more."""
        await exchange.json(
            200, {"status": "closing" if self._service.answers.closed else "ok", "version": __version__}
        )

    async def metrics(self, exchange: Exchange) -> None:
        """GET /metrics."""
        gauges = await self._service.quickly(self._service.gauges)
        raw = self._service.metrics.text(gauges).encode()
        await exchange.start(200, encoded({"content-type": "text/plain; version=0.0.4; charset=utf-8"}))
        await exchange.write(raw, more=False)


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _embedded(desk: Desk, texts: tuple[str, ...], packed: bool, dimensions: object) -> bytes:
    """The answer with their vectors. Raises Problem."""
    if dimensions not in (None, desk.dimension):
        raise bad(f"dimensions must be {desk.dimension}, or left out", "dimensions")
    rows = [
        {"object": "embedding", "index": n, "embedding": _packed(one) if packed else one.tolist()}
        for n, one in enumerate(desk.embed(texts))
    ]
    tokens = round(sum(estimate_prompt_tokens(text).expected for text in texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"object": "list", "data": rows, "model": ENCODER, "usage": usage}).encode()


def _packed(vector: Any) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
