"""Importing outcomes measured elsewhere: what is known is kept, what is missing stays missing, what is wrong is named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from cli_cases import Cli
from importing_cases import CLAUDE, LLAMA, folder, known, question

from scope_edge.estimation.fingerprints import load_anchor_sets
from scope_edge.fingerprinting.importing import outcomes, routing_data
from scope_edge.storage.assets import user_data_dir


def test_a_folder_becomes_anchors_and_fingerprints(cli: Cli, tmp_path: Path) -> None:
    rows = [f"q{i},meta-llama/Meta-Llama-3.1-8B-Instruct,{i % 2},10,{20 + i}," for i in range(8)]
    rows += ["q0,someone/new,0.25,,,", "q0,someone/new,0.75,,,", "q1,someone/new,,,40,", "q2,someone/new,0,,0,"]
    rows += ["q9,someone/new,1,,,", "q3,someone/new,,,,"]
    source = folder(tmp_path / "mine", rows, [*(question(i) for i in range(8)), {"id": "q9", "text": "  "}])
    done = cli("import", str(source))
    assert done.code == 0
    assert "anchor set mine, 8 anchors; 9 outcomes of 2 models, 7 missing" in done.out
    assert f"with a card  {LLAMA}" in done.out and "without      someone/new" in done.out
    for reason in (
        "1 blank questions",
        "1 outcomes of unknown or blank questions",
        "2 outcomes that say nothing (missing)",
        "1 repeated outcomes, averaged",
    ):
        assert reason in done.out
    assert '[models."someone/new"]' in done.complaint
    assert known(LLAMA)["mine/q3"] == (1.0, 23.0)
    new = known("someone/new")
    assert new["mine/q0"] == (0.5, None), "shares are kept, repeated ones averaged"
    assert new["mine/q1"] == (None, 40.0), "tokens without a grade are tokens"
    assert new["mine/q2"] == (None, None), "an answer of no tokens was never given"
    anchors = load_anchor_sets()[-1]
    assert set(anchors.texts) == {question(i)["text"] for i in range(8)}
    assert set(anchors.categories) == {"mine/sums", "mine/words"}
    shown = cli("models", "show", LLAMA, "--json").json
    assert "mine" in shown["fingerprints"]


def test_what_was_imported_moves_the_estimate(cli: Cli, tmp_path: Path) -> None:
    settings = '[models."new"]\nwhere = "device"\n[pools]\nboth = ["new", "claude-3-haiku-20240307"]\n'
    wanted = ("route", "--pool", "both", "--json", question(3)["text"])
    before = {row["model"]: row for row in cli(*wanted, settings=settings).json["candidates"]}["new"]
    assert before["evidence"] == "none"
    shares = []
    for right in (0, 1):
        folder(tmp_path / "mine", [f"q{i},new,{right},10,50," for i in range(8)])
        assert cli("import", str(tmp_path / "mine")).code == 0
        shares.append({row["model"]: row for row in cli(*wanted).json["candidates"]}["new"]["p_correct"])
    assert shares[0] < shares[1], "imported again, it replaces the outcomes"


def test_the_limit_draws_evenly_from_categories_whatever_the_outcomes(cli: Cli, tmp_path: Path) -> None:
    found = []
    for number, apart in enumerate(({6, 3}, {0, 1, 2})):
        rows = [f"q{i},{CLAUDE},1,,," for i in range(8)] + [f"q{i},{LLAMA},{int(i not in apart)},,," for i in range(8)]
        where = folder(tmp_path / f"mine{number}", rows)
        done = cli("import", str(where), "--limit", "4")
        assert done.code == 0 and "4 questions beyond --limit" in done.out
        (made,) = (one for one in load_anchor_sets() if one.name == f"mine{number}")
        found.append({id.partition("/")[2] for id in made.ids})
        assert sorted(category.partition("/")[2] for category in made.categories) == ["sums", "sums", "words", "words"]
        told = [int(id[-1]) in apart for id in made.ids]
        assert told == sorted(told, reverse=True) or len(set(told)) == 1 or told[0], "what tells most comes first"
    assert found[0] == found[1]


def test_other_questions_do_not_slip_under_a_set_that_is_there(cli: Cli, tmp_path: Path) -> None:
    rows = [f"q0,{CLAUDE},1,,,"]
    assert cli("import", str(folder(tmp_path / "mine", rows))).code == 0
    again = cli("import", str(folder(tmp_path / "mine", rows, [question(0), question(1)])))
    assert again.code == 2 and "--name" in again.complaint
    assert len(known(CLAUDE)) == 8
    assert cli("import", str(tmp_path / "mine"), "--name", "other").code == 0
    assert len(known(CLAUDE, "other")) == 2


@pytest.mark.parametrize("name", ["core-250", "mmlu_pro", "..", "///"])
def test_a_name_that_is_a_bundled_ones_or_none_is_refused(cli: Cli, tmp_path: Path, name: str) -> None:
    source = folder(tmp_path / "mine", [f"q0,{CLAUDE},1,,,"])
    done = cli("import", str(source), "--name", name)
    assert done.code == 2 and "--name" in done.complaint


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("q0,m,2,,,", "row 1: correct is 2"),
        ("q0,m,maybe,,,", "row 1: correct is 'maybe'"),
        ("q0,m,1,,inf,", "row 1: completion_tokens is 'inf'"),
        ("q0,a model,1,,,", "row 1: model 'a model'"),
        ("q0,,1,,,", "row 1: model is ''"),
        ("q0,m", "row 1: has more or fewer cells"),
        ("q7000,m,1,,,", "has no outcome of these questions"),
    ],
)
def test_what_makes_no_sense_is_named_and_nothing_written(cli: Cli, tmp_path: Path, row: str, complaint: str) -> None:
    done = cli("import", str(folder(tmp_path / "mine", [row])))
    assert done.code == 5 and complaint in done.complaint
    assert not user_data_dir().exists()


def test_damaged_files_are_named(cli: Cli, tmp_path: Path) -> None:
    source = folder(tmp_path / "mine", [f"q0,{CLAUDE},1,,,"])
    assert cli("import", str(tmp_path / "nowhere")).code == 2
    assert "unknown format" in cli("import", str(tmp_path)).complaint
    whole = (source / "queries.jsonl.gz").read_bytes()
    twice = gzip.compress(b'{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n')
    for damaged in (whole[:-20], b"plain", gzip.compress(b"{]"), gzip.compress(b"[1]"), gzip.compress(b""), twice):
        (source / "queries.jsonl.gz").write_bytes(damaged)
        done = cli("import", str(source))
        assert done.code == 5 and "queries.jsonl.gz" in done.complaint
    (source / "queries.jsonl.gz").write_bytes(whole)
    (source / "outcomes.csv.gz").write_bytes(gzip.compress(b"query_id,model\nq0,m\n"))
    assert "has no column correct" in cli("import", str(source)).complaint
    (source / "outcomes.csv.gz").unlink()
    assert cli("import", str(source)).code == 5


def test_a_file_that_unpacks_to_too_much_is_refused(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path / "mine", [f"q0,{CLAUDE},1,,,"])
    (source / "queries.jsonl.gz").write_bytes(gzip.compress(b" " * (outcomes.MAX_LINE + 1)))
    assert "a line over" in cli("import", str(source)).complaint
    monkeypatch.setattr(routing_data, "MAX_QUERIES", 300)
    assert "over 300 in all" in cli("import", str(folder(source, [f"q0,{CLAUDE},1,,,"]))).complaint


@pytest.mark.parametrize("name", ["queries.jsonl", "queries.jsonl.gz"])
def test_a_byte_order_mark_is_no_part_of_a_data_file(tmp_path: Path, name: str) -> None:
    raw = b'\xef\xbb\xbf{"id": "1"}\n'
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    assert list(outcomes.lines_of(tmp_path / name, 1000)) == ['{"id": "1"}\n']


@pytest.mark.parametrize("field", ["id", "text", "category", "source"])
def test_half_a_character_in_a_data_file_becomes_a_mark(cli: Cli, tmp_path: Path, field: str) -> None:
    """json.loads reads the escape of a lone surrogate, which no file or text can hold."""
    questions = [question(0) | {field: "half an emoji \ud83d"}, *(question(i) for i in range(1, 8))]
    rows = [f"{questions[i]['id']},{LLAMA},{i % 2},10,20,".replace("\ud83d", "\ufffd") for i in range(8)]
    done = cli("import", str(folder(tmp_path / "mine", rows, questions)))
    assert (done.code, done.err) == (0, "")
    assert len(known(LLAMA)) == 8
