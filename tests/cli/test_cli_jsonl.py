"""`scope-edge route --jsonl`: a line in, a line out, in order, whatever the lines hold, in constant memory."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from cli_cases import QUERY, Cli, command, user, without_timings
from repository import DOCS

from scope_edge.cli.lines import KEYS, MAX_LINE_BYTES, LineReader
from scope_edge.errors import UsageError

TEXTS = [f"What is {n} times {n + 1}? Explain every step to a child of {n} years." for n in range(40)]


def lines(*bodies: Any) -> str:
    """JSON lines of the bodies; text is taken as a line already."""
    return "".join((body if isinstance(body, str) else json.dumps(body)) + "\n" for body in bodies)


def test_every_line_is_decided_as_it_would_be_alone_and_in_order(cli: Cli) -> None:
    asked = [{"text": text, "id": n, "alpha": (n % 11) / 10} for n, text in enumerate(TEXTS)]
    ended = cli("route", "--jsonl", "-", input=lines(*asked))
    assert ended.code == 0 and ended.err == ""
    assert [body["id"] for body in ended.lines] == list(range(len(TEXTS)))
    for n in (0, 7, 39):
        alone = cli("route", TEXTS[n], "--json", "--alpha", str(asked[n]["alpha"])).json
        assert {**without_timings(alone), "id": n} == without_timings(ended.lines[n])


def test_a_bad_line_says_why_in_its_place_and_the_rest_goes_on(cli: Cli) -> None:
    bad = {
        "not json": "not JSON",
        "[1, 2]": "object",
        '{"alpha": 1}': "text",
        '{"text": "  "}': "blank",
        '{"text": 5}': "string",
        '{"text": "a", "alpa": 1}': "alpha",
        '{"text": "a", "alpha": NaN}': "NaN",
        '{"text": "a", "alpha": 2}': "0 (cheapest) to 1",
        '{"text": "a", "alpha": true}': "alpha",
        '{"text": "a", "alpha": "0.5"}': "alpha",
        '{"text": "a", "max_usd": -1}': "max_usd",
        '{"text": "a", "max_usd": 1e999}': "max_usd",
        '{"text": "a", "max_tokens": 1.5}': "max_tokens",
        '{"text": "a", "local_only": 1}': "local_only",
        '{"text": "a", "policy": "papr"}': "paper",
        '{"text": "a", "exclude": "gemma-3-4b-iz"}': "gemma-3-4b-it",
        '{"text": "a", "exclude": [1]}': "exclude",
        '{"text": "a", "id": 1.5}': "id",
        '{"text": "a", "text": "b"}': "twice",
        '{"text": "a", "max_tokens": ' + "9" * 5000 + "}": "",
        "[" * 100_000: "",
    }
    asked = [line for text in bad for line in (text, {"text": QUERY, "id": "good"})]
    ended = cli("route", "--jsonl", "-", input=lines(*asked))
    assert ended.code == 4
    assert f"{len(bad)} of {2 * len(bad)} lines" in ended.complaint
    for n, (text, said) in enumerate(bad.items()):
        failed, good = ended.lines[2 * n : 2 * n + 2]
        assert list(failed) == ["line", "id", "error"] == documented_failure()
        assert failed["line"] == 2 * n + 1
        assert said in failed["error"], text[:80]
        assert good["id"] == "good" and good["choice"]


def documented_failure() -> list[str]:
    section = (DOCS / "json.md").read_text("utf-8").split("## A line that failed")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_the_documented_keys_are_those_a_line_may_have(cli: Cli) -> None:
    section = (DOCS / "cli.md").read_text("utf-8").split("## Many queries")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(KEYS)
    full = {
        "text": QUERY,
        "id": "x",
        "system": "Be brief.",
        "alpha": 0.9,
        "max_tokens": 4000,
        "max_usd": 0.01,
        "max_seconds": None,
        "local_only": False,
        "fallback": "cheapest",
        "policy": "paper",
        "exclude": ["gemma-3-4b-it"],
    }
    assert set(full) == set(KEYS)
    (body,) = cli("route", "--jsonl", "-", input=lines(full)).lines
    assert (body["id"], body["alpha"], body["policy"]) == ("x", 0.9, "paper")


def test_what_a_line_does_not_say_the_options_say(cli: Cli) -> None:
    asked = lines(
        {"text": QUERY}, {"text": QUERY, "alpha": 1}, {"text": QUERY, "alpha": None}, {"text": QUERY, "exclude": []}
    )
    bodies = cli("route", "--jsonl", "-", "--alpha", "0.2", "--exclude", "gemma-3-4b-it", input=asked).lines
    assert [body["alpha"] for body in bodies] == [0.2, 1, 0.2, 0.2]
    excluded = [{one["model"] for one in body["candidates"] if one["excluded_by"] == "exclude"} for body in bodies]
    assert excluded == [{"gemma-3-4b-it"}] * 3 + [set()]


def test_ids_come_back_as_they_were_and_only_where_there_was_one(cli: Cli) -> None:
    ids = ["a", "", 0, -3, 10**30, "\ud800", "ü\u202e\n"]
    ended = cli(
        "route",
        "--jsonl",
        "-",
        input=lines(*({"text": QUERY, "id": id} for id in ids), {"text": QUERY}, {"text": QUERY, "id": None}),
    )
    assert [body["id"] for body in ended.lines[:-2]] == ids
    assert all("id" not in body for body in ended.lines[-2:])
    assert all(next(iter(body)) == "id" for body in ended.lines[:-2])


def test_blank_lines_count_and_give_nothing(cli: Cli) -> None:
    ended = cli(
        "route", "--jsonl", "-", input="\n  \r\n" + lines({"text": QUERY}, "no") + "\n" + json.dumps({"text": "x"})
    )
    assert [body.get("line") for body in ended.lines] == [None, 4, None]


def test_a_line_on_which_nothing_is_feasible_is_a_result(cli: Cli) -> None:
    ended = cli("route", "--jsonl", "-", input=lines({"text": QUERY, "max_tokens": 0}))
    assert ended.code == 0
    assert ended.lines[0]["feasible"] is False and ended.lines[0]["bound"]["limit"] == "max_tokens"


def test_quiet_gives_a_line_for_every_line(cli: Cli) -> None:
    ended = cli(
        "route", "--jsonl", "-", "--quiet", input=lines({"text": QUERY}, "no", {"text": QUERY, "max_tokens": 0})
    )
    choice, failed, infeasible = ended.out.splitlines()
    assert choice == cli("route", QUERY, "--quiet").out.strip()
    assert (failed, infeasible) == ("-", "-")
    assert ended.code == 4 and "line 2: not JSON" in ended.err


def test_an_empty_file_is_no_error(cli: Cli) -> None:
    (cli.folder / "empty.jsonl").write_bytes(b"")
    ended = cli("route", "--jsonl", str(cli.folder / "empty.jsonl"))
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_many_bad_lines_after_a_good_one_keep_their_order(cli: Cli) -> None:
    bodies = cli("route", "--jsonl", "-", input=lines({"text": QUERY}, *["no"] * 5000, {"text": QUERY})).lines
    assert "choice" in bodies[0] and "choice" in bodies[-1]
    assert [body["line"] for body in bodies[1:-1]] == list(range(2, 5002))


def test_only_a_few_lines_are_read_ahead_of_what_is_printed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from scope_edge.cli.commands import route_jsonl as module

    ahead: list[int] = []
    read = printed = 0
    parse, show = module.parse_line, module._Stream.print_decision

    def parsing(raw: bytes) -> dict[str, Any]:
        nonlocal read
        read += 1
        ahead.append(read - printed)
        return parse(raw)

    def printing(self: Any, decision: Any, id: Any) -> None:
        nonlocal printed
        show(self, decision, id)
        printed += 1

    monkeypatch.setattr(module, "parse_line", parsing)
    monkeypatch.setattr(module._Stream, "print_decision", printing)
    monkeypatch.setenv("SCOPE_EDGE_THREADS", "2")
    assert cli("route", "--jsonl", "-", input=lines(*[{"text": "Why?"}] * 300)).code == 0
    assert printed == 300 and max(ahead) <= 10


def test_whoever_sends_a_line_and_waits_gets_its_answer(tmp_path: Path) -> None:
    with talking(tmp_path) as process:
        for n in range(3):
            ask(process, {"text": QUERY, "id": n})
            assert json.loads(answer(process))["id"] == n
        stdin(process).close()
        assert process.wait() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a child alone")
def test_interrupted_it_ends_with_130_and_whole_lines(tmp_path: Path) -> None:
    # Decisions longer than a buffer, printed into a pipe that nobody empties: it is interrupted in the middle of a line.
    cards = "".join(f'[models."model-{n}"]\nwhere = "cloud"\n' for n in range(60))
    pool = ", ".join(f'"model-{n}"' for n in range(60))
    (tmp_path / "config.toml").write_text(f'pool = "many"\n[pools]\nmany = [{pool}]\n{cards}')
    with talking(tmp_path) as process:
        ask(process, *[{"text": QUERY}] * 100)
        first = answer(process)
        assert len(first) > 8192
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert process.stdout is not None and process.stderr is not None
        out, err = process.stdout.read(), process.stderr.read()
    assert (process.returncode, err) == (130, b"")
    printed = [json.loads(line) for line in [first, *out.splitlines()]]
    assert len(printed) < 100 and all("choice" in body for body in printed)


def test_a_reader_that_goes_away_ends_it_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "many.jsonl").write_text(lines(*[{"text": "Why?"}] * 300))
    with talking(tmp_path, str(tmp_path / "many.jsonl")) as process:
        answer(process)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr is not None and process.stderr.read() == b""


def talking(folder: Path, path: str = "-") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command("route", "--jsonl", path),
        env=user(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def stdin(process: subprocess.Popen[bytes]) -> BinaryIO:
    assert process.stdin is not None
    return cast(BinaryIO, process.stdin)


def ask(process: subprocess.Popen[bytes], *bodies: Any) -> None:
    stdin(process).write(lines(*bodies).encode())
    stdin(process).flush()


def answer(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


class Chunked(io.BytesIO):
    """Gives a few bytes at a time, as a slow pipe does."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read(7)


@pytest.mark.parametrize("kind", [io.BytesIO, Chunked])
def test_lines_are_read_whole_and_too_long_ones_are_passed_over(kind: type[io.BytesIO]) -> None:
    raw = b"one\n" + b"x" * 21 + b"\n" + b"y" * 20 + b"\n\nlast"
    assert list(LineReader(kind(raw), "it", 20)) == [(1, b"one"), (2, None), (3, b"y" * 20), (4, b""), (5, b"last")]
    assert list(LineReader(kind(b"z" * 50), "it", 20)) == [(1, None)]
    assert list(LineReader(kind(b""), "it", 20)) == []


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scope_edge.cli.lines._ENDLESS", 1 << 20)
    reader = LineReader(io.BufferedReader(io.BytesIO(bytes(2 << 20))), "it", 20)
    with pytest.raises(UsageError, match="it: a line of more than 1048576 bytes"):
        next(reader)


def test_a_line_over_the_limit_fails_alone(cli: Cli) -> None:
    long = json.dumps({"text": "x" * MAX_LINE_BYTES})
    bodies = cli("route", "--jsonl", "-", input=lines(long, {"text": QUERY})).lines
    assert "longer than" in bodies[0]["error"] and bodies[1]["choice"]
