"""`scope-edge route`: what is asked is what is decided, printed for people or as documented JSON, with its exit code."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import get_args

import click
import pytest
from cli_cases import QUERY, Cli, Ended, command, spawn, user, without_timings
from repository import DOCS

from scope_edge.settings.config import EstimatorChoice, IndexName, Settings
from scope_edge.types import Fallback, PolicyName


def documented(heading: str) -> list[str]:
    """The keys of one table of docs/json.md, in order."""
    section = re.split(rf"^#+ {heading}$", (DOCS / "json.md").read_text("utf-8"), flags=re.MULTILINE)[1]
    return re.findall(r"^\| `(\w+)` \|", re.split(r"^#", section, flags=re.MULTILINE)[0], re.MULTILINE)


def test_the_table_starts_with_the_choice_and_lists_every_model_of_the_pool(cli: Cli) -> None:
    chosen = cli("route", QUERY, "--json").json
    shown = cli("route", QUERY)
    assert shown.code == 0 and shown.err == ""
    assert shown.out.startswith(f"{chosen['choice']}, ")
    rows = re.findall(r"^([> ]) (\S+)  +(?:device|cloud)", shown.out, re.MULTILINE)
    assert [model for _, model in rows] == [candidate["model"] for candidate in chosen["candidates"]]
    assert [model for mark, model in rows if mark == ">"] == [chosen["choice"]]


def test_quiet_prints_the_model_id_alone(cli: Cli) -> None:
    quiet = cli("route", QUERY, "--quiet")
    assert quiet == Ended(0, cli("route", QUERY, "--json").json["choice"] + "\n", "")


def test_json_has_the_documented_keys_in_the_documented_order(cli: Cli) -> None:
    body = cli("route", QUERY, "--json", "--alpha", "0.3").json
    assert ["id", *body] == documented("A decision")
    assert list(body["estimator"]) == documented("estimator")
    assert list(body["candidates"][0]) == documented("candidates")
    assert list(body["neighbors"][0]) == documented("neighbors")
    assert list(body["flip_alpha"]) == ["below", "above"]
    flips = [flip for flip in body["flip_alpha"].values() if flip is not None]
    assert flips and all(list(flip) == documented("flip_alpha") for flip in flips)
    infeasible = cli("route", QUERY, "--json", "--max-tokens", "0").json
    assert list(infeasible["bound"]) == documented("bound")


def test_standard_input_a_file_and_an_argument_are_the_same_query(cli: Cli) -> None:
    (cli.folder / "question.txt").write_bytes(b"\xef\xbb\xbf" + QUERY.encode() + b"\r\n")
    ways = [
        cli("route", "--json", QUERY),
        cli("route", "--json", "-", input=QUERY + "\n"),
        cli("route", "--json", "--file", str(cli.folder / "question.txt")),
        cli("route", "--json", "--file", "-", input=QUERY),
    ]
    assert {way.code for way in ways} == {0}
    first, *others = (without_timings(way.json) for way in ways)
    assert all(other == first for other in others)


def test_a_text_that_begins_with_a_dash_goes_after_two_dashes(cli: Cli) -> None:
    assert cli("route", "--quiet", "--", "-5 + 3 = ?").code == 0


def test_a_system_prompt_costs_tokens_and_does_not_change_what_is_asked(cli: Cli) -> None:
    bare, with_system = (
        cli("route", QUERY, "--json", *more).json["candidates"]
        for more in ([], ["--system", "Answer in rhymes. " * 50])
    )
    before = {one["model"]: one for one in bare}
    for one in with_system:
        assert one["p_correct"] == before[one["model"]]["p_correct"]
        assert one["prompt_tokens"] > before[one["model"]]["prompt_tokens"] + 100


@pytest.mark.parametrize("limit", ["tokens", "usd"])
def test_nothing_feasible_is_an_answer_and_the_limit_it_names_does(cli: Cli, limit: str) -> None:
    asked = ["route", QUERY, "--pool", "mistral-large-2407,llama-3.1-70b-instruct", f"--max-{limit}"]
    as_json = cli(*asked, "0", "--json")
    assert as_json.code == 3
    assert as_json.json["choice"] is None and as_json.json["feasible"] is False
    assert as_json.json["bound"]["limit"] == f"max_{limit}" and as_json.json["bound"]["value"] == 0
    shown = cli(*asked, "0")
    assert shown.code == 3 and shown.out.startswith("no choice: ")
    found = re.search(rf"--max-{limit} (\S+) is enough", shown.out)
    assert found is not None
    for enough in (found[1], repr(as_json.json["bound"]["needed"])):
        assert cli(*asked, enough, "--quiet").code == 0
    short = repr(as_json.json["bound"]["needed"] * 0.99) if limit == "usd" else str(int(float(found[1])) - 1)
    assert cli(*asked, short, "--quiet").code == 3


def test_quiet_says_on_standard_error_why_there_is_no_choice(cli: Cli) -> None:
    ended = cli("route", QUERY, "--quiet", "--max-tokens", "0")
    assert (ended.code, ended.out) == (3, "")
    assert "--max-tokens 0" in ended.complaint and "is enough" in ended.complaint


def test_a_fallback_makes_it_a_choice_that_says_it_is_over_the_budget(cli: Cli) -> None:
    ended = cli("route", QUERY, "--max-tokens", "0", "--fallback", "cheapest", "--json")
    assert ended.code == 0
    assert ended.json["over_budget"] is True and ended.json["choice"] is not None
    assert "over the budget" in cli("route", QUERY, "--max-tokens", "0", "--fallback", "cheapest").out


def test_local_only_chooses_on_the_device_whatever_alpha_says(cli: Cli) -> None:
    body = cli("route", QUERY, "--alpha", "1", "--local-only", "--json").json
    assert body["where"] == "device"
    assert {one["excluded_by"] for one in body["candidates"] if one["where"] == "cloud"} == {"local_only"}


def test_excluded_models_are_not_chosen_and_say_why(cli: Cli) -> None:
    first = cli("route", QUERY, "--json").json
    names = [one["model"] for one in first["candidates"]][:3]
    for given in (["--exclude", ",".join(names)], [word for name in names for word in ("--exclude", name)]):
        body = cli("route", QUERY, "--json", *given).json
        assert body["choice"] not in names
        assert {one["model"] for one in body["candidates"] if one["excluded_by"] == "exclude"} == set(names)


def test_an_excluded_model_outside_the_pool_is_fine_and_one_nobody_knows_is_not(cli: Cli) -> None:
    assert cli("route", QUERY, "--quiet", "--exclude", "gpt-4o").code == 0
    ended = cli("route", QUERY, "--quiet", "--exclude", "mistral-large-2408")
    assert ended.code == 2 and "mistral-large-2407" in ended.complaint


def test_a_pool_is_a_name_or_a_list_of_models(cli: Cli) -> None:
    body = cli("route", QUERY, "--json", "--pool", "gemma-3-4b-it,mistral-large-2407").json
    assert {one["model"] for one in body["candidates"]} == {"gemma-3-4b-it", "mistral-large-2407"}
    body = cli("route", QUERY, "--json", "--pool", "device").json
    assert {one["where"] for one in body["candidates"]} == {"device"}


def test_a_model_without_fingerprint_has_an_average_models_numbers_and_an_unknown_price_is_never_free(cli: Cli) -> None:
    ended = cli(
        "route",
        QUERY,
        "--pool",
        "stranger,gemma-3-4b-it",
        settings='[models.stranger]\nwhere = "cloud"\nload_seconds = 1\n',
    )
    row = next(line for line in ended.out.splitlines() if line.startswith("  stranger"))
    cells = row.split()
    assert cells[:2] == ["stranger", "cloud"] and cells[-3:] == ["?", "?", "none"]
    low, high = cells[3].strip("()").split("-")
    assert 0 < float(low) < float(cells[2]) < float(high) < 100 and float(high) - float(low) > 30


def test_an_option_wins_over_a_variable_and_that_over_the_file(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("route", QUERY, "--json", settings="alpha = 0.1\n").json["alpha"] == 0.1
    monkeypatch.setenv("SCOPE_EDGE_ALPHA", "0.2")
    assert cli("route", QUERY, "--json").json["alpha"] == 0.2
    assert cli("route", QUERY, "--json", "--alpha", "0.3").json["alpha"] == 0.3


def test_an_option_can_lift_what_the_file_demands(cli: Cli) -> None:
    assert cli("route", QUERY, "--json", "--alpha", "1", settings="local_only = true\n").json["where"] == "device"
    excluded = cli("route", QUERY, "--json", "--alpha", "1", "--no-local-only").json["candidates"]
    assert all(one["excluded_by"] is None for one in excluded)


def test_the_alphas_shown_choose_what_they_are_said_to(cli: Cli) -> None:
    shown = cli("route", QUERY, "--alpha", "0.5")
    flips = re.findall(r"alpha (\S+) would choose (\S+?)(?:,|$)", shown.out, re.MULTILINE)
    assert flips
    for alpha, model in flips:
        assert cli("route", QUERY, "--quiet", "--alpha", alpha).out == f"{model}\n"


def test_explain_shows_as_many_neighbors_as_asked_for_and_how_long_each_step_took(cli: Cli) -> None:
    ended = cli("route", QUERY, "--explain", "--top-k", "7")
    table = ended.out.split("nearest anchors\n")[1]
    assert len(re.findall(r"^ +0\.\d{3}  ", table, re.MULTILINE)) == 7
    assert re.search(r"^milliseconds: encode \S+, ", ended.out, re.MULTILINE)
    assert "lambda is" in ended.out


def test_the_papers_policy_decides_by_another_rule(cli: Cli) -> None:
    ours, theirs = (cli("route", QUERY, "--json", "--policy", name).json for name in get_args(PolicyName))
    assert (ours["policy"], theirs["policy"]) == ("scope-edge", "paper")
    assert {one["model"]: one["utility"] for one in ours["candidates"]} != {
        one["model"]: one["utility"] for one in theirs["candidates"]
    }
    assert "U = alpha p" in cli("route", QUERY, "--explain", "--policy", "paper").out


@pytest.mark.parametrize("index", get_args(IndexName))
def test_either_index_finds_the_same_nearest_anchor(cli: Cli, index: str) -> None:
    if index == "hnsw":
        pytest.importorskip("hnswlib")
    nearest = [cli("route", QUERY, "--json", "--index", one).json["neighbors"][0] for one in (index, "exact")]
    assert nearest[0]["anchor"] == nearest[1]["anchor"]


def test_help_tells_the_defaults_and_choices_that_hold() -> None:
    from scope_edge.cli.commands.route import command as route

    defaults = Settings()
    for parameter in route.params:
        if isinstance(parameter, click.Option) and (told := re.search(r"\[default: (.*)\]", parameter.help or "")):
            assert told[1] == str(getattr(defaults, parameter.name or ""))
    metavars = {parameter.name: parameter.metavar for parameter in route.params}
    for name, kind in (
        ("index", IndexName),
        ("policy", PolicyName),
        ("fallback", Fallback),
        ("estimator", EstimatorChoice),
    ):
        assert metavars[name] == f"[{'|'.join(get_args(kind))}]"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "nothing to route"),
        (["Why", "is", "it?"], "quotes"),
        (["Why?", "--file", "x"], "one of"),
        (["--jsonl", "x", "--file", "x"], "one of"),
        (["Why?", "--quiet", "--json"], "--json"),
        (["Why?", "--quiet", "--explain"], "--explain"),
        (["Why?", "--alpah", "1"], "--alpha"),
        (["--file", "not-there.txt"], "not-there.txt: cannot be read"),
        (["Why?", "--policy", "papr"], "did you mean paper?"),
        (["Why?", "--top-k", "0"], "--top-k must be"),
        (["Why?", "--top-k", "1.5"], "--top-k must be"),
        (["Why?", "--alpha", "1_0"], "--alpha must be"),
        (["Why?", "--alpha", ""], "--alpha must be"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(cli: Cli, args: list[str], said: str) -> None:
    ended = cli("route", *args)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.complaint


def test_a_mistyped_command_names_the_nearest(cli: Cli) -> None:
    ended = cli("rout", "Why?")
    assert ended.code == 2 and "did you mean route?" in ended.complaint


def test_nothing_asked_shows_the_help_and_fails(cli: Cli) -> None:
    ended = cli()
    assert ended.code == 2 and "Usage: scope-edge" in ended.out


def test_a_damaged_bundled_file_ends_with_5(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOPE_EDGE_ASSETS", str(tmp_path / "nowhere"))
    ended = cli("route", QUERY)
    assert (ended.code, ended.out) == (5, "") and "reinstall" in ended.complaint


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("variable", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_is_for_terminals_that_want_it(tmp_path: Path, variable: dict[str, str], coloured: bool) -> None:
    text = on_terminal({**user(tmp_path), "TERM": "xterm", "COLUMNS": "80", **variable}, "route", QUERY, "--explain")
    assert ("\x1b[" in text) is coloured
    assert "\x1b" not in spawn(["route", QUERY], user(tmp_path)).out


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    env = {**user(tmp_path), "TERM": "xterm", "COLUMNS": str(width)}
    text = click.unstyle(on_terminal(env, "route", QUERY, "--max-usd", "0.0002"))
    assert max(map(len, text.splitlines())) <= width
    assert len([line for line in text.splitlines() if line.startswith((">", "  "))]) >= 8


def on_terminal(env: dict[str, str], *args: str) -> str:
    """What a command prints on a terminal."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(command(*args), env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:
            # How Linux says that the other side has closed a terminal.
            break
        if not chunk:
            break
        printed += chunk
    os.close(ours)
    process.wait()
    return printed.decode().replace("\r\n", "\n")


