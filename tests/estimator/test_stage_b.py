"""Stage B with everything real: an installed GGUF, anchors with text, the command line, calibration."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from cli_cases import PLACE
from repository import DOCS
from stage_b_cases import MODELS, QUESTIONS, fill

from scope_edge.estimator.calibrate import JOURNAL
from scope_edge.estimator.calibration import FILE, save_calibration, uncalibrated
from scope_edge.estimator.factory import key
from scope_edge.estimator.store import Installed, write_manifest
from scope_edge.factory import load_pipeline
from scope_edge.providers.llama import process
from scope_edge.providers.llama.process import installed as llama_is_installed
from scope_edge.settings.config import load_settings
from scope_edge.types import Query

pytestmark = pytest.mark.skipif(not llama_is_installed(), reason="llama-cpp-python is not installed")
POOL = ",".join(MODELS)
QUERY = "Write a few words. At least three of them must have the letter e in them."


@pytest.fixture(scope="module")
def entry(scripted_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA_DIR", "CACHE_DIR"):
            patch.setenv(f"SCOPE_EDGE_{name}", str(home / name.lower()))
        patch.setenv("SCOPE_EDGE_CONFIG", str(home / "config.toml"))
        patch.setenv("SCOPE_EDGE_THREADS", "1")  # so small a model is slower on more, and much slower on a busy machine
        found = fill(scripted_gguf, home / "work")
        save_calibration(found.folder, key(found), replace(uncalibrated(), prompts=1))
        yield found


def run(*args: str, stdin: str | None = None, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "scope_edge", *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **variables},
        check=False,
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


def route(*args: str, worker: str = "") -> dict[str, Any]:
    done = run("route", "--json", "--pool", POOL, "--alpha", "1", *args, QUERY, SCOPE_EDGE_WORKER=worker)
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def test_a_real_gguf_refines_the_estimates(entry: Installed) -> None:
    decision = route("--estimator", "gguf")
    report = decision["estimator"]
    assert report["prompts_run"] >= 1 and report["name"] == "tiny"
    assert report["prompts_run"] + report["prompts_saved"] == len(MODELS)
    assert report["tokens"] > 200 and report["seconds"] > 0
    assert decision["degraded"] == []
    prior = {row["model"]: row for row in route("--estimator", "prior")["candidates"]}
    moved = [row["model"] for row in decision["candidates"] if row["p_correct"] != prior[row["model"]]["p_correct"]]
    assert len(moved) == report["prompts_run"]
    assert any(row["rationale"] for row in decision["candidates"])


def test_a_gguf_that_was_never_calibrated_is_not_asked_and_moves_nothing(entry: Installed) -> None:
    kept = (entry.folder / FILE).read_bytes()
    try:
        (entry.folder / FILE).unlink()
        prior = route("--estimator", "prior")
        for how in ("gguf", "auto"):
            decision = route("--estimator", how, worker="/no/such/program")
            assert decision["estimator"]["name"] == "prior" and decision["estimator"]["prompts_run"] == 0
            assert "has no weight before it is calibrated; `scope-edge calibrate" in decision["degraded"][0]
            assert [row["p_correct"] for row in decision["candidates"]] == [
                row["p_correct"] for row in prior["candidates"]
            ]
        (check,) = json.loads(run("doctor", "--json", SCOPE_EDGE_POOL=POOL).stdout)["estimators"]
        assert "uncalibrated, so it has no weight" in check["found"]
    finally:
        (entry.folder / FILE).write_bytes(kept)


def test_the_same_query_gives_the_same_decision(entry: Installed) -> None:
    first, second = (route("--estimator", "gguf") for _ in range(2))
    for one in (first, second):
        del one["timings_ms"], one["estimator"]["seconds"]
    assert first == second


def test_auto_uses_it_when_it_is_fast_enough_and_says_so_when_not(entry: Installed) -> None:
    assert route("--estimate-seconds", "60")["estimator"]["prompts_run"] >= 1
    slow = route("--estimate-seconds", "0")
    assert slow["estimator"]["name"] == "prior" and slow["choice"] is not None
    assert "estimate_seconds 0" in slow["degraded"][0]


def test_prior_never_asks_it(entry: Installed) -> None:
    decision = route("--estimator", "prior")
    assert decision["estimator"]["prompts_run"] == 0 and decision["degraded"] == []
    assert "refine" not in decision["timings_ms"]


def test_a_cheap_preference_saves_every_prompt(entry: Installed) -> None:
    done = run("route", "--json", "--pool", POOL, "--alpha", "0", "--estimator", "gguf", QUERY)
    report = json.loads(done.stdout)["estimator"]
    assert (report["prompts_run"], report["prompts_saved"]) == (0, len(MODELS))


def test_many_lines_go_through_one_worker(entry: Installed) -> None:
    lines = "".join(json.dumps({"text": f"{QUERY} {n}", "id": n}) + "\n" for n in range(3))
    done = run("route", "--jsonl", "-", "--pool", POOL, "--alpha", "1", "--estimator", "gguf", stdin=lines)
    decisions = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["id"] for one in decisions] == [0, 1, 2]
    assert all(one["estimator"]["prompts_run"] >= 1 for one in decisions)


def test_a_pool_without_outcomes_on_text_is_told(entry: Installed) -> None:
    done = run("route", "--json", "--pool", "gemma-2-2b-it,gemma-2-27b-it", "--alpha", "1", QUERY)
    decision = json.loads(done.stdout)
    assert decision["choice"] is not None
    assert "scope-edge estimator anchors" in decision["degraded"][0]


def test_weights_that_were_changed_leave_the_prior(entry: Installed) -> None:
    kept = entry.gguf.read_bytes()
    try:
        entry.gguf.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        decision = route("--estimator", "gguf")
    finally:
        entry.gguf.write_bytes(kept)
    assert decision["choice"] is not None and decision["estimator"]["name"] == "prior"
    assert "damaged" in decision["degraded"][0]


def test_a_worker_that_dies_leaves_the_prior(entry: Installed) -> None:
    decision = route("--estimator", "gguf", worker=f"{sys.executable} -c raise(SystemExit(9))")
    assert decision["choice"] is not None and decision["estimator"]["name"] == "prior"
    assert decision["degraded"] and "estimator tiny" in decision["degraded"][0]


def telling_worker(folder: Path) -> str:
    """The command of a worker that writes its process id into the file `at work` once it has begun on a list of jobs."""
    script = folder / "worker.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, pathlib, sys
        sys.path.insert(0, {PLACE!r})
        from scope_edge.providers.llama import worker
        run = worker.Worker._run
        def told(self, *arguments, **options):
            new = pathlib.Path({str(folder / "at work.new")!r})
            new.write_text(str(os.getpid()))
            new.rename({str(folder / "at work")!r})
            return run(self, *arguments, **options)
        worker.Worker._run = told
        worker.main()
        """)
    )
    return f"{sys.executable} {script}"


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_broken_in_the_middle_leaves_the_prior_and_the_next_query_is_refined(
    entry: Installed, how: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(process.COMMAND_VARIABLE, telling_worker(tmp_path))
    write_manifest(replace(entry, samples=8, analysis_tokens=1200))  # long enough to be hit in the middle
    settings = load_settings({"pool": POOL, "estimator": "gguf", "alpha": 1.0})
    try:
        router = load_pipeline(settings)
    finally:
        write_manifest(entry)
    struck = []

    def strike() -> None:
        while not (tmp_path / "at work").exists():
            time.sleep(0.02)
        monkeypatch.setattr(process, "SILENCE_SECONDS", 3.0)
        struck.append(psutil.Process(int((tmp_path / "at work").read_text())))
        os.kill(struck[0].pid, how)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    decision = router.route(Query(QUERY), settings.preference())
    thread.join()
    assert decision.choice is not None and decision.estimator.prompts_run == 0
    assert "estimator tiny" in decision.degraded[0] and "prior's estimates" in decision.degraded[0]
    assert not struck[0].is_running(), "a worker, or its zombie, is left behind"
    monkeypatch.undo()
    assert router.route(Query(QUERY), settings.preference()).estimator.prompts_run >= 1
    router.close()
    assert not psutil.Process().children()


def test_asking_for_one_that_is_not_there_ends_with_the_command_that_installs_one(tmp_path: Path) -> None:
    done = run("route", "--estimator", "gguf", QUERY, code=5, SCOPE_EDGE_DATA_DIR=str(tmp_path))
    assert "scope-edge estimator install" in done.stderr and done.stderr.count("\n") == 1


def test_with_none_installed_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom scope_edge.factory import load_pipeline\nfrom scope_edge.settings.config import load_settings\n"
        "from scope_edge.types import Preference, Query\n"
        f"decision = load_pipeline(load_settings()).route(Query({QUERY!r}), Preference())\n"
        "print(decision.degraded, [m for m in sys.modules if m.startswith('scope_edge.estimator')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "SCOPE_EDGE_DATA_DIR": str(tmp_path)},
        check=True,
    )
    assert done.stdout.strip() == "() []"


