"""`models remove`, `models compare` and `anchors` as a user meets them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import Server, from_keys, serving
from cli_cases import QUERY, Cli
from repository import DOCS, documented

pytest.importorskip("httpx")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(from_keys(lambda spec: spec.tier < 3)) as made:
        yield made


def added(cli: Cli, server: Server, *ids: str, limit: int = 12) -> None:
    """Models of the server, added and measured."""
    for id in ids:
        assert cli("models", "add", server.address, "--served-as", id, "--where", "device").code == 0
        assert cli("fingerprint", id, "--limit", str(limit)).code == 0


def test_a_removed_model_leaves_the_pools_and_its_fingerprint_waits(cli: Cli, server: Server) -> None:
    added(cli, server, "mine")
    assert cli("pool", "add", "mine", "--pool", "work").code == 0
    unasked = cli("models", "remove", "mine")
    assert unasked.code == 2 and "--yes" in unasked.complaint
    done = cli("models", "remove", "mine", "--yes")
    assert done.code == 0 and "removed from pool default, work" in done.out
    assert "its fingerprint on core-250 is kept; `scope-edge anchors forget mine` deletes it" in done.out
    assert cli("models", "show", "mine").code == 2 and cli("route", QUERY).code == 0
    assert cli("models", "add", server.address, "--served-as", "mine", "--where", "device").code == 0
    row = {one["model"]: one for one in cli("route", "--json", QUERY).json["candidates"]}["mine"]
    assert row["evidence"] != "none", "added again, it is a candidate at once"


def test_with_its_fingerprints_nothing_of_it_is_left(cli: Cli, server: Server) -> None:
    added(cli, server, "mine")
    done = cli("models", "remove", "mine", "--fingerprints", "--yes")
    assert done.code == 0 and "1 fingerprint of 1 model deleted, on core-250" in done.out
    left = [path for path in (cli.folder / "data").rglob("*") if path.is_file()]
    assert left == [] and cli("route", QUERY).code == 0


def test_a_pool_that_is_active_and_empty_now_is_pointed_out(cli: Cli, server: Server) -> None:
    assert cli("models", "add", server.address, "--served-as", "mine", "--pool", "work").code == 0
    assert cli("pool", "use", "work").code == 0
    done = cli("models", "remove", "mine", "--yes")
    assert "the active pool work is empty now; `scope-edge pool use default`" in done.complaint
    assert cli("pool", "use", "default").code == 0 and cli("route", QUERY).code == 0


def test_a_list_as_the_active_pool_loses_the_model(cli: Cli) -> None:
    mine = '[models.mine]\nwhere = "cloud"\n'
    assert cli("models", "remove", "mine", "--yes", settings=f'pool = "mine,gpt-4o"\n{mine}').code == 0
    assert cli("route", QUERY, "--quiet").out == "gpt-4o\n"
    assert cli("models", "remove", "mine", "--yes", settings=f'pool = "mine"\n{mine}').code == 0
    assert cli("pool", "list", "--json").json["active"] == "default"


def test_bundled_cards_stay(cli: Cli) -> None:
    done = cli("models", "remove", "gpt-4o", "--yes")
    assert done.code == 2 and "bundled card and stays" in done.complaint


def test_compared_by_field_and_as_documented(cli: Cli, server: Server) -> None:
    with serving(from_keys(lambda spec: spec.tier < 2)) as weaker:
        added(cli, server, "good", limit=250)
        added(cli, weaker, "worse", limit=250)
    body = cli("models", "compare", "good", "worse", "--json").json
    section = (DOCS / "json.md").read_text("utf-8").split("## scope-edge models compare")[1].split("\n## ")[0]
    assert list(body) == documented(section)
    assert list(body["shared"][0]) == re.findall(r'"(\w+)"', section)
    whole = body["shared"][0]
    assert (whole["anchor_set"], whole["category"], whole["anchors"]) == ("core-250", None, 250)
    assert whole["better"] == "good" and 0 < whole["low"] < whole["difference"] < whole["high"]
    assert {row["better"] for row in body["shared"]} <= {"good", None}
    assert all(row["a"] > row["b"] for row in body["expected"])
    shown = cli("models", "compare", "good", "worse").out
    assert re.search(r"^core-250 +250 ", shown, re.MULTILINE) and "mathematics" in shown
    apart = cli("models", "compare", "good", "gemma-2-2b-it")
    assert apart.code == 0 and "different anchors" in apart.complaint
    assert cli("models", "compare", "good", "good").code == 2


def test_anchor_sets_are_listed_and_outcomes_forgotten(cli: Cli, server: Server) -> None:
    added(cli, server, "mine")
    rows = {row["name"]: row for row in cli("anchors", "list", "--json").json}
    section = (DOCS / "json.md").read_text("utf-8").split("## scope-edge anchors list")[1].split("\n## ")[0]
    assert list(rows["core-250"]) == documented(section) and rows["core-250"]["measured"] == ["mine"]
    assert re.search(r"^core-250 +250 +bundled +with text +mine$", cli("anchors", "list").out, re.MULTILINE)
    assert cli("anchors", "forget", "mine").code == 2, "there is no terminal to confirm it"
    done = cli("anchors", "forget", "mine", "--yes")
    assert done.code == 0 and "the answers are kept" in done.out
    asked = len(server.calls)
    assert cli("fingerprint", "mine", "--limit", "12").code == 0 and len(server.calls) == asked, (
        "nothing is asked again"
    )
    assert cli("anchors", "forget", "mine", "--answers", "--yes").code == 0
    assert cli("anchors", "forget", "mine", "--yes").code == 2


def test_an_imported_set_goes_with_what_was_measured_on_it(cli: Cli, tmp_path: Path) -> None:
    import gzip
    import json

    folder = tmp_path / "support-mails"
    folder.mkdir()
    questions = [
        {"id": f"q{i}", "text": f"Why does part {i} not fit part {i + 1}?", "category": "parts"} for i in range(12)
    ]
    (folder / "queries.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, questions)).encode()))
    rows = [f"q{i},gpt-4o,{i % 2},10,20,0" for i in range(12)]
    table = "query_id,model,correct,prompt_tokens,completion_tokens,cost_usd\n" + "\n".join(rows)
    (folder / "outcomes.csv.gz").write_bytes(gzip.compress(table.encode()))
    assert cli("import", str(folder)).code == 0
    assert cli("models", "show", "gpt-4o", "--json").json["fingerprints"][-1] == "support-mails"
    done = cli("anchors", "remove", "support-mails", "--yes")
    assert done.code == 0 and "1 fingerprint of 1 model deleted, on support-mails" in done.out
    assert "support-mails" not in cli("models", "show", "gpt-4o", "--json").json["fingerprints"]
    assert cli("anchors", "remove", "support-mails", "--yes").code == 2
    assert cli("anchors", "remove", "zeroeval", "--yes").code == 2