def test_the_module_is_the_command(tmp_path: Path) -> None:
    import scope_edge

    assert spawn(["--version"], user(tmp_path)) == Ended(0, f"scope-edge {scope_edge.__version__}\n", "")


def test_a_bug_is_one_line_and_a_traceback_for_those_who_ask(tmp_path: Path) -> None:
    code = "import scope_edge.factory as a, scope_edge.cli as c\na.load_pipeline = lambda *_: 1 / 0\nc.main()"
    args = [sys.executable, "-c", code, "route", "Why?"]
    env = user(tmp_path)
    done = subprocess.run(args, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "ZeroDivisionError" in done.stderr and "SCOPE_EDGE_DEBUG=1" in done.stderr
    done = subprocess.run(args, env={**env, "SCOPE_EDGE_DEBUG": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_the_command(cli: Cli, shell: str) -> None:
    ended = cli("completion", shell)
    assert ended.code == 0
    assert f"_SCOPE_EDGE_COMPLETE={shell}_complete" in ended.out and "scope-edge" in ended.out


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("scope-edge route --pool def", ["default"]),
        ("scope-edge route --pool gemma-3-4b-it,mistral-la", ["gemma-3-4b-it,mistral-large-2407"]),
        ("scope-edge models show mistral-large-24", ["mistral-large-2407"]),
        ("scope-edge pool use dev", ["device"]),
        ("scope-edge route --policy p", ["paper"]),
        ("scope-edge doc", ["doctor"]),
    ],
)
def test_the_shell_completes(tmp_path: Path, typed: str, expected: list[str]) -> None:
    words = typed.split()
    asked = {"_SCOPE_EDGE_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    ended = spawn([], {**user(tmp_path), **asked})
    found = [line.partition(",")[2] for line in ended.out.splitlines()]
    assert [one for one in found if one in expected] == expected
    assert all(one.startswith(words[-1]) for one in found)


def test_the_reference_says_what_help_says() -> None:
    script = runpy.run_path(str(DOCS.parent / "build_scripts" / "cli_reference.py"))
    written = script["PAGE"].read_text("utf-8")
    assert script["page"](written) == written, "help has changed: run `python build_scripts/cli_reference.py`"
    assert written.count("\n## scope-edge") == 39


def test_once_a_model_can_be_called_only_such_models_are_chosen(cli: Cli) -> None:
    fresh = cli("route", QUERY, "--json").json["candidates"]
    assert all(one["excluded_by"] is None for one in fresh), "nothing can be called yet: the pool is for reference"
    mine = '[models."gemma-3-4b-it"]\nendpoint = "http://127.0.0.1:9/v1"\n'
    for alpha in ("0", "1"):
        body = cli("route", QUERY, "--json", "--alpha", alpha, settings=mine).json
        assert body["choice"] == "gemma-3-4b-it"
        assert {one["model"] for one in body["candidates"] if one["excluded_by"] is None} == {"gemma-3-4b-it"}
    lines = cli("route", "--jsonl", "-", input=json.dumps({"text": QUERY}) + "\n").out
    assert json.loads(lines)["choice"] == "gemma-3-4b-it"
    for one in ("gemma-3-4b-it,llama-3.1-405b-instruct", "llama-3.1-405b-instruct,gemma-3-4b-it"):
        assert cli("route", QUERY, "--json", "--alpha", "1", "--pool", one).json["choice"] == "gemma-3-4b-it"
    alone = cli("route", QUERY, "--json", "--pool", "llama-3.1-405b-instruct,llama-3.1-70b-instruct").json
    assert alone["choice"], "a pool of reference models alone is what was asked for"


def test_reference_models_are_not_what_the_user_excluded(cli: Cli) -> None:
    mine = '[models."gemma-3-4b-it"]\nendpoint = "http://127.0.0.1:9/v1"\n'
    pool = ("--pool", "gemma-3-4b-it,gpt-oss-120b,claude-opus-4.8")
    for chosen in ((), pool):
        body = cli("route", QUERY, "--json", "--exclude", "claude-opus-4.8", *chosen, settings=mine).json
        why = {one["model"]: one["excluded_by"] for one in body["candidates"]}
        assert why.pop("gemma-3-4b-it") is None and why.pop("claude-opus-4.8") == "exclude"
        assert set(why.values()) == {"reference"}
        # The card says nothing of its speed, so no limit in seconds can hold; that is not for want of models to choose from.
        slow = cli("route", QUERY, "--json", "--max-seconds", "5", *chosen)
        assert slow.code == 3 and slow.json["bound"]["limit"] == "max_seconds"
        said = cli("route", QUERY, "--max-seconds", "5", *chosen).out.splitlines()[0]
        assert "--max-seconds 5" in said and "exclude" not in said
    said = cli("route", QUERY, "--exclude", "gemma-3-4b-it", *pool).out
    assert "every model that could be chosen is excluded; exclude fewer" in said
    table = cli("route", QUERY, *pool).out
    assert "  reference" in table and "  excluded" not in table
