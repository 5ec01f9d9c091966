"""One tiny call says whether a model works, and what is wrong when it does not; `route` hears of what llama.cpp refuses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from chat_server import Said, Server, faulty, serving
from cli_cases import QUERY, Cli
from cli_cases import server_card as settings_for
from repository import DOCS, documented

from scope_edge.management.trial import MAX_TOKENS, PROMPT

pytest.importorskip("httpx")
KEY = "sk-this-is-secret-0123456789"
needs_llama = pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("VENDOR_KEY", KEY)
    return Cli(tmp_path, monkeypatch, capsys)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(lambda prompt, limit: Said("Ready.", 12, 2)) as made:
        yield made


def device(path: Path) -> str:
    return f'threads = 1\n[models.mine]\nwhere = "device"\nusd_in = 0\nusd_out = 0\ngguf = "{path}"\n[pools]\nboth = ["mine", "gpt-4o"]\n'


def test_an_endpoint_that_answers(cli: Cli, server: Server) -> None:
    done = cli("models", "test", "mine", settings=settings_for(server))
    assert done.code == 0 and "mine answers" in done.out and "Ready." in done.out and "12 in, 2 out" in done.out
    (call,) = server.calls
    assert call.prompt == PROMPT and call.body["max_tokens"] == MAX_TOKENS
    body = cli("models", "test", "mine", "--json").json
    section = (DOCS / "json.md").read_text("utf-8").split("## scope-edge models test")[1].split("\n## ")[0]
    assert list(body) == documented(section)
    assert body["works"] is True and body["text"] == "Ready." and body["seconds"] > 0 and body["problem"] is None


@pytest.mark.parametrize(
    ("fault", "said"),
    [("401", "VENDOR_KEY"), ("404", "no model"), ("500", "HTTP 500"), ("text", "not an answer"), ("dropped", "broke")],
)
def test_an_endpoint_that_does_not(cli: Cli, server: Server, fault: str, said: str) -> None:
    with faulty(server, [fault, fault]) as front:
        done = cli("models", "test", "mine", settings=settings_for(front))
        assert done.code == 5 and "mine does not work: " in done.complaint and said in done.complaint
        body = cli("models", "test", "mine", "--json")
        assert body.code == 5 and body.json["works"] is False and said in body.json["problem"]
        assert KEY not in done.err + body.out and len(front.calls) == 2, "one call each"


def test_a_slow_one_is_not_waited_for(cli: Cli, server: Server) -> None:
    with faulty(server, ["slow"]) as front:
        done = cli("models", "test", "mine", "--timeout", "0.3", settings=settings_for(front))
    assert done.code == 5 and "no answer within 0.3 seconds" in done.complaint


def test_what_is_wrong_with_the_asking(cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("models", "test", "nobody", settings=settings_for(server)).code == 2
    silent = cli("models", "test", "llama-3.1-70b-instruct")
    assert silent.code == 2 and "does not say how it is called" in silent.complaint
    monkeypatch.delenv("VENDOR_KEY")
    keyless = cli("models", "test", "mine", "--json")
    assert keyless.code == 2 and "VENDOR_KEY" in keyless.json["problem"] and server.calls == []
    gone = cli("models", "test", "mine", settings=device(cli.folder / "none.gguf"))
    assert gone.code == 2 and "no file" in gone.complaint


@needs_llama
def test_a_gguf_that_answers(cli: Cli, scripted_gguf: Path) -> None:
    body = cli("models", "test", "mine", "--json", settings=device(scripted_gguf))
    assert body.code == 0, body.err
    assert body.json["works"] and body.json["load_seconds"] > 0 and 0 < body.json["completion_tokens"] <= MAX_TOKENS
    assert "mine answers" in cli("models", "test", "mine").out


@needs_llama
def test_what_llama_cpp_refuses_is_not_chosen_until_it_loads(cli: Cli, scripted_gguf: Path, tmp_path: Path) -> None:
    """A sound header, and weights that llama.cpp wants and does not find."""
    path = tmp_path / "mine.gguf"
    path.write_bytes(scripted_gguf.read_bytes().replace(b"blk.1.attn_k.weight", b"blk.1.attn_x.weight"))
    unknown = cli("route", QUERY, "--pool", "both", "--json", settings=device(path)).json
    assert {row["model"]: row["excluded_by"] for row in unknown["candidates"]}["mine"] is None
    done = cli("models", "test", "mine")
    assert done.code == 1 and "llama.cpp cannot load it" in done.complaint
    told = cli("route", QUERY, "--pool", "both", "--json").json
    assert {row["model"]: row["excluded_by"] for row in told["candidates"]}["mine"] == "cannot_load"
    assert any("scope-edge models test mine" in text for text in told["warnings"])
    shutil.copy(scripted_gguf, path)
    assert cli("models", "test", "mine").code == 0
    after = cli("route", QUERY, "--pool", "both", "--json").json
    assert {row["model"]: row["excluded_by"] for row in after["candidates"]}["mine"] is None
