"""`scope-edge models` and `scope-edge pool`: what is known is shown as known, what is changed is changed in the user's file."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from cli_cases import QUERY, Cli
from repository import DOCS

from scope_edge.types import ModelCard

OWN = """
[models.mine]
where = "device"
usd_in = 0
usd_out = 0
parameters_b = 3.5

[models.unpriced]
where = "cloud"
"""


def test_the_list_has_every_card_bundled_and_own(cli: Cli) -> None:
    cards = cli("models", "list", "--json", settings=OWN).json
    shown = cli("models", "list").out.splitlines()[1:]
    assert [line.split()[0] for line in shown] == [card["id"] for card in cards]
    assert {"mine", "gemma-3-4b-it", "gpt-4o"} <= {card["id"] for card in cards}


def test_a_price_that_is_not_known_is_a_question_mark_and_one_of_nothing_is_0(cli: Cli) -> None:
    shown = cli("models", "list", settings=OWN).out.splitlines()
    rows = {line.split()[0]: line.split() for line in shown}
    assert rows["mine"][:4] == ["mine", "device", "0", "0"]
    assert rows["unpriced"][:4] == ["unpriced", "cloud", "?", "?"]
    assert "unknown (never taken as free)" in cli("models", "show", "unpriced").out


def test_retired_models_and_fingerprints_are_told(cli: Cli) -> None:
    cards = {card["id"]: card for card in cli("models", "list", "--json", settings=OWN).json}
    assert cards["o1-mini-2024-09-12"]["retired"] is True and cards["gemma-3-4b-it"]["retired"] is False
    assert "shaberi_gpt41" in cards["gemma-3-4b-it"]["fingerprints"] and cards["mine"]["fingerprints"] == []
    row = next(line for line in cli("models", "list").out.splitlines() if line.startswith("o1-mini-2024-09-12 "))
    assert "retired" in row and "zeroeval" in row
    assert "counts as an average model" in cli("models", "show", "mine").out


def test_a_card_shows_what_it_says_and_where_its_price_is_from(cli: Cli) -> None:
    body = cli("models", "show", "llama-3.1-70b-instruct", "--json").json
    shown = cli("models", "show", "llama-3.1-70b-instruct").out
    assert body["price_source"] in shown and body["price_as_of"] in shown
    assert f"{body['context_tokens']:,} tokens" in shown and "open-2024" in body["pools"]


def test_the_json_of_a_card_is_documented(cli: Cli) -> None:
    section = (DOCS / "json.md").read_text("utf-8").split("## scope-edge models\n")[1].split("\n## ")[0]
    more = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert list(cli("models", "show", "gpt-4o", "--json").json) == [*(one.name for one in fields(ModelCard)), *more]


def test_an_unknown_model_names_the_nearest(cli: Cli) -> None:
    ended = cli("models", "show", "gpt4o")
    assert (ended.code, ended.out) == (2, "") and "gpt-4o" in ended.complaint


def test_pools_are_listed_with_the_active_one_marked(cli: Cli) -> None:
    body = cli("pool", "list", "--json").json
    assert body["active"] == "default"
    assert {pool["name"]: pool["active"] for pool in body["pools"]} == {
        "default": True,
        "device": False,
        "open-2024": False,
    }
    shown = cli("pool", "list").out
    assert re.search(r"^default  \(9 models, active\)$", shown, re.MULTILINE)
    assert re.search(r"^  claude-opus-4.8 +cloud$", shown, re.MULTILINE)


def test_a_pool_is_made_used_and_emptied(cli: Cli) -> None:
    assert cli("pool", "add", "gemma-3-4b-it", "--pool", "work", settings="# mine\nalpha = 1\n").code == 0
    assert (
        cli("pool", "add", "mistral-large-2407", "--pool", "work").out
        == "pool work: gemma-3-4b-it, mistral-large-2407\n"
    )
    assert cli("pool", "use", "work").code == 0
    assert cli("route", QUERY, "--quiet").out == "mistral-large-2407\n"
    # The active pool is the one that is meant when none is named.
    assert cli("pool", "remove", "mistral-large-2407").out == "pool work: gemma-3-4b-it\n"
    assert cli("route", QUERY, "--quiet").out == "gemma-3-4b-it\n"
    assert (cli.folder / "config.toml").read_text().startswith("# mine\nalpha = 1\n")
    assert cli("pool", "remove", "gemma-3-4b-it").code == 0
    ended = cli("route", QUERY)
    assert ended.code == 2 and "pool add MODEL --pool work" in ended.complaint


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["use", "defualt"], "default"),
        (["add", "gpt-9", "--pool", "work"], "gpt-9"),
        (["add", "gemma-3-4b-it"], "already"),
        (["remove", "gpt-4o"], "not in pool default"),
        (["remove", "gpt-4o", "--pool", "nope"], "nope"),
    ],
)
def test_a_change_that_makes_no_sense_changes_nothing(cli: Cli, args: list[str], said: str) -> None:
    ended = cli("pool", *args)
    assert ended.code == 2 and said in ended.complaint
    assert not (cli.folder / "config.toml").exists()


def test_where_the_active_pool_is_a_list_a_change_needs_a_name(cli: Cli) -> None:
    ended = cli("pool", "add", "gpt-4o", settings='pool = "gemma-3-4b-it,mistral-large-2407"\n')
    assert ended.code == 2 and "--pool NAME" in ended.complaint
    assert "active: gemma-3-4b-it,mistral-large-2407" in cli("pool", "list").out


def test_a_variable_that_overrules_the_file_is_pointed_out(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOPE_EDGE_POOL", "default")
    ended = cli("pool", "use", "device")
    assert ended.code == 0 and "SCOPE_EDGE_POOL" in ended.complaint


def test_retired_models_in_a_pool_are_marked_by_route(cli: Cli) -> None:
    ended = cli("route", QUERY, "--pool", "o1-mini-2024-09-12,gemma-3-4b-it")
    assert "retired, may no longer answer: o1-mini-2024-09-12" in ended.out
