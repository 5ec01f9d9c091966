"""What a server loads, and when: a model that is named needs no encoder; what a decision needs is looked at before it listens."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from chat_server import Said, Server, serving
from cli_cases import QUERY, spawn, user
from serve_cases import LARGE, Served, served, settings

from scope_edge.storage import assets

pytest.importorskip("httpx")
if any(find_spec(name) is None for name in ("uvicorn", "starlette", "prometheus_client")):
    pytest.skip("the extra `server` is not installed", allow_module_level=True)
if not hasattr(psutil.Process, "memory_maps"):
    pytest.skip("what a process has loaded cannot be seen here", allow_module_level=True)

TEXT = "There are 25 primes below one hundred."


@pytest.fixture
def model() -> Iterator[Server]:
    with serving(lambda *_: Said(TEXT, 12, 9)) as made:
        yield made


def loaded(server: Served) -> set[str]:
    """Libraries of the encoder that are in the server's memory."""
    paths = " ".join(one.path for one in psutil.Process(server.process.pid).memory_maps())
    return {name for name in ("onnxruntime", "tokenizers", "numpy") if name in paths}


def test_models_that_are_named_need_no_encoder_and_the_first_decision_loads_it(tmp_path: Path, model: Server) -> None:
    with served(tmp_path, settings=settings(model, model)) as server:
        assert server.ask(model=LARGE).text == TEXT and server.ask(model=LARGE, stream=True).text == TEXT
        server.call("GET", "/v1/models"), server.metric("running")
        assert loaded(server) == set()
        assert server.ask().text == TEXT
        assert loaded(server) == {"onnxruntime", "tokenizers", "numpy"}


def test_preloaded_it_is_there_before_anybody_asks(tmp_path: Path, model: Server) -> None:
    with served(tmp_path, "--preload", settings=settings(model, model)) as server:
        assert loaded(server) == {"onnxruntime", "tokenizers", "numpy"}


@pytest.fixture
def bundled(tmp_path: Path) -> Path:
    """The bundled files, linked, with an encoder of their own that can be damaged."""
    folder = tmp_path / "bundled"
    for name in ("models/encoder", "models/multilingual", "anchors"):
        (folder / name).mkdir(parents=True)
    for name in (*assets.manifest(), "models/manifest.toml", "anchors/manifest.toml"):
        if name != "models/encoder/tokenizer.json":
            (folder / name).symlink_to(assets.bundled_root() / name)
    (folder / "models/encoder/tokenizer.json").write_bytes(assets.read("models/encoder/tokenizer.json"))
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own")
def test_a_damaged_file_is_said_before_anything_listens(tmp_path: Path, bundled: Path) -> None:
    tokenizer = bundled / "models/encoder/tokenizer.json"
    os.truncate(tokenizer, 1000)
    done = spawn(["serve", "--port", "0"], user(tmp_path) | {"SCOPE_EDGE_ASSETS": str(bundled)})
    assert done.code == 5 and "tokenizer.json: expected" in done.complaint and done.out == ""


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own")
def test_what_was_damaged_since_is_one_clear_error_until_it_is_mended(
    tmp_path: Path, bundled: Path, model: Server
) -> None:
    tokenizer = bundled / "models/encoder/tokenizer.json"
    whole = tokenizer.read_bytes()
    env = {"SCOPE_EDGE_ASSETS": str(bundled)}
    with served(tmp_path / "home", settings=settings(model, model), env=env) as server:
        os.truncate(tokenizer, 1000)
        for _ in range(2):
            refused = server.ask(QUERY)
            assert refused.status == 500 and refused.json["error"]["code"] == "asset"
            assert "tokenizer.json" in refused.json["error"]["message"]
        assert server.ask(model=LARGE).text == TEXT, "who is named is asked all the same"
        tokenizer.write_bytes(whole)
        assert server.ask(QUERY).text == TEXT
