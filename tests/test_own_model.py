"""From a file on disk, or a server on this machine, to a candidate that can be chosen: every step a command of its own."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from chat_server import from_gguf, serving
from cli_cases import QUERY, Ended, spawn, user

from scope_edge.providers.llama.client import LlamaClient
from scope_edge.providers.llama.memory import Plan

pytest.importorskip("httpx")
if find_spec("llama_cpp") is None:
    pytest.skip("llama-cpp-python is not installed", allow_module_level=True)

PLAN = Plan(context=4096, batch=128, gpu_layers=0, threads=1, needs=0, why="")


class User:
    """A new user, whose every command is a process."""

    def __init__(self, home: Path) -> None:
        self.home, self._environment = home, user(home)

    def __call__(self, *args: str, code: int = 0) -> Ended:
        done = spawn(args, self._environment, folder=self.home)
        assert done.code == code, (args, done.out, done.err)
        return done


def candidate(someone: User, model: str) -> dict[str, object]:
    """The model's row in a decision of the active pool."""
    rows = {row["model"]: row for row in someone("route", "--json", QUERY).json["candidates"]}
    found: dict[str, object] = rows[model]
    return found


def measured(someone: User, model: str, answers: int) -> None:
    """Ask it anchors, and look whether it is a candidate like any other then, with no step between."""
    assert candidate(someone, model)["evidence"] == "none"
    asked = someone("fingerprint", model, "--limit", str(answers), "--max-answer-tokens", "16", "--json").json
    assert asked["answered"] == answers and asked["missing"] == {}
    row = candidate(someone, model)
    assert row["evidence"] in ("weak", "strong") and row["excluded_by"] is None
    assert someone("route", "--pool", model, "--quiet", QUERY).out == f"{model}\n"
    assert someone("models", "show", model, "--json").json["fingerprints"] == ["core-250"]


@pytest.mark.long
def test_a_gguf_and_the_same_behind_a_server(tmp_path: Path, scripted_gguf: Path) -> None:
    someone = User(tmp_path)
    shutil.copy(scripted_gguf, tmp_path / "ours.gguf")
    assert someone("models", "add", "ours.gguf", "--estimate-only", "--json").json["fits"] is True
    assert "ours was added" in someone("models", "add", "ours.gguf").out
    assert someone("models", "test", "ours", "--json").json["works"] is True
    measured(someone, "ours", 4)
    with LlamaClient(scripted_gguf, "tiny", PLAN, cache_dir=tmp_path) as client, serving(from_gguf(client)) as server:
        server.models = [{"id": "Tiny:BF16"}]
        added = someone("models", "add", server.address, "--where", "device", "--json").json
        assert (added["id"], added["served_as"], added["usd_in"]) == ("tiny:bf16", "Tiny:BF16", 0)
        tried = someone("models", "test", "tiny:bf16", "--json").json
        assert tried["works"] is True and tried["completion_tokens"] > 0
        measured(someone, "tiny:bf16", 4)
        assert {call.body["model"] for call in server.calls} == {"Tiny:BF16"}
    assert someone("models", "test", "tiny:bf16", "--timeout", "5", code=5).err.count("\n") == 1, "the server has gone"
    (row, *_) = someone("models", "compare", "ours", "tiny:bf16", "--json").json["shared"]
    assert row["anchors"] == 4 and row["better"] is None
    (tmp_path / "ours.gguf").unlink()
    assert candidate(someone, "ours")["excluded_by"] == "cannot_load"
    for model in ("ours", "tiny:bf16"):
        someone("models", "remove", model, "--fingerprints", "--yes")
        someone("models", "show", model, code=2)
    assert someone("route", "--quiet", QUERY).out
    left = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert left == [], "asked to, it leaves nothing"
