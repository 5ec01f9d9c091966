"""`scope-edge tune` and profiles: what it names can be used, what cannot be is one line, and the user's file stays theirs."""

from __future__ import annotations

import pytest
from cli_cases import QUERY, Cli


def test_the_table_covers_alpha_and_says_whose_queries_it_is_about(cli: Cli) -> None:
    ended = cli("tune", "--alphas", "0,0.5,1")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert "queries of the bank" in lines[0]
    assert [line.split()[0] for line in lines[2:7]] == ["alpha", "0", "0.5", "1", "alone"]


def test_rows_that_look_alike_are_one(cli: Cli) -> None:
    shown = cli("tune", "--pool", "gemma-2-2b-it").out
    assert "0 - 1" in shown


def test_a_wish_ends_in_a_profile_that_route_uses(cli: Cli) -> None:
    text = '# mine\nalpha = 0.9  # dear\n\n[pools]\nsmall = ["gemma-2-2b-it", "llama-3.1-70b-instruct"]\n'
    ended = cli(
        "tune",
        "--pool",
        "small",
        "--max-usd-per-1k",
        "0.05",
        "--max-tokens",
        "2000",
        "--save",
        "work",
        "--json",
        settings=text,
    )
    wish = ended.json["goal"]
    assert ended.code == 0 and wish["found"]["usd_per_1k"] <= 0.05
    file = (cli.folder / "config.toml").read_text()
    assert file.startswith(text), "what was there stays as it was"
    decision = cli("route", "--json", "--profile", "work", QUERY).json
    assert decision["alpha"] == wish["found"]["alpha"]
    assert {one["model"] for one in decision["candidates"]} == {"gemma-2-2b-it", "llama-3.1-70b-instruct"}
    (profile,) = cli("tune", "--list", "--json").json["profiles"]
    assert profile == {"name": "work", "active": False, "pool": "small", "max_tokens": 2000, "alpha": decision["alpha"]}
    assert cli("route", "--json", QUERY).json["alpha"] == 0.9


def test_saving_again_replaces_the_profile_and_nothing_else(cli: Cli) -> None:
    text = "[profiles.work]\n# as agreed\nalpha = 0.1\nmax_usd = 5\n\n[profiles.home]\nalpha = 0\n"
    assert cli("tune", "--save", "work", "--pool", "gemma-2-2b-it", settings=text).code == 0
    profiles = {one.pop("name"): one for one in cli("tune", "--list", "--json").json["profiles"]}
    assert profiles["work"] == {"active": False, "alpha": 0.5, "pool": "gemma-2-2b-it"}
    assert profiles["home"] == {"active": False, "alpha": 0.0}
    assert "# as agreed" in (cli.folder / "config.toml").read_text()


def test_a_wish_that_cannot_be_ends_with_3_names_the_nearest_and_writes_nothing(cli: Cli) -> None:
    ended = cli("tune", "--max-tokens-per-query", "1", "--save", "work")
    assert ended.code == 3
    assert "no alpha reaches that" in ended.out and "nearest: alpha" in ended.out and "the fewest" in ended.out
    assert "no profile was written" in ended.complaint
    assert not (cli.folder / "config.toml").exists()
    body = cli("tune", "--max-tokens-per-query", "1", "--json")
    assert body.code == 3 and body.json["goal"]["found"] is None and body.json["goal"]["missed"][0]["part"] == "tokens"


def test_a_model_to_match_need_not_be_in_the_pool(cli: Cli) -> None:
    ended = cli("tune", "--pool", "gemma-2-2b-it,qwen2.5-72b-instruct", "--match", "llama-3.1-70b-instruct", "--json")
    body = ended.json
    assert ended.code == 0
    assert body["pool"] == ["gemma-2-2b-it", "qwen2.5-72b-instruct"]
    assert body["goal"]["found"]["accuracy"] >= body["alone"]["llama-3.1-70b-instruct"]["accuracy"]
    assert "llama-3.1-70b-instruct" not in body["goal"]["found"]["portfolio"]


def test_limits_of_a_query_count(cli: Cli) -> None:
    free = cli("tune", "--alphas", "1", "--local-only", "--json").json["alphas"][0]
    assert free["usd_per_1k"] == 0 and free["device_share"] == 1
    tight = cli("tune", "--alphas", "1", "--max-tokens", "300", "--json").json["alphas"][0]
    assert 0 < tight["unserved"] < 1


def test_limits_that_nothing_keeps_to_are_named_as_the_reason(cli: Cli) -> None:
    ended = cli("tune", "--alphas", "1", "--max-tokens", "1", "--max-usd-per-1k", "5")
    assert ended.code == 3 and "no model keeps to the limits of a single query" in ended.out


def test_a_profile_with_a_blank_in_its_name_is_shown_as_it_must_be_typed(cli: Cli) -> None:
    ended = cli("tune", "--alphas", "1", "--pool", "gemma-2-2b-it", "--save", "my work")
    assert "--profile 'my work'" in " ".join(ended.out.split())
    assert cli("route", "--profile", "my work", "--quiet", QUERY).out == "gemma-2-2b-it\n"


def test_the_users_own_queries_need_no_labels(cli: Cli) -> None:
    lines = "What is 2 + 2?\n\n" + '{"text": "What is 3 * 17?", "system": "Be brief.", "id": 7}\n' + QUERY + "\n"
    body = cli("tune", "--queries", "-", "--json", "--alphas", "0,1", input=lines).json
    assert body["queries"] == {"from": "file", "n": 3, "near": 1.0, "more": False}
    assert "3 of your queries" in cli("tune", "--queries", "-", "--alphas", "0,1", input=lines).out


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (b"", "no query was read"),
        (b"fine\n\xff\n", "line 2: the line: not UTF-8"),
        (b'fine\n{"txet": "a"}\n', "line 2: 'txet' is not a key of a line; did you mean text?"),
        (b'{"id": 1}\n', 'line 1: a line needs a "text"'),
        (b'{"text": \n', "line 1: not JSON"),
    ],
)
def test_queries_that_cannot_be_read_are_one_line(cli: Cli, lines: bytes, words: str) -> None:
    ended = cli("tune", "--queries", "-", input=lines)
    assert ended.code == 2 and words in ended.complaint


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--within", "1"], "--match MODEL"),
        (["--match", "gpt4o"], "did you mean gpt-4o?"),
        (["--max-usd-per-1k", "lots"], "--max-usd-per-1k must be a finite number"),
        (["--alphas", "0:2:0.1"], "--alphas must be"),
        (["--save", " "], "profile's name"),
        (["--profile", "wrok"], "unknown profile 'wrok'; did you mean work?"),
        (["--pool", "nobody"], "nobody"),
    ],
)
def test_what_makes_no_sense_is_one_line(cli: Cli, args: list[str], words: str) -> None:
    ended = cli("tune", *args, settings="[profiles.work]\nalpha = 0.2\n")
    assert ended.code == 2 and words in ended.complaint


def test_a_pool_of_models_that_nobody_measured_is_told_how_to_measure_them(cli: Cli) -> None:
    ended = cli("tune", "--pool", "mine", settings='[models.mine]\nwhere = "device"\n')
    assert ended.code == 2 and "scope-edge fingerprint" in ended.complaint
