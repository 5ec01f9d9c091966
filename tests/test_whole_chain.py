"""The command in a process of its own, a server that goes wrong in every way there is, one over a real GGUF behind it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Answers, Said, Server, faulty, from_gguf, serving
from cli_cases import command, spawn, user

from scope_edge.estimation.anchor_spec import load_core
from scope_edge.fingerprinting.grading import grade, prompt_of
from scope_edge.providers.llama.client import LlamaClient
from scope_edge.providers.llama.memory import Plan
from scope_edge.providers.llama.process import installed
from scope_edge.storage.packs import read_pack

pytest.importorskip("httpx")
KEY = "sk-this-is-secret-0123456789"
LIMIT, TOKENS = 14, 24
PLAN = Plan(context=4096, batch=128, gpu_layers=0, threads=1, needs=0, why="")
# What reaches the model and is lost on the way back: asked, and paid for, once more.
LOST = ("cut", "text", "lost")
FAULTS = [
    *("429", None, "500", "dropped", "cut", None, "text", "slow", "moved", "usage"),
    *("lost", None, "no usage", "echo", None, "503", "elsewhere", None),
]
USD_IN, USD_OUT = 1.0, 10.0


@pytest.fixture
def model(scripted_gguf: Path, tmp_path: Path) -> Iterator[Answers]:
    if not installed():
        pytest.skip("llama-cpp-python is not installed")
    with LlamaClient(scripted_gguf, "served", PLAN, cache_dir=tmp_path / "served") as client:
        yield from_gguf(client)


def settings(server: Server) -> str:
    card = {"where": "cloud", "usd_in": USD_IN, "usd_out": USD_OUT, "endpoint": server.address, "key_env": "VENDOR_KEY"}
    return "\n".join(['[models."mine"]', *(f"{name} = {json.dumps(value)}" for name, value in card.items()), ""])


def killed(arguments: list[str], environment: dict[str, str], server: Server, answers: int) -> str:
    """Run until the model was asked so often, then kill -9; what was printed."""
    process = subprocess.Popen(command(*arguments), env=environment, stdout=-1, stderr=subprocess.STDOUT)
    until = time.monotonic() + 240
    while len(server.calls) < answers and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    printed: bytes = process.communicate()[0]
    assert process.returncode == (1 if sys.platform == "win32" else -9), printed
    return printed.decode()


@pytest.mark.long
def test_nothing_is_lost_and_nothing_paid_twice_from_the_command_to_the_gguf(tmp_path: Path, model: Answers) -> None:
    environment = user(tmp_path) | {"VENDOR_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    arguments = [
        "fingerprint",
        "mine",
        "--limit",
        str(LIMIT),
        "--max-answer-tokens",
        str(TOKENS),
        "--timeout",
        "10",
        "--json",
    ]
    with (
        serving(model) as server,
        serving(lambda *_: Said("mine now", 1, 1)) as thief,
        faulty(server, FAULTS, key=KEY, elsewhere=thief.address) as front,
    ):
        (tmp_path / "config.toml").write_text(settings(front), "utf-8")
        printed = killed(arguments, environment, server, 5)
        refused = spawn(arguments, environment)
        assert refused.code == 5 and "redirects to 127.0.0.1" in refused.complaint
        done = spawn(arguments, environment)
        assert done.code == 0, done.err
        asked = server.asked
        again = spawn(arguments, environment)
        assert again.json["asked"] == 0 and server.asked == asked, "what was answered is not asked again"
        assert thief.calls == [], "a redirect to another host got nothing"
    summary = done.json
    assert (summary["answered"], summary["missing"]) == (LIMIT, {})
    check_outcomes(Path(summary["fingerprint"]), model)
    # Twice only what was lost after the model had answered, and what was on its way at the kill.
    assert len(asked) == LIMIT
    assert sum(asked.values()) <= LIMIT + sum(fault in LOST for fault in FAULTS) + 1
    check_money(summary, model, asked)
    for text in (printed, refused.out, refused.err, done.out, done.err, again.out, again.err):
        assert KEY not in text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 3 and not [path for path in files if KEY.encode() in path.read_bytes()]


def check_outcomes(path: Path, model: Answers) -> None:
    """The fingerprint is what the GGUF says when it is asked directly."""
    part: dict[str, Any] = read_pack(path, "fingerprints")["sets"]["core-250"]
    correct, tokens = part["correct"][0], part["tokens"][0]
    rows = np.flatnonzero(np.isfinite(correct))
    assert len(rows) == LIMIT
    specs = [load_core().specs[row] for row in rows]
    said = [model(prompt_of(spec), TOKENS) for spec in specs]
    assert correct[rows].tolist() == [grade(spec, one.text) for spec, one in zip(specs, said, strict=True)]
    counted = tokens[rows].tolist()
    # Two answers came with counts that cannot be, or none: theirs are estimated from the text.
    assert sum(a != b.completion_tokens for a, b in zip(counted, said, strict=True)) <= 2


def check_money(summary: dict[str, Any], model: Answers, asked: dict[str, int]) -> None:
    """The bill of whoever runs the model is no more than the run says it may be."""
    assert sum(summary["counted"].values()) == LIMIT and summary["counted"].get("estimate", 0) <= 2
    bill = 0.0
    for prompt, times in asked.items():
        one = model(prompt, TOKENS)
        bill += times * (one.prompt_tokens * USD_IN + one.completion_tokens * USD_OUT) / 1e6
    assert 0 < summary["usd"] < bill * 1.5 and bill <= summary["usd_most"]
