"""`scope-edge ask` as people and scripts call it: the answer and nothing else on standard output, and every way it can end."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import Said, Server, faulty, serving
from cli_cases import QUERY, Cli, command, heed_ctrl_c, spawn, user
from repository import DOCS, documented

pytest.importorskip("httpx")
TEXT = "There are 25 primes below one hundred."
SMALL, LARGE = "llama-3.1-8b-instruct", "llama-3.1-70b-instruct"
KEY = "sk-this-is-secret-0123456789"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("VENDOR_KEY", KEY)
    return Cli(tmp_path, monkeypatch, capsys)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(lambda *_: Said(TEXT, 12, 9)) as made:
        yield made


def settings(small: Server, large: Server) -> str:
    """Two bundled models that are answered for on this machine, the large one in the cloud and dear to get at."""
    return "\n".join(
        [
            'pool = "mine"',
            f'[models."{SMALL}"]\nendpoint = "{small.address}"\nwhere = "device"',
            f'[models."{LARGE}"]\nendpoint = "{large.address}"\nkey_env = "VENDOR_KEY"',
            f"[pools]\nmine = {json.dumps([SMALL, LARGE])}",
        ]
    )


def test_the_answer_alone_is_on_standard_output(cli: Cli, server: Server) -> None:
    done = cli("ask", "--alpha", "1", QUERY, settings=settings(server, server))
    assert (done.code, done.out) == (0, f"{TEXT}\n")
    assert re.fullmatch(
        rf"{LARGE}, in the cloud, [\d.]+% likely to be right, for about \$[\d.]+ \(at most .*\)\n", done.err
    )
    quiet = cli("ask", "--quiet", "--no-stream", QUERY)
    assert (quiet.code, quiet.out, quiet.err) == (0, f"{TEXT}\n", "")


def test_standard_input_a_file_and_a_system_prompt(cli: Cli, server: Server) -> None:
    cli("ask", "-", input=f"{QUERY}\n", settings=settings(server, server))
    (cli.folder / "query.txt").write_text(QUERY)
    cli("ask", "--file", str(cli.folder / "query.txt"), "--system", "Be brief.")
    first, second = (call.body["messages"] for call in server.calls)
    assert first == [{"role": "user", "content": QUERY}]
    assert second == [{"role": "system", "content": "Be brief."}, *first]


def test_json_has_the_documented_keys(cli: Cli, server: Server) -> None:
    body = cli("ask", "--json", QUERY, settings=settings(server, server)).json
    page = (DOCS / "json.md").read_text("utf-8")
    assert list(body) == documented(page.split("## scope-edge ask")[1].split("\n## ")[0])
    assert sorted(body["run"]) == sorted(documented(page.split("### run")[1].split("\n###")[0]))
    assert body["answer"] == TEXT and body["run"]["ending"] == "complete"
    assert body["decision"]["choice"] == body["run"]["model"]
    assert cli("log", "--json").json[0]["id"] == body["id"]


def test_a_fallback_is_said(cli: Cli, server: Server) -> None:
    with faulty(server, ["503"]) as front:
        done = cli("ask", "--alpha", "1", QUERY, settings=settings(server, front))
    assert (done.code, done.out) == (0, f"{TEXT}\n")
    assert f"{LARGE} did not answer: HTTP 503" in done.err and f"(chosen: {LARGE})" in done.err and KEY not in done.err


def test_a_broken_answer_ends_with_4_and_what_came_stays(cli: Cli, server: Server) -> None:
    with faulty(server, ["cut", "cut"]) as front:
        done = cli("ask", "--alpha", "1", QUERY, settings=settings(server, front))
        assert done.code == 4 and done.out.endswith("\n") and TEXT.startswith(done.out[:-1]) and done.out.strip()
        assert f"{LARGE} broke off after" in done.err
        body = cli("ask", "--alpha", "1", "--json", QUERY)
    assert body.code == 4 and TEXT.startswith(body.json["answer"]) and body.json["run"]["ending"] == "broken"
    assert len(server.calls) == 2, "nobody else was asked"


def test_nobody_answers_ends_with_5(cli: Cli, server: Server) -> None:
    with faulty(server, ["401"] * 9) as front:
        done = cli("ask", "--model", LARGE, QUERY, settings=settings(server, front))
        assert done.code == 5 and done.out == "" and "VENDOR_KEY" in done.complaint and KEY not in done.err
        body = cli("ask", "--model", LARGE, "--json", QUERY)
    assert body.code == 5 and body.json["answer"] is None and len(body.json["run"]["attempts"]) == 1
    assert server.calls == []


def test_a_refused_request_ends_with_2(cli: Cli, server: Server) -> None:
    with faulty(server, ["refused"]) as one, faulty(server, ["refused"]) as other:
        done = cli("ask", "--alpha", "1", QUERY, settings=settings(one, other))
    assert done.code == 2 and "against our policy" in done.complaint and server.calls == []


@pytest.mark.parametrize(
    ("args", "sent"),
    [
        (("--max-answer-tokens", "9"), 9),
        (("--max-tokens", "9", "--fallback", "cheapest"), 9),
        (("--max-tokens", "9", "--max-answer-tokens", "7", "--fallback", "cheapest"), 7),
        (("--max-usd", "0", "--max-tokens", "5000", "--max-answer-tokens", "9", "--fallback", "cheapest"), 9),
    ],
)
def test_no_fallback_drops_a_limit_on_the_answers_tokens(
    cli: Cli, server: Server, args: tuple[str, ...], sent: int
) -> None:
    assert cli("ask", *args, QUERY, settings=settings(server, server)).code == 0
    assert [call.body["max_tokens"] for call in server.calls] == [sent]


def test_the_limit_on_prompt_and_answer_leaves_what_the_prompt_does_not_take(cli: Cli, server: Server) -> None:
    assert cli("ask", "--max-tokens", "5000", QUERY, settings=settings(server, server)).code == 0
    (call,) = server.calls
    assert 4000 < call.body["max_tokens"] < 5000


def test_limits_that_nothing_keeps_to_end_with_3(cli: Cli, server: Server) -> None:
    done = cli("ask", "--max-tokens", "1", QUERY, settings=settings(server, server))
    assert done.code == 3 and "--max-tokens" in done.complaint and "is enough" in done.complaint
    body = cli("ask", "--max-tokens", "1", "--json", QUERY)
    assert body.code == 3 and body.json["answer"] is None and body.json["decision"]["feasible"] is False
    capped = cli("ask", "--model", LARGE, QUERY, settings="max_usd_day = 0.000001\n" + settings(server, server))
    assert capped.code == 3 and "max_usd_day" in capped.complaint
    assert server.calls == []


def test_a_pinned_model_need_not_be_in_the_pool(cli: Cli, server: Server) -> None:
    own = settings(server, server).replace(json.dumps([SMALL, LARGE]), json.dumps([SMALL]))
    done = cli("ask", "--model", LARGE, QUERY, settings=own)
    assert done.code == 0 and done.err.startswith(LARGE)
    assert cli("ask", "--model", "nosuch", QUERY).code == 2
    assert "models add" in cli("ask", "--model", "gemma-2-2b-it", QUERY).complaint


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "nothing to ask"),
        (["a", "b"], "more than one text"),
        (["a", "--file", "b"], "give one of"),
        (["  "], "blank"),
        (["a", "--verify", "3"], "--verify must be 2"),
        (["a", "--alpha", "2"], "--alpha must be"),
        (["a", "--exclude", "nosuch"], "unknown model"),
        (["a", "--keep-alive", "-7"], "--keep-alive must be"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(cli: Cli, server: Server, args: list[str], said: str) -> None:
    done = cli("ask", *args, settings=settings(server, server))
    assert done.code == 2 and said in done.complaint and server.calls == []


def test_the_bundled_models_say_how_to_make_them_answer(cli: Cli) -> None:
    assert "models add" in cli("ask", QUERY).complaint


def test_a_private_query_stays_here_and_the_terminal_is_told(cli: Cli, server: Server) -> None:
    own = 'privacy = "patterns"\n' + settings(server, server)
    done = cli("ask", "--alpha", "1", "Who is jane@example.org?", settings=own)
    assert done.code == 0 and "kept on the device: an e-mail address" in done.err and SMALL in done.err


def test_a_model_cannot_steer_the_terminal(tmp_path: Path) -> None:
    with serving(lambda *_: Said("red \x1b[31m and \x07 bell\nnext", 12, 9)) as server:
        (tmp_path / "config.toml").write_text(settings(server, server))
        piped = spawn(["ask", QUERY], user(tmp_path) | {"VENDOR_KEY": KEY})
        assert piped.out == "red \x1b[31m and \x07 bell\nnext\n", "a program gets what was written"
        master, slave = pty.openpty()
        with subprocess.Popen(
            command("ask", "-q", QUERY), env=user(tmp_path) | {"VENDOR_KEY": KEY}, stdout=slave, stderr=subprocess.PIPE
        ) as process:
            assert process.wait(60) == 0
            shown = b""
            while select.select([master], [], [], 0.2)[0]:
                shown += os.read(master, 65536)
    assert shown.decode() == "red \\x1b[31m and \\x07 bell\r\nnext\r\n"


def test_ctrl_c_ends_it_cleanly(tmp_path: Path, server: Server) -> None:
    with faulty(server, ["stalls"]) as front:
        (tmp_path / "config.toml").write_text(settings(server, front))
        environment = user(tmp_path) | {"VENDOR_KEY": KEY, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            command("ask", "--alpha", "1", QUERY),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=heed_ctrl_c,
        )
        assert process.stdout is not None
        came = os.read(process.stdout.fileno(), 100)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    assert process.returncode == 130 and came and b"Traceback" not in err
    assert TEXT.startswith((came + rest).decode().strip())
    entry = spawn(["log", "--json"], environment).json[0]
    assert entry["run"]["ending"] == "cancelled"


def test_a_reader_that_leaves_ends_it(tmp_path: Path) -> None:
    with serving(lambda *_: Said("word " * 50_000, 12, 50_000)) as server:
        (tmp_path / "config.toml").write_text(settings(server, server))
        script = " ".join([*command("ask", "-q", f"'{QUERY}'"), "| head -c 10; echo ${PIPESTATUS[0]}"])
        done = subprocess.run(
            ["bash", "-c", script],
            env=user(tmp_path) | {"VENDOR_KEY": KEY},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout == "word word 141\n" and done.stderr == ""
