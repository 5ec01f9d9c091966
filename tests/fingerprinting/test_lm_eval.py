"""Importing sample logs of lm-evaluation-harness, as its --log_samples writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_cases import Cli
from importing_cases import CLAUDE, LLAMA, known

from scope_edge.estimation.fingerprints import load_anchor_sets
from scope_edge.fingerprinting.importing.lm_eval import task_of

LOG = "samples_sums_of_ours_2026-01-31T10-11-12.123456.jsonl"


def generated(i: int, **fields: Any) -> dict[str, Any]:
    answer = f"Three and {i} make {i + 3}, so the answer is {i + 3}."
    return {
        "doc_id": i,
        "doc": {"question": f"What are three and {i}?", "answer": str(i + 3)},
        "target": str(i + 3),
        "arguments": {"gen_args_0": {"arg_0": f"Q: What is one and one?\nA: 2\nQ: What are three and {i}?\nA:"}},
        "doc_hash": "0" * 64,
        "prompt_hash": "1" * 64,
        "target_hash": "2" * 64,
        "resps": [[answer]],
        "filtered_resps": [str(i + 3)],
        "filter": "strict-match",
        "metrics": ["exact_match"],
        "exact_match": float(i % 2),
        **fields,
    }


def chosen(i: int) -> dict[str, Any]:
    return {
        "doc_id": i,
        "doc": {"query": f"Which of these is {i}?", "choices": ["zero", "one", "two"]},
        "target": i,
        "arguments": {f"gen_args_{k}": {"arg_0": f"Which of these is {i}?", "arg_1": f" {k}"} for k in range(2)},
        "resps": [[["-1.5", "False"]], [["-0.5", "True"]]],
        "filtered_resps": [["-1.5", "False"], ["-0.5", "True"]],
        "acc": 1.0,
        "acc_norm": 0.0,
    }


def log(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def test_a_log_becomes_a_fingerprint_and_further_models_join(cli: Cli, tmp_path: Path) -> None:
    rows = [generated(i) for i in range(4)] + [generated(i, filter="flexible-extract", exact_match=1) for i in range(4)]
    done = cli("import", log(tmp_path / LOG, *rows), "--model", "meta-llama/Llama-3.1-8B-Instruct")
    assert (done.code, done.err) == (0, "")
    assert "anchor set sums_of_ours, 4 anchors; 4 outcomes of 1 model" in done.out
    assert "4 lines of other filters than strict-match" in done.out
    cells = known(LLAMA, "sums_of_ours")
    assert [correct for correct, _ in cells.values()] == [0, 1, 0, 1]
    assert all(tokens is not None and 10 < tokens < 30 for _, tokens in cells.values())
    assert load_anchor_sets()[-1].texts[2] == "What are three and 2?", "the question, without the examples"
    again = cli(
        "import",
        log(tmp_path / LOG, *(generated(i, exact_match=None) for i in (3, 2, 1)), generated(0)),
        "--model",
        CLAUDE,
    )
    assert again.code == 0 and "joined to sums_of_ours" in again.out and "3 missing" in again.out
    assert known(CLAUDE, "sums_of_ours")["sums_of_ours/0"][0] == 0


def test_likelihoods_have_choices_and_no_tokens(cli: Cli, tmp_path: Path) -> None:
    assert cli("import", log(tmp_path / "samples_pick.jsonl", chosen(0), chosen(1)), "--model", LLAMA).code == 0
    assert known(LLAMA, "pick") == {"pick/0": (1.0, None), "pick/1": (1.0, None)}, "acc goes before acc_norm"
    assert load_anchor_sets()[-1].texts[1] == "Which of these is 1?\nzero\none\ntwo"


def test_without_a_question_in_the_document_the_request_is_the_text(cli: Cli, tmp_path: Path) -> None:
    assert cli("import", log(tmp_path / LOG, generated(7, doc={"a": 1})), "--model", LLAMA).code == 0
    assert load_anchor_sets()[-1].texts[0].startswith("Q: What is one and one?")


def unnamed(row: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """As early releases logged it: no filter, no names of metrics, requests as lists."""
    old = {key: value for key, value in row.items() if key not in ("filter", "metrics", "doc_hash")}
    return {**old, "arguments": [["Q: one?\nA:", {"until": ["\n\n"]}]], **fields}


def test_the_first_releases_wrote_a_list_and_no_filters(cli: Cli, tmp_path: Path) -> None:
    rows = [unnamed(generated(i)) for i in range(3)] + [unnamed(generated(i), exact_match=0.5) for i in range(3)]
    path = tmp_path / "pretrained__ours_sums.jsonl"
    path.write_text(json.dumps(rows, indent=2), "utf-8")
    done = cli("import", str(path), "--model", LLAMA, "--name", "sums")
    assert (done.code, done.err) == (0, "")
    assert "3 lines of other filters than the first" in done.out
    assert [correct for correct, _ in known(LLAMA, "sums").values()] == [0, 1, 0], "readings are not averaged"
    path.write_text("[" + json.dumps(rows[0]) + ", 7]", "utf-8")
    assert "sample 2: expected an object" in cli("import", str(path), "--model", LLAMA, "--name", "other").complaint


def test_repeated_answers_are_one_line_with_one_outcome(cli: Cli, tmp_path: Path) -> None:
    row = generated(1, resps=[["Four.", "It is four, I think.", "4"]], filter="maj@3")
    assert cli("import", log(tmp_path / LOG, row), "--model", LLAMA).code == 0
    ((correct, tokens),) = known(LLAMA, "sums_of_ours").values()
    assert correct == 1 and tokens is not None and tokens < 5, "as long as one answer"


def test_likelihoods_of_early_logs_are_numbers(cli: Cli, tmp_path: Path) -> None:
    row = unnamed(chosen(1), resps=[[[-1.5, False]], [[-0.5, True]]])
    assert cli("import", log(tmp_path / "samples_pick.jsonl", row), "--model", LLAMA).code == 0
    assert known(LLAMA, "pick") == {"pick/1": (1.0, None)}


@pytest.mark.parametrize(
    ("doc", "text"),
    [
        ({"question": "Is it?", "passage": "It is.", "label": 1}, "It is.\nIs it?"),
        ({"question": "Which?", "options": ["this", "that"], "answer_index": 0}, "Which?\nthis\nthat"),
        ({"Question": "Whose?", "Correct Answer": "theirs"}, "Whose?"),
        ({"question": "Which?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}}, "Which?\nx\ny"),
        ({"key": 7, "prompt": "Write three words.", "kwargs": [{}]}, "Write three words."),
        ({"goal": "To boil an egg", "sol1": "a", "sol2": "b"}, "Be brief.\nHow is an egg boiled?"),
    ],
)
def test_where_tasks_keep_their_question(cli: Cli, tmp_path: Path, doc: dict[str, Any], text: str) -> None:
    chat = json.dumps(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How is an egg boiled?"}]
    )
    row = generated(0, doc=doc, arguments={"gen_args_0": {"arg_0": [chat], "arg_1": {"until": []}}})
    assert cli("import", log(tmp_path / LOG, row), "--model", LLAMA).code == 0
    assert load_anchor_sets()[-1].texts == (text,)


def test_the_results_file_of_the_same_run_says_whose_answers_these_are(cli: Cli, tmp_path: Path) -> None:
    path = log(tmp_path / LOG, generated(1))
    results = tmp_path / "results_2026-01-31T10-11-12.123456.json"
    for unusable in ("{", "[1]", '{"model_name": ""}'):
        results.write_text(unusable, "utf-8")
        assert cli("import", path).code == 2
    results.write_text(json.dumps({"results": {}, "model_name": "meta-llama/Llama-3.1-8B-Instruct"}), "utf-8")
    assert cli("import", path).code == 0
    assert len(known(LLAMA, "sums_of_ours")) == 1


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([generated(0), [1]], "line 2: expected an object"),
        ([{"doc_id": 0, "doc": {}, "bleu": 3, "metrics": ["bleu", "ter"]}], "line 1: has none of the metrics"),
        ([generated(0, exact_match=3)], "line 1: exact_match is 3"),
        ([generated(0), generated(0, doc={"question": "Another?"})], "line 2: doc_id 0 stands for two questions"),
        ([generated(0, doc={}, arguments=[])], "has no sample"),
    ],
)
def test_what_is_no_log_is_named(cli: Cli, tmp_path: Path, rows: list[object], complaint: str) -> None:
    done = cli("import", log(tmp_path / LOG, *rows), "--model", LLAMA)
    assert done.code == 5 and complaint in done.complaint


def test_whose_answers_these_are_must_be_said(cli: Cli, tmp_path: Path) -> None:
    done = cli("import", log(tmp_path / LOG, generated(0)))
    assert done.code == 2 and "--model" in done.complaint
    assert cli("import", str(tmp_path), "--format", "lm-eval", "--model", LLAMA).code == 5
    (tmp_path / "other.jsonl").write_text("{]\n", "utf-8")
    assert "unknown format" in cli("import", str(tmp_path / "other.jsonl")).complaint


def test_the_task_is_read_from_the_name() -> None:
    assert task_of(Path(LOG)) == "sums_of_ours"
    assert task_of(Path("samples_mmlu_law.jsonl")) == "mmlu_law"
