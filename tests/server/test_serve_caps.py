"""What a request cannot do at the server: lift its limits, slip past its caps, take private text off the device, break it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from chat_server import Said, Server, serving
from cli_cases import QUERY, spawn
from serve_cases import LARGE, SMALL, Served, served, settings

from scope_edge.server.token import RunningServer
from scope_edge.settings.config import load_settings

pytest.importorskip("httpx")
if any(find_spec(name) is None for name in ("uvicorn", "starlette", "prometheus_client")):
    pytest.skip("the extra `server` is not installed", allow_module_level=True)

ADDRESS = "alice@example.com"
MORE = 'max_usd = 0.001\nmax_usd_day = 0.0005\nprivacy = "patterns"\nstick = 1e9'


@dataclass
class World:
    server: Served
    small: Server
    large: Server


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(lambda *_: Said("fine", 12, 2)) as small, serving(lambda *_: Said("fine", 12, 2)) as large:
        folder = tmp_path_factory.mktemp("home")
        with served(folder, settings=settings(small, large, MORE)) as server:
            yield World(server, small, large)


def spend(world: World) -> Any:
    return spawn(["log", "spend", "--json"], world.server.env).json


def test_a_fallback_lifts_the_requests_own_limits_alone(world: World) -> None:
    lifted = world.server.ask(scope_edge={"fallback": "cheapest", "max_usd": 0.0, "max_tokens": 1})
    assert lifted.status == 200 and lifted.headers["x-scope-edge-over-budget"] == "1"
    calls = len(world.large.calls)
    answered = world.small if lifted.headers["x-scope-edge-model"] == SMALL else world.large
    assert answered.calls[-1].body["max_tokens"] == 1, "the answer alone keeps to the limit on tokens all the same"
    text = "many words " * 3000
    for model in (LARGE, "auto:best"):
        held = world.server.ask(
            text, model=model, max_tokens=10, scope_edge={"fallback": "cheapest", "exclude": [SMALL]}
        )
        assert held.status == 400 and held.json["error"]["code"] == "infeasible", model
    routed = world.server.call("POST", "/v1/route", {"text": text, "fallback": "cheapest", "exclude": [SMALL]})
    assert routed.json["choice"] is None and routed.json["over_budget"] is False
    assert len(world.large.calls) == calls


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 400, "1" + "0" * 5000, "NaN", "Infinity"])
def test_a_number_beyond_any_model_is_400_and_charges_nothing(world: World, number: str) -> None:
    before = spend(world)
    bodies = [
        f'"{name}": {number}'
        for name in (
            "temperature",
            "top_p",
            "seed",
            "max_tokens",
            "max_completion_tokens",
            "n",
            "frequency_penalty",
            "vendor",
        )
    ]
    bodies += [f'"metadata": {{"deep": [{number}]}}', f'"scope_edge": {{"max_usd": {number}}}', f'"stream": {number}']
    bodies += [
        f'"scope_edge": {{"{name}": {number}}}' for name in ("alpha", "max_tokens", "max_seconds", "top_k", "verify")
    ]
    for more in bodies:
        for model in ("auto", LARGE):
            raw = json.dumps({"model": model, "messages": [{"role": "user", "content": QUERY}]})[:-1] + f", {more}}}"
            refused = world.server.call("POST", "/v1/chat/completions", raw.encode())
            assert refused.status == 400, (more, refused.raw)
    raw = json.dumps({"text": QUERY})[:-1] + f', "max_usd": {number}}}'
    assert world.server.call("POST", "/v1/route", raw.encode()).status == 400
    assert spend(world) == before


def test_a_message_with_such_a_number_is_400(world: World) -> None:
    raw = '{"model": "auto", "messages": [{"role": "user", "content": "hi", "weight": 1e999}]}'
    assert world.server.call("POST", "/v1/chat/completions", raw.encode()).status == 400


def test_a_cap_of_the_day_sees_arguments_and_refuses_pictures(world: World) -> None:
    """The large model takes 0.88 dollars a million tokens: 3,000 words cost more than the cap of the day."""
    before, calls = spend(world), len(world.large.calls)
    told = {"role": "assistant", "content": None, "reasoning_content": "many words " * 3000}
    messages = [{"role": "user", "content": "And now?"}, told, {"role": "user", "content": QUERY}]
    long = world.server.ask(model=LARGE, messages=messages, max_tokens=10)
    assert long.status in (400, 402), long.raw
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/p.png"}}
    seen = [{"role": "user", "content": [{"type": "text", "text": QUERY}, picture]}]
    assert world.server.ask(model=LARGE, messages=seen, max_tokens=10).status >= 400
    assert spend(world) == before and len(world.large.calls) == calls


def test_private_strings_stay_on_the_device_wherever_they_are(world: World) -> None:
    calls = len(world.large.calls)
    picture = {"type": "image_url", "image_url": {"url": f"https://example.org/?for={ADDRESS}"}}
    parts = [{"type": "text", "text": "Write to alice@exam"}, {"type": "text", "text": "ple.com."}]
    for fields in (
        {"stop": [ADDRESS]},
        {"metadata": {"for": ADDRESS}},
        {"user": ADDRESS},
        {"tools": [{"type": "function", "function": {"name": "f", "description": ADDRESS}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"description": ADDRESS}}},
        {"messages": [{"role": "user", "name": ADDRESS, "content": QUERY}]},
        {"messages": [{"role": "user", "content": parts}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": QUERY}, picture]}]},
    ):
        for model in ("auto:best", LARGE):
            world.server.ask(**{"model": model, **fields})
    assert len(world.large.calls) == calls


def test_a_command_whose_fallback_would_lift_a_limit_does_not_use_the_server(own_folders: Path) -> None:
    limited = {"max_usd": 0.5}
    for own, fallback, lifted in (
        (limited, "none", False),
        (limited, "cheapest", True),
        ({}, "none", True),
    ):
        there = RunningServer.here("127.0.0.1", 1, 0.0, load_settings({**own, "fallback": fallback}), "token")
        assert there.is_compatible(load_settings({**own, "fallback": "cheapest"}), "token") is lifted
        assert there.is_compatible(load_settings({**own, "fallback": "none"}), "token")
