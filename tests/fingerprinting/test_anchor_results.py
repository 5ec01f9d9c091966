"""Importing anchor_results.json, as the paper's reference implementation writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_cases import Cli
from importing_cases import CLAUDE, LLAMA, folder, known, question
from paper_cases import jsonl, table


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    made = Cli(tmp_path, monkeypatch, capsys)
    assert made("import", str(folder(tmp_path / "mine", [f"q{i},{CLAUDE},1,,," for i in range(8)]))).code == 0
    return made


def results(path: Path, *rows: Any) -> str:
    path.mkdir(parents=True, exist_ok=True)
    (path / "anchor_results.json").write_text(json.dumps(rows), "utf-8")
    return str(path)


def row(i: int, correct: object = True, tokens: object = 100, **fields: Any) -> dict[str, Any]:
    return {"id": f"q{i}", "is_correct": correct, "usage": {"completion_tokens": tokens}, **fields}


def test_a_new_model_joins_the_anchors_that_are_here(cli: Cli, tmp_path: Path) -> None:
    rows = [row(0), row(1, False, 50), row(2, False, 0), row(3, None), row(4, usage=None), row(70)]
    rows += [row(5, prompt=question(5)["text"]), row(6, prompt="Another text?")]
    done = cli("import", results(tmp_path / "meta-llama_Llama-3.1-8B-Instruct", *rows))
    assert (done.code, done.err) == (0, "")
    assert "joined to mine, 8 anchors; 4 outcomes of 1 model, 4 missing" in done.out
    for reason in ("1 outcomes of unknown anchors", "1 outcomes of anchors with another text", "2 outcomes that say"):
        assert reason in done.out
    cells = known(LLAMA)
    assert [cells[f"mine/q{i}"][0] for i in range(8)] == [1, 0, None, None, 1, 1, None, None]
    tokens = cells["mine/q0"][1], cells["mine/q1"][1]
    assert tokens[0] is not None and tokens[1] is not None and tokens[0] == pytest.approx(2 * tokens[1], rel=1e-3)


def test_what_is_here_stays_unless_it_is_to_be_replaced(cli: Cli, tmp_path: Path) -> None:
    path = results(tmp_path / "any", row(0, False))
    refused = cli("import", path, "--model", CLAUDE)
    assert refused.code == 2 and "--replace" in refused.complaint
    assert cli("import", path, "--model", CLAUDE, "--replace").code == 0
    assert known(CLAUDE)["mine/q0"][0] == 0 and known(CLAUDE)["mine/q1"][0] is None
    assert "here already" in cli("import", path, "--model", CLAUDE).out


def test_which_set_is_meant_must_be_said_where_ids_fit_several(cli: Cli, tmp_path: Path) -> None:
    assert cli("import", str(tmp_path / "mine"), "--name", "other").code == 0
    path = results(tmp_path / "new", row(0))
    assert "mine, other have such anchors" in cli("import", path, "--model", LLAMA).complaint
    assert cli("import", path, "--model", LLAMA, "--name", "other").code == 0
    assert known(LLAMA, "other")["other/q0"][0] == 1


@pytest.mark.parametrize(
    ("rows", "code", "complaint"),
    [
        ([row(99)], 2, "its anchors are not here"),
        ([row(0, "maybe")], 5, "row 1: is_correct is 'maybe'"),
        ([row(0, tokens="many")], 5, "row 1: completion_tokens is 'many'"),
        ([row(0, None)], 5, "has no outcome on the anchors of mine"),
        ([{"is_correct": True}], 5, "expected a list of objects with id"),
    ],
)
def test_what_makes_no_sense_is_named(cli: Cli, tmp_path: Path, rows: list[Any], code: int, complaint: str) -> None:
    done = cli("import", results(tmp_path / "new", *rows))
    assert done.code == code and complaint in done.complaint


def test_a_file_that_is_no_json_is_named(cli: Cli, tmp_path: Path) -> None:
    path = Path(results(tmp_path / "new")) / "anchor_results.json"
    path.write_text("[{", "utf-8")
    assert "cannot be read" in cli("import", str(path)).complaint


def test_outcomes_that_came_with_other_models_are_not_shadowed(cli: Cli, tmp_path: Path) -> None:
    # One pack holds them all; which of two packs counts would hang on their names.
    jsonl(tmp_path / "paper" / "anchor.jsonl", table(CLAUDE, "vendor/other"))
    assert cli("estimator", "anchors", str(tmp_path / "paper")).code == 0
    path = results(tmp_path / "vendor_new", {"id": 0, "is_correct": False})
    refused = cli("import", path, "--model", CLAUDE, "--replace")
    assert refused.code == 2 and "came with other models'" in refused.complaint
    assert cli("import", path, "--model", LLAMA).code == 0
    assert known(LLAMA, "paper")["paper/0"] == (0, None)
    assert known(CLAUDE, "paper")["paper/0"][0] == 1
