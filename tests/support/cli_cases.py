"""The command line as tests call it: in this process where that is enough, else in one of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chat_server import Server

import scope_edge
from scope_edge.cli.run import run

QUERY = "How many primes are there below one hundred?"
PLACE = str(Path(scope_edge.__file__).resolve().parent.parent)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON value it must be."""
        return json.loads(self.out, parse_constant=_no_constant)

    @property
    def lines(self) -> list[Any]:
        """Standard output as JSON lines."""
        return [json.loads(line, parse_constant=_no_constant) for line in self.out.splitlines()]

    @property
    def complaint(self) -> str:
        """Standard error, which must be one line."""
        (line,) = self.err.splitlines()
        assert line.startswith("scope-edge: ")
        return line.removeprefix("scope-edge: ")


def user(folder: Path) -> dict[str, str]:
    """The environment of a new user whose home is `folder`: no settings, no caches, nothing of ours set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SCOPE_EDGE_", "_SCOPE_EDGE"))}
    for name in ("NO_COLOR", "COLUMNS", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        kept.pop(name, None)
    ours = {
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, (PLACE, kept.get("PYTHONPATH")))),
        "SCOPE_EDGE_CONFIG": str(folder / "config.toml"),
        "SCOPE_EDGE_DATA_DIR": str(folder / "data"),
        "SCOPE_EDGE_CACHE_DIR": str(folder / "cache"),
    }
    return {**kept, **ours}


class Cli:
    """Calls commands in this process, as a new user."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._monkeypatch, self._capsys = monkeypatch, capsys
        for name in set(os.environ) - set(user(folder)):
            monkeypatch.delenv(name)
        for name, value in user(folder).items():
            monkeypatch.setenv(name, value)
        # A run installs its own.
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def __call__(self, *args: str, input: bytes | str = b"", settings: str | None = None) -> Ended:
        if settings is not None:
            (self.folder / "config.toml").write_text(settings, "utf-8")
        raw = input.encode() if isinstance(input, str) else input
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        code = run(args)
        out, err = self._capsys.readouterr()
        return Ended(code, out, err)


def command(*args: str) -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-m", "scope_edge", *args]


def spawn(
    args: Sequence[str], env: Mapping[str, str], *, input: bytes | None = None, folder: Path | None = None
) -> Ended:
    """Run scope-edge in a process of its own."""
    done = subprocess.run(command(*args), env=env, input=input, capture_output=True, check=False, cwd=folder)
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def without_timings(decision: Mapping[str, Any]) -> dict[str, Any]:
    """A decision without what differs from run to run."""
    return {key: value for key, value in decision.items() if key != "timings_ms"}


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def heed_ctrl_c() -> None:
    """For a child, before it begins: a shell that runs the tests in the background has its children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def server_card(server: Server, **fields: Any) -> str:
    """A settings file with a card for the server and a pool it is in."""
    body = {
        "where": "cloud",
        "usd_in": 1.0,
        "usd_out": 10.0,
        "endpoint": server.address,
        "key_env": "VENDOR_KEY",
    } | fields
    lines = [f"{name} = {json.dumps(value)}" for name, value in body.items()]
    return "\n".join(['[models."mine"]', *lines, "[pools]", 'both = ["mine", "llama-3.1-70b-instruct"]', ""])
