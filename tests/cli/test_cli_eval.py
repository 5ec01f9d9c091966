"""`scope-edge eval` as a user meets it: what it prints, and one line for what makes no sense."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("sklearn")

from cli_cases import Cli, command, user
from labelled_cases import labelled

pytestmark = pytest.mark.usefixtures("short_live")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return labelled(150).write(tmp_path / "made")


def test_it_prints_what_the_router_is_worth(cli: Cli, made: Path) -> None:
    ended = cli("eval", "--data", str(made), "--seeds", "1")
    assert (ended.code, ended.err) == (0, "")
    for part in (
        "Predictions for models that the bank did not learn from",
        "logreg",
        "Ahead?",
        "Choices (4 models",
        "oracle",
    ):
        assert part in ended.out
    assert "alpha 0.5" in ended.out and "What `tune` forecast, and the result" in ended.out


def test_the_json_is_one_object_and_the_same_every_time(cli: Cli, made: Path) -> None:
    first, second = (
        cli("eval", "--data", str(made), "--seeds", "1", "--baselines", "none", "--json") for _ in range(2)
    )
    assert first.code == 0
    bodies = [ended.json for ended in (first, second)]
    for body in bodies:
        for timed in ("seconds", "latency_ms"):
            assert body.pop(timed)
    assert bodies[0] == bodies[1]
    assert list(bodies[0]["prediction"]) == ["scope-edge"]


def test_pictures_are_written_beside(cli: Cli, made: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ended = cli(
        "eval", "--data", str(made), "--seeds", "1", "--baselines", "none", "--plots", str(tmp_path / "pictures")
    )
    assert ended.code == 0
    page = (tmp_path / "pictures" / "index.html").read_text("utf-8")
    assert "<img" in page and "http-equiv" not in page
    assert "index.html" in ended.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--alphas", "1:0:0.1"], "--alphas must be FROM:TO:STEP"),
        (["--alphas", "0:2:0.5"], "--alphas must be a number from 0"),
        (["--alphas", "0:1:0"], "--alphas must be FROM:TO:STEP"),
        (["--test", ".", "--seeds", "3"], "leave --seeds out"),
        (["--seeds", "0"], "--seeds must be from 1 to 100"),
        (["--seeds", "1,1"], "--seeds must be different numbers"),
        (["--seeds", "many"], "--seeds must be a number of splits"),
        (["--baselines", "knn,magic"], "no router 'magic'"),
        (
            ["--unseen-models", "nobody"],
            "nobody is no pool, and a model without an outcome in the data; its models are ",
        ),
        (["--unseen-models", ","], "--unseen-models names no model"),
        (["--pool", "gemma-2-2b-it,nobody"], "nobody is no pool, and a model without an outcome"),
        (["--anchors", "2"], "--anchors"),
        (["--data", "nowhere"], "'nowhere' does not exist"),
        (["--prices", "nothing.toml"], "'nothing.toml' does not exist"),
    ],
)
def test_what_makes_no_sense_is_one_line(cli: Cli, made: Path, options: list[str], said: str) -> None:
    ended = cli("eval", "--data", str(made), *options)
    assert ended.code == 2 and ended.out == ""
    assert said in ended.complaint


def test_a_folder_without_queries_is_said_to_be_one(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = cli("eval", "--data", str(tmp_path / "empty"))
    assert ended.code == 2
    assert "no labelled queries there" in ended.complaint


def test_prices_that_are_none_are_refused(cli: Cli, made: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    for text, said in (
        ("", "no prices there"),
        ('[models."gemma-2-2b-it"]\nusd_in = -1\nusd_out = 0\n', "usd_in"),
        ("[models\n", "not valid TOML"),
    ):
        prices.write_text(text)
        ended = cli("eval", "--data", str(made), "--prices", str(prices))
        assert ended.code == 2
        assert said in ended.complaint and "prices.toml" in ended.complaint


def test_damaged_data_is_one_line_that_names_the_file(cli: Cli, made: Path) -> None:
    whole = (made / "outcomes.csv.gz").read_bytes()
    (made / "outcomes.csv.gz").write_bytes(whole[: len(whole) // 2])
    ended = cli("eval", "--data", str(made))
    assert ended.code == 5
    assert "outcomes.csv.gz" in ended.complaint


def test_a_test_folder_of_known_queries_scores_nothing(cli: Cli, made: Path) -> None:
    ended = cli("eval", "--data", str(made), "--test", str(made))
    assert ended.code == 2
    assert "nothing could be scored" in ended.complaint


def test_a_test_query_with_another_text_is_refused(cli: Cli, made: Path, tmp_path: Path) -> None:
    other = labelled(150).write(tmp_path / "other")
    with gzip.open(other / "queries.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    rows[0]["text"] = "Something else altogether?"
    with gzip.open(other / "queries.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    ended = cli("eval", "--data", str(made), "--test", str(other))
    assert ended.code == 2
    assert "has another text" in ended.complaint


def test_without_scikit_learn_it_names_the_extra(made: Path, tmp_path: Path) -> None:
    """In a process where neither library can be imported."""
    import subprocess

    env = user(tmp_path / "home")
    blocked = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name.split('.')[0] in ('sklearn', 'scipy') else real(name, *a)\n"
        f"sys.argv = {['scope-edge', 'eval', '--data', str(made)]!r}\n"
        "from scope_edge.cli import main; main()"
    )
    done = subprocess.run([*command()[:1], "-c", blocked], env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'scope-edge[eval]'" in done.stderr
