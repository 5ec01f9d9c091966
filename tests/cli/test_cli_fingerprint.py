"""`scope-edge fingerprint` as a user meets it: killed and taken up again, dry, capped; and then the model is a candidate."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import Server, faulty, from_keys, serving
from cli_cases import QUERY, Cli, command, heed_ctrl_c, spawn, user
from cli_cases import server_card as card
from repository import DOCS, documented

from scope_edge.estimation.anchor_spec import load_core

pytest.importorskip("httpx")
KEY = "sk-this-is-secret-0123456789"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("VENDOR_KEY", KEY)
    return Cli(tmp_path, monkeypatch, capsys)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(from_keys(lambda spec: spec.tier < 3)) as made:
        yield made


def test_after_it_the_model_is_a_candidate_like_any_other(cli: Cli, server: Server) -> None:
    before = cli("route", "--pool", "both", "--json", QUERY, settings=card(server)).json
    assert {row["model"]: row["evidence"] for row in before["candidates"]}["mine"] == "none"
    done = cli("fingerprint", "mine", "--limit", "120")
    assert (done.code, done.err) == (0, "")
    assert "mine has a fingerprint on core-250" in done.out and "answers     120, 120 of them in this run" in done.out
    assert re.search(r"rank +\d+ of \d+ models: after ", done.out)
    row = {row["model"]: row for row in cli("route", "--pool", "both", "--json", QUERY).json["candidates"]}["mine"]
    assert row["evidence"] in ("weak", "strong") and 0 < row["p_correct"] < 1 and row["tokens"] > 0
    assert cli("models", "show", "mine", "--json").json["fingerprints"] == ["core-250"]
    assert cli("models", "show", "mine", "--json").json["tokens_per_second"] > 0, "as measured"


def test_json_is_as_documented(cli: Cli, server: Server) -> None:
    sections = (DOCS / "json.md").read_text("utf-8").split("## scope-edge fingerprint")[1].split("\n## ")[0]
    summary, projection = sections.split("With `--dry-run`")
    dry = cli("fingerprint", "mine", "--limit", "3", "--dry-run", "--json", settings=card(server)).json
    assert list(dry) == documented(projection)
    assert server.calls == [] and [one["answered"] for one in dry["questions"]] == [False] * 3
    assert [one["anchor"] for one in dry["questions"]] == list(load_core().anchors.ids[:3])
    ran = cli("fingerprint", "mine", "--limit", "3", "--json").json
    assert list(ran) == documented(summary)
    assert Path(ran["fingerprint"]).is_file() and ran["counted"] == {"server": 3}


def test_a_dry_run_shows_what_it_would_do(cli: Cli, server: Server) -> None:
    done = cli("fingerprint", "mine", "--dry-run", settings=card(server))
    assert done.code == 0 and server.calls == []
    assert "mine: 250 questions of core-250" in done.out and server.address in done.out
    assert re.search(r"cost +about \$0\.\d+, at most \$\d", done.out) and "and 240 more" in done.out
    unpriced = card(server).replace("usd_in = 1.0\nusd_out = 10.0\n", "")
    assert "cost        unknown" in cli("fingerprint", "mine", "--dry-run", settings=unpriced).out


def test_exit_codes(cli: Cli, server: Server) -> None:
    limited = cli("fingerprint", "mine", "--max-usd", "0.001", settings=card(server))
    assert limited.code == 3 and "nothing was asked" in limited.complaint and server.calls == []
    assert cli("fingerprint", "nobody").code == 2
    assert cli("fingerprint", "llama-3.1-70b-instruct").code == 2
    assert cli("fingerprint", "mine", "--anchors", "other").code == 2
    with faulty(server, [None, "500", None]) as front:
        some = cli("fingerprint", "mine", "--limit", "3", "--attempts", "1", settings=card(front))
        assert some.code == 4 and "missing     1" in some.out and "HTTP 500" in some.out
    with faulty(server, ["401"]) as front:
        refused = cli("fingerprint", "mine", "--limit", "3", settings=card(front))
        assert refused.code == 5 and "VENDOR_KEY" in refused.complaint and KEY not in refused.err


def test_offline_asks_nobody_elsewhere(cli: Cli, server: Server) -> None:
    refused = cli("fingerprint", "mine", "--limit", "1", settings="offline = true\n" + card(server))
    assert refused.code == 2 and "offline is set" in refused.complaint and server.calls == []
    here = "offline = true\n" + card(server, where="device")
    assert cli("fingerprint", "mine", "--limit", "1", settings=here).code == 0


@pytest.mark.long
@pytest.mark.parametrize("concurrency", [1, 3])
def test_killed_again_and_again_it_asks_nothing_twice(tmp_path: Path, concurrency: int) -> None:
    """kill -9 in the middle, three times; then run to the end. At most what was on its way is asked in vain."""
    environment = user(tmp_path) | {"VENDOR_KEY": KEY}
    arguments = ["fingerprint", "mine", "--limit", "24", "--concurrency", str(concurrency)]
    kills, printed = 3, b""
    with serving(from_keys(lambda spec: spec.tier < 3), seconds=0.1) as server:
        (tmp_path / "config.toml").write_text(card(server), "utf-8")
        for n in range(kills):
            reached = len(server.calls) + 5
            process = subprocess.Popen(command(*arguments), env=environment, stdout=-1, stderr=subprocess.STDOUT)
            until = time.monotonic() + 120
            while len(server.calls) < reached and process.poll() is None and time.monotonic() < until:
                time.sleep(0.01 * (n + 1))
            process.kill()
            printed += process.communicate()[0]
            assert process.returncode == (-signal.SIGKILL if sys.platform != "win32" else 1), printed
        done = spawn([*arguments, "--json"], environment)
        asked = server.asked
    assert done.code == 0, done.err
    summary = done.json
    assert summary["answered"] == 24 and summary["missing"] == {}
    # Asked in vain are those on their way at a kill; which question comes next, the answers that are there say anew.
    vain = sum(asked.values()) - 24
    assert vain <= kills * concurrency and max(asked.values()) <= 1 + kills
    # What an earlier run had an answer to, this one did not ask.
    assert summary["asked"] < 24
    # What was on its way at a kill may have been paid for: it is counted, not forgotten.
    assert summary["usd_most"] >= summary["usd"] and (summary["usd_most"] > summary["usd"]) == (vain > 0)
    assert KEY not in done.out + done.err + printed.decode()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 3 and not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.skipif(sys.platform == "win32", reason="there Ctrl-C is sent to a whole console")
def test_ctrl_c_keeps_what_was_answered(tmp_path: Path) -> None:
    environment = user(tmp_path) | {"VENDOR_KEY": KEY}
    with serving(from_keys(lambda spec: True), seconds=0.05) as server:
        (tmp_path / "config.toml").write_text(card(server), "utf-8")
        process = subprocess.Popen(
            command("fingerprint", "mine"), env=environment, stdout=-1, stderr=-1, preexec_fn=heed_ctrl_c
        )
        until = time.monotonic() + 120
        while len(server.calls) < 4 and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        saved = re.fullmatch(
            rb"scope-edge: interrupted; (\d+) answers? saved; .scope-edge fingerprint mine. asks the rest\n", errors
        )
        assert saved is not None and b"mine has a fingerprint on core-250" in printed and b"; interrupted" in printed
        shown = spawn(["models", "show", "mine", "--json"], environment)
        assert shown.json["fingerprints"] == ["core-250"]
        done = spawn(["fingerprint", "mine", "--limit", "10", "--json"], environment)
    assert done.json["answered"] == 10 and done.json["asked"] < 10
    assert sum(server.asked.values()) <= len(server.asked) + 1
