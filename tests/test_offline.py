"""A real query is routed with the network taken away, and without so much as trying to reach it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from network_cut import CUT

QUERY = "How many primes are there below one hundred?"
# Ends the process at the first thing that has to do with the network: no socket is made, no name is looked up.
WATCHED = """
import sys
def hook(event, arguments):
    if event.startswith(("socket.", "http.", "urllib.", "ftplib.", "smtplib.", "ssl.")):
        sys.stderr.write(f"touched the network: {event} {arguments!r}")
        sys.stderr.flush()
        import os
        os._exit(99)
sys.addaudithook(hook)
"""


def route(*before: str, code: str = "", env: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    script = f"{code}\nfrom scope_edge.cli import main\nmain()"
    return subprocess.run(
        [*before, sys.executable, "-c", script, "route", QUERY, "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=folder,
    )


@pytest.fixture
def env(tmp_path: Path) -> Mapping[str, str]:
    """As a new user has it: no settings, no caches; the package found where it is now."""
    import scope_edge

    place = str(Path(scope_edge.__file__).resolve().parent.parent)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SCOPE_EDGE_")}
    return {**kept, "HOME": str(tmp_path), "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": "", "PYTHONPATH": place}


def chosen(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    decision = json.loads(done.stdout)
    assert decision["feasible"] and decision["neighbors"]
    assert all(candidate["p_correct"] is not None for candidate in decision["candidates"])
    choice: str = decision["choice"]
    return choice


@pytest.mark.usefixtures("can_cut")
def test_a_query_is_routed_the_same_with_the_network_cut_off(env: Mapping[str, str], tmp_path: Path) -> None:
    cut = subprocess.run([*CUT, "cat", "/proc/net/dev"], capture_output=True, text=True, check=True).stdout
    assert [line.split(":")[0].strip() for line in cut.splitlines()[2:]] == ["lo"], "the network was not cut"
    assert chosen(route(*CUT, env=env, folder=tmp_path)) == chosen(route(env=env, folder=tmp_path))


def test_routing_does_not_touch_the_network(env: Mapping[str, str], tmp_path: Path) -> None:
    chosen(route(code=WATCHED, env=env, folder=tmp_path))


def test_the_runtime_of_the_encoder_is_told_not_to_report_home_before_it_is_loaded() -> None:
    """It looks its makers' server up some seconds after it was loaded: too late for the tests above to see."""
    code = """
import builtins, os, sys
real = builtins.__import__
def watched(name, *rest):
    if name.split(".")[0] == "onnxruntime":
        assert os.environ.get("ORT_DISABLE_TELEMETRY") == "1", "it is loaded untold"
    return real(name, *rest)
builtins.__import__ = watched
from scope_edge import Router
with Router.load() as router:
    router.route("Why?")
assert "onnxruntime" in sys.modules
"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SCOPE_EDGE_", "ORT_"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=kept)
    assert done.returncode == 0, done.stderr


def test_a_touch_of_the_network_would_be_seen(env: Mapping[str, str], tmp_path: Path) -> None:
    done = route(code=f"{WATCHED}\nimport socket\nsocket.socket()", env=env, folder=tmp_path)
    assert done.returncode == 99
    assert "touched the network" in done.stderr