def test_calibration_goes_on_where_it_was_interrupted_and_is_used(entry: Installed) -> None:
    command = ("calibrate", "--estimator", "gguf", "--pool", POOL, "--json")
    done = run(*command, "--limit", "6")
    few = json.loads(done.stdout)
    assert done.stderr.splitlines()[0] == "0 of 6 prompts", "a log file shows that it began"
    assert few["stored"] is False and few["prompts"] + few["unusable"] == 6
    refused = run(*command, "--limit", "5", code=2, SCOPE_EDGE_WORKER="/no/such/program")
    assert "--limit 5 is less than the 6 prompts already stored for tiny" in refused.stderr
    journal = (entry.folder / JOURNAL).read_text().splitlines()
    assert len(journal) == 7
    (entry.folder / JOURNAL).write_text("\n".join(journal[:4]) + '\n{"task": {"set"')
    whole = json.loads(run(*command).stdout)
    # Its weights are random: what it says of a model tells nothing, so it gets no weight and loses what it had.
    assert whole["stored"] is False and not (entry.folder / FILE).exists()
    assert whole["prompts"] + whole["unusable"] == len(QUESTIONS) * len(MODELS)
    lines = (entry.folder / JOURNAL).read_text().splitlines()
    assert lines[:4] == journal[:4] and len(lines) == 1 + len(QUESTIONS) * len(MODELS)
    section = (DOCS / "json.md").read_text("utf-8").split("With `--estimator gguf`:")[1].split("\n## ")[0]
    assert list(whole) == re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert set(whole["scores"]) == {"prior", "estimator", "half-way", "calibrated"}
    text = run(*command[:-1]).stdout
    assert "log loss" in text and "no gain over the prior" in text
    know_the_outcomes(entry)
    known = json.loads(run(*command).stdout)
    assert known["stored"] is True and (entry.folder / FILE).is_file()
    assert route("--estimator", "gguf")["estimator"]["name"] == "tiny"


