"""What a refusal taught is kept only if the request then succeeds."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from chat_server import Call, Handler, Said, completion, running

from scope_edge.errors import ProviderError
from scope_edge.providers.openai.client import ChatClient, RetryPolicy
from scope_edge.types import ModelCard

pytest.importorskip("httpx_sse")
SYSTEM, USER = {"role": "system", "content": "You are a pirate."}, {"role": "user", "content": "Hello?"}


def test_a_request_that_is_refused_in_every_form_changes_nothing() -> None:
    class Strict(Handler):
        def answer(self, call: Call, raw: bytes) -> None:
            if any(one["role"] == "tool" for one in call.body["messages"]):
                why = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
                self.send(400, json.dumps({"error": {"message": why}}).encode())
            else:
                self.send_answer(call, completion("m", Said("fine", 3, 1)))

    orphan: dict[str, Any] = {"role": "tool", "tool_call_id": "1", "content": "x"}
    with running(Strict) as server:
        card = ModelCard("mine", "cloud", endpoint=server.address)
        with ChatClient(card, RetryPolicy(20.0, attempts=1)) as made:
            with pytest.raises(ProviderError):
                list(made.stream([SYSTEM, USER, orphan], {}, None))
            assert "".join(piece.text for piece in made.stream([SYSTEM, USER], {}, None)) == "fine"
    assert server.calls[-1].body["messages"] == [SYSTEM, USER] and server.calls[-1].body["stream"] is True


def test_requests_at_the_same_time_learn_each_for_itself() -> None:
    first = threading.Barrier(4)

    class Strict(Handler):
        def answer(self, call: Call, raw: bytes) -> None:
            if "stream_options" in call.body:
                first.wait(30)  # all four are refused before one of them has learned
                self.send(400, b'{"error": {"message": "unknown field stream_options"}}')
            else:
                self.send_answer(call, completion("m", Said("fine", 3, 1)))

    with running(Strict) as server:
        card = ModelCard("mine", "cloud", endpoint=server.address)
        with ChatClient(card, RetryPolicy(30.0, attempts=1)) as made, ThreadPoolExecutor(4) as pool:
            told = pool.map(lambda _: "".join(one.text for one in made.stream([USER], {}, None)), range(4))
            assert list(told) == ["fine"] * 4
            assert "".join(one.text for one in made.stream([USER], {}, None)) == "fine"
    assert len(server.calls) == 9
