"""`scope-edge estimator` as a user meets it: what it prints, what it asks, what it ends with."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_cases import Cli, spawn, user
from hub_server import COMMIT, Hub, running
from install_cases import CARD
from paper_cases import jsonl, parquet, table
from repository import DOCS
from tiny_qwen3 import Dimensions, make_checkpoint

DATASETS = ("Cooolder/SCOPE-60K-final", "Cooolder/SCOPE-60K-OOD-final")
pytest.importorskip("gguf")
if find_spec("llama_cpp") is None:
    pytest.skip("llama-cpp-python is not installed", allow_module_level=True)


@pytest.fixture
def gguf(tiny_gguf: Path) -> str:
    return str(tiny_gguf)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The paper's model and datasets under their own names, small and of our own making."""
    pytest.importorskip("huggingface_hub")
    folder = make_checkpoint(tmp_path / "made", Dimensions(hidden=256, feed_forward=256))
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"README.md": CARD.encode()}
    repos: dict[tuple[str, str], dict[str, bytes]] = {("model", "Cooolder/SCOPE"): files}
    for name, models in zip(DATASETS, (("llama-3-1-8b", "nova-2-lite-v1"), ("qwen3-8b",)), strict=True):
        parquet(tmp_path / "it.parquet", table(*models))
        repos[("dataset", name)] = {"data/anchor-00000-of-00001.parquet": (tmp_path / "it.parquet").read_bytes()}
    large = {path for held in repos.values() for path in held if path.endswith((".safetensors", ".parquet"))}
    with running(Hub(repos=repos, large=large, cards={"Cooolder/SCOPE": {"license": "apache-2.0"}})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield served


def test_from_nothing_to_installed_and_back(cli: Cli, gguf: str) -> None:
    assert "no estimator is installed; `scope-edge estimator install" in cli("estimator", "list").out
    assert cli("estimator", "list", "--json").json == []
    done = cli("estimator", "install", gguf)
    assert done.code == 0
    assert done.out.startswith("tiny-qwen3 was installed\n")
    assert re.search(r"speed +[\d,]+ tokens a second of prompts, [\d,]+ of answers", done.out)
    assert "there are no anchors with text yet" in done.complaint
    assert "tiny-qwen3  qwen3, 0.2M, BF16, 0.5 MB  cot   bundled" in cli("estimator", "list").out
    shown = cli("estimator", "info")
    assert shown.out.replace("tiny-qwen3\n", "", 1) in done.out.replace("tiny-qwen3 was installed\n", "", 1)
    removed = cli("estimator", "remove", "tiny-qwen3", "--yes")
    assert (removed.code, removed.err) == (0, "")
    assert cli("estimator", "list", "--json").json == []
    assert Path(gguf).exists()


def test_the_papers_model_comes_with_its_anchors(cli: Cli, hub: Hub) -> None:
    done = cli("estimator", "install", "Cooolder/SCOPE", "--no-measure")
    assert done.code == 0
    assert "scope-q4_k_m was installed" in done.out
    assert f"model card of Cooolder/SCOPE@{COMMIT[:12]}" in done.out
    assert "Cooolder/SCOPE-60K-final: anchor set scope-60k, 12 anchors; 24 outcomes of 2 models" in done.out
    assert "Cooolder/SCOPE-60K-OOD-final: joined to scope-60k, 12 anchors; 12 outcomes of 1 model" in done.out
    assert re.search(r"with a card +llama-3.1-8b-instruct\n", done.out)
    assert '[models."nova-2-lite-v1"]' in done.err
    card = cli("models", "show", "llama-3.1-8b-instruct", "--json").json
    assert "scope-60k" in card["fingerprints"]


def test_the_anchors_can_be_left_out_and_fetched_later(cli: Cli, hub: Hub) -> None:
    assert cli("estimator", "install", "Cooolder/SCOPE", "--no-measure", "--no-anchors").code == 0
    assert not any("datasets" in one.path for one in hub.asked)
    done = cli("estimator", "anchors", DATASETS[0])
    assert (done.code, "anchor set scope-60k, 12 anchors" in done.out) == (0, True)


def test_anchors_that_cannot_be_fetched_leave_the_estimator_and_say_what_to_do(cli: Cli, hub: Hub) -> None:
    del hub.repos[("dataset", DATASETS[1])]
    done = cli("estimator", "install", "Cooolder/SCOPE", "--no-measure")
    assert done.code == 2
    assert f"(to try again: `scope-edge estimator anchors {DATASETS[1]}`)" in done.err
    assert [one["name"] for one in cli("estimator", "list", "--json").json] == ["scope-q4_k_m"]


def test_anchors_from_a_folder(cli: Cli, tmp_path: Path) -> None:
    jsonl(tmp_path / "mine" / "anchor.jsonl", table("meta-llama/llama-3.1-8b-instruct", usage_completion_tokens=0))
    done = cli("estimator", "anchors", str(tmp_path / "mine"))
    assert (done.code, done.err) == (0, "")
    assert "anchor set mine, 12 anchors; 12 outcomes of 1 model" in done.out
    assert cli("route", "How many apples are in 4 baskets?").code == 0


def test_info_says_everything_documented_and_nothing_else(cli: Cli, gguf: str) -> None:
    cli("estimator", "install", gguf)
    body = cli("estimator", "info", "--json").json
    section = (DOCS / "json.md").read_text("utf-8").split("## scope-edge estimator")[1].split("\n## ")[0]
    documented = [
        key for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(documented) == sorted(body)
    assert body["measured"]["decode_tps"] > 0
    (listed,) = cli("estimator", "list", "--json").json
    assert {**listed, "template": body["template"]} == body


def test_a_damaged_entry_is_listed_as_such_and_can_be_removed(cli: Cli, gguf: str, tmp_path: Path) -> None:
    cli("estimator", "install", gguf, "--name", "good")
    cli("estimator", "install", gguf, "--name", "bad")
    manifest = tmp_path / "data" / "estimators" / "bad" / "manifest.toml"
    manifest.write_text("mode = 7")
    done = cli("estimator", "list")
    assert re.search(r"^bad +damaged$", done.out, re.MULTILINE)
    assert str(manifest) in done.complaint
    good, bad = cli("estimator", "list", "--json").json
    assert (good["name"], good["problem"]) == ("good", None)
    assert (sorted(bad), bad["name"]) == (["folder", "name", "problem"], "bad")
    assert cli("estimator", "info", "bad").code == 5
    assert cli("estimator", "info").out.startswith("good\n")
    assert cli("estimator", "remove", "bad", "--yes").code == 0
    assert cli("estimator", "list").err == ""


def test_changed_weights_are_found_by_info(cli: Cli, gguf: str, tmp_path: Path) -> None:
    cli("estimator", "install", gguf, "--no-measure")
    weights = tmp_path / "data" / "estimators" / "tiny-qwen3" / "model.gguf"
    blob = bytearray(weights.read_bytes())
    weights.unlink()
    blob[-1] ^= 1
    weights.write_bytes(blob)
    done = cli("estimator", "info")
    assert (done.code, "damaged (expected sha256" in done.complaint) == (5, True)


def test_removing_asks_first(cli: Cli, gguf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("estimator", "install", gguf, "--no-measure")
    done = cli("estimator", "remove", "tiny-qwen3")
    assert (done.code, "give --yes" in done.complaint) == (2, True)
    monkeypatch.setattr("scope_edge.cli.format.is_terminal", lambda stream: True)
    done = cli("estimator", "remove", "tiny-qwen3", input="n\n")
    assert (done.code, done.out) == (0, "tiny-qwen3 was not deleted\n")
    assert cli("estimator", "remove", "tiny-qwen3", input="").code == 130
    assert cli("estimator", "remove", "tiny-qwen3", input="y\n").code == 0
    done = cli("estimator", "remove", "tiny-qwen3")
    assert (done.code, "no estimator 'tiny-qwen3' is installed" in done.complaint) == (2, True)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("install", "nowhere.gguf"), 2, "no such file or folder"),
        (("install", "{text}"), 5, "not a GGUF"),
        (("install", "{gguf}", "--quant", "Q3"), 2, "--quant"),
        (("install", "{gguf}", "--mode", "loud"), 2, "--mode"),
        (("install", "{gguf}", "--name", "A B"), 2, "an estimator's name is"),
        (("install", "{gguf}", "--card", "{text}"), 2, "no prompt template found"),
        (("install", "Cooolder/SCOPE"), 2, "offline is set by SCOPE_EDGE_OFFLINE"),
        (("anchors", "Cooolder/SCOPE-60K-final"), 2, "offline is set by SCOPE_EDGE_OFFLINE"),
        (("info",), 2, "no estimator is installed"),
        (("info", "x"), 2, "no estimator 'x' is installed"),
        (("remove", "../x", "--yes"), 2, "no estimator '../x'"),
        (("anchors", "nowhere"), 2, "no such folder"),
    ],
)
def test_what_cannot_be_is_one_line_and_a_documented_code(
    cli: Cli, gguf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.setenv("SCOPE_EDGE_OFFLINE", "1")
    text = tmp_path / "text"
    text.write_text("hello there, what a nice day it is")
    done = cli("estimator", *(arg.format(text=text, gguf=gguf) for arg in args))
    assert (done.code, done.out) == (code, "")
    assert said in done.complaint


def test_an_estimator_that_does_not_run_here_is_installed_all_the_same(
    cli: Cli, gguf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOPE_EDGE_WORKER", "false")
    done = cli("estimator", "install", gguf)
    assert done.code == 0
    assert "it was installed, but does not run on this machine now" in done.err
    assert "not measured" in done.out


def test_without_a_terminal_no_progress_is_printed(gguf: str, tmp_path: Path) -> None:
    done = spawn(["estimator", "install", gguf, "--no-measure"], user(tmp_path))
    assert done.code == 0
    assert "\r" not in done.err + done.out
    assert len(done.err.splitlines()) == 1


def test_a_terminal_shows_progress_on_standard_error_and_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from scope_edge.cli import output

    written: list[str] = []

    class Terminal:
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

        def flush(self) -> None: ...

    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr(output, "time", SimpleNamespace(monotonic=itertools.count(0.0, 0.001).__next__))
    with output.ProgressLine() as show:
        for done in range(1000):
            show("downloading x\nand \x1b[31m", done, 1000)
        show("downloading x\nand \x1b[31m", 1000, 1000)
    assert written[-1] == "\r\033[K"
    assert "100 %" in written[-2]
    assert len(written) < 20
    assert not any("\n" in text or "[31m" in text.replace("\\x1b[31m", "") for text in written)


def test_a_group_asked_for_nothing_shows_its_help(cli: Cli) -> None:
    for group in ("estimator", "pool", "models"):
        done = cli(group)
        assert (done.code, done.err) == (2, "")
        assert done.out.startswith(f"Usage: scope-edge {group}")


def test_names_are_completed(cli: Cli, gguf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("estimator", "install", gguf, "--no-measure")
    words = {"_SCOPE_EDGE_COMPLETE": "bash_complete", "COMP_WORDS": "scope-edge estimator info ti", "COMP_CWORD": "3"}
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    assert "tiny-qwen3" in cli("estimator").out


def test_json_is_one_line_of_ascii(cli: Cli, gguf: str) -> None:
    cli("estimator", "install", gguf, "--no-measure")
    out = cli("estimator", "info", "--json").out
    assert out.isascii()
    assert out.count("\n") == 1
    assert json.loads(out)["name"] == "tiny-qwen3"


@pytest.mark.parametrize("source", ["", "  ", "x" * 5000, "~nobody-of-this-name/x.gguf"])
def test_a_source_that_is_none_is_one_line(cli: Cli, source: str) -> None:
    done = cli("estimator", "install", source)
    assert done.code == 2
    assert done.complaint.count("\n") <= 1 and len(done.complaint) < 300


def test_numbers_of_a_manifest_that_cannot_be_are_damage(cli: Cli, gguf: str) -> None:
    cli("estimator", "install", gguf, "--name", "one", "--no-measure")
    manifest = Path(next(cli.folder.rglob("one/manifest.toml")))
    manifest.write_text(manifest.read_text("utf-8").replace("samples = 8", "samples = -1"), "utf-8")
    assert "samples cannot be -1" in cli("estimator", "list").complaint


def test_weights_that_are_gone_leave_the_next_newest_in_use(cli: Cli, gguf: str) -> None:
    for name in ("first", "second"):
        cli("estimator", "install", gguf, "--name", name, "--no-measure")
    next(cli.folder.rglob("second/model.gguf")).unlink()
    assert "second/model.gguf" in cli("estimator", "list").complaint
    assert cli("estimator", "info").out.startswith("first\n")
