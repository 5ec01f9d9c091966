"""The server as the programs people have: OpenAI's Python client, and the `llm` command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from chat_server import Said, Server, faulty, serving
from cli_cases import QUERY
from serve_cases import LARGE, SMALL, Served, served, settings

pytest.importorskip("httpx")
if any(find_spec(name) is None for name in ("uvicorn", "starlette", "prometheus_client")):
    pytest.skip("the extra `server` is not installed", allow_module_level=True)

TEXT = "There are 25 primes below one hundred."


@dataclass
class World:
    server: Served
    model: Server


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("home")
    with serving(lambda *_: Said(TEXT, 12, 9)) as model, served(folder, settings=settings(model, model)) as server:
        yield World(server, model)


def client(server: Served, **options: object):  # type: ignore[no-untyped-def]  # it may not be installed
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=server.url, api_key=server.token, **{"max_retries": 0, **options})


def test_openai_whole(world: World) -> None:
    answer = client(world.server).chat.completions.create(model="auto", messages=[{"role": "user", "content": QUERY}])
    assert answer.choices[0].message.content == TEXT and answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == 21 and answer.model in (SMALL, LARGE)


def test_openai_streamed_with_usage_and_the_decision(world: World) -> None:
    stream = client(world.server).chat.completions.create(
        model="auto:best",
        messages=[{"role": "user", "content": QUERY}],
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"scope_edge": {"decision": True, "max_usd": 0.1}},
    )
    chunks = list(stream)
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == TEXT
    assert chunks[0].scope_edge["decision"]["choice"] == LARGE and chunks[-1].usage.completion_tokens == 9


def test_openai_reads_headers_models_embeddings_and_completions(world: World) -> None:
    made = client(world.server)
    raw = made.chat.completions.with_raw_response.create(model=SMALL, messages=[{"role": "user", "content": QUERY}])
    assert raw.headers["x-scope-edge-model"] == SMALL and raw.parse().choices[0].message.content == TEXT
    assert {"auto", SMALL} <= {one.id for one in made.models.list()}
    assert made.models.retrieve("auto:local").id == "auto:local"
    assert len(made.embeddings.create(model="all-minilm-l6-v2", input=["a", "b"]).data[1].embedding) == 384
    assert made.completions.create(model="auto", prompt=QUERY).choices[0].text == TEXT


def test_openai_knows_our_errors(world: World) -> None:
    openai = pytest.importorskip("openai")
    asked = {"messages": [{"role": "user", "content": QUERY}]}
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client(world.server).chat.completions.create(model="gpt-99", **asked)
    with pytest.raises(openai.BadRequestError, match="max_tokens") as refused:
        client(world.server).chat.completions.create(
            model="auto", extra_body={"scope_edge": {"max_tokens": 1}}, **asked
        )
    assert refused.value.code == "infeasible"
    wrong = openai.OpenAI(base_url=world.server.url, api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        wrong.models.list()


def test_openai_asks_a_model_that_nobody_reaches_once(tmp_path: Path) -> None:
    """Its client would ask again by itself after a 502; the router has asked everybody twice by then."""
    openai = pytest.importorskip("openai")
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        faulty(model, ["401", "cut", "401"]) as front,
        served(tmp_path, settings=settings(model, front)) as server,
    ):
        patient = client(server, max_retries=3)
        with pytest.raises(openai.InternalServerError, match="VENDOR_KEY"):
            patient.chat.completions.create(model=LARGE, messages=[{"role": "user", "content": QUERY}])
        assert len(front.calls) == 1
        stream = patient.chat.completions.create(
            model=LARGE, messages=[{"role": "user", "content": QUERY}], stream=True
        )
        came = []
        with pytest.raises(openai.APIError, match="broke off"):
            came += [one.choices[0].delta.content or "" for one in stream]
        assert len(front.calls) == 2


def test_openai_calls_tools(world: World) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    answer = client(world.server).chat.completions.create(
        model="auto", messages=[{"role": "user", "content": QUERY}], tools=tools
    )
    assert answer.model == LARGE and world.model.calls[-1].body["tools"] == tools


def test_the_llm_command(world: World, tmp_path: Path) -> None:
    if find_spec("llm") is None:
        pytest.skip("llm is not installed")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: edge\n  model_name: auto\n  api_base: {world.server.url}\n  api_key_name: scope-edge\n"
    )
    for more in ([], ["--no-stream"]):
        done = subprocess.run(
            [sys.executable, "-m", "llm", "-m", "edge", "--key", world.server.token, *more, QUERY],
            env=world.server.env | {"LLM_USER_PATH": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, TEXT + "\n"), done.stderr