def know_the_outcomes(entry: Installed) -> None:
    """Rewrite what the estimator replied, as if it knew how each model did."""
    table = entry.folder.parents[2] / "work" / "letters" / "anchor.jsonl"
    rows = map(json.loads, table.read_text("utf-8").splitlines())
    correct = {(row["id"], row["model_name"]): row["is_correct"] for row in rows}
    head, *replies = (entry.folder / JOURNAL).read_text("utf-8").splitlines()
    known = [json.loads(one) for one in replies]
    for one in known:
        right = correct[one["task"]["anchor"].split("/")[-1], one["task"]["model"]]
        one |= {"p": 0.9 if right else 0.1, "tokens": one["tokens"] or 10.0}
    (entry.folder / JOURNAL).write_text("\n".join([head, *map(json.dumps, known), ""]), "utf-8")


def test_doctor_shows_what_is_installed_and_what_it_lacks(entry: Installed) -> None:
    able = json.loads(run("doctor", "--json", SCOPE_EDGE_POOL=POOL).stdout)
    (check,) = able["estimators"]
    assert check["name"] == "tiny" and check["problem"] is None
    for said in ("in use", "mode cot", "from bundled", "calibrated on", "on the processor", "a prompt takes"):
        assert said in check["found"]
    assert not any("anchors with text" in one for one in able["degraded"])
    blind = json.loads(run("doctor", "--json", SCOPE_EDGE_POOL="gemma-2-2b-it").stdout)
    assert any("scope-edge estimator anchors" in one for one in blind["degraded"])
    assert "tiny" in run("doctor").stdout
