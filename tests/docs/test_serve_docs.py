"""The examples of docs/serve.md, run as they are written: only the port is another, for 8743 may be taken here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from chat_server import Said, serving
from cli_cases import PLACE
from repository import DOCS, ROOT, fences
from serve_cases import Served, served, settings

pytest.importorskip("httpx")
if any(find_spec(name) is None for name in ("uvicorn", "starlette", "prometheus_client")):
    pytest.skip("the extra `server` is not installed", allow_module_level=True)

TEXT = "Because air scatters short waves more."
PAGE = DOCS / "serve.md"


def example(name: str) -> str:
    (text,) = [fence.text for fence in fences(PAGE) if fence.before == f"<!-- run: {name} -->"]
    return text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home")
    programs = home / "bin"
    programs.mkdir()
    for name, module in (("scope-edge", "scope_edge"), ("llm", "llm")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        program.chmod(0o755)
    with serving(lambda *_: Said(TEXT, 12, 9)) as model, served(home, settings=settings(model, model)) as made:
        made.env["PATH"] = f"{programs}{os.pathsep}{made.env['PATH']}"
        made.env["PYTHONPATH"] = PLACE
        yield made


def run(server: Served, *command: str, **env: str) -> str:
    done = subprocess.run(
        command, env=server.env | env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(server: Served, text: str) -> str:
    return text.replace("127.0.0.1:8743", f"127.0.0.1:{server.port}")


def test_openais_client(server: Served) -> None:
    pytest.importorskip("openai")
    assert run(server, sys.executable, "-c", here(server, example("openai"))).endswith(f" {TEXT}\n")


def test_curl(server: Served) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    assert TEXT in run(server, "sh", "-c", here(server, example("curl")))
    (readme,) = [fence.text for fence in fences(ROOT / "README.md") if fence.language == "sh"]
    assert readme == example("curl")


def test_llm(server: Served, tmp_path: Path) -> None:
    pytest.importorskip("llm")
    (tmp_path / "extra-openai-models.yaml").write_text(here(server, example("llm.yaml")))
    assert run(server, "sh", "-c", example("llm"), LLM_USER_PATH=str(tmp_path)) == f"{TEXT}\n"


def test_a_shell_script(server: Served) -> None:
    assert run(server, "sh", "-c", example("shell")) == f"It says: {TEXT}\n"
    done = subprocess.run(
        ["sh", "-c", example("shell")],
        env=server.env | {"SCOPE_EDGE_MAX_TOKENS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr.splitlines()[-1]) == ("", "no answer (3)")


def test_a_child_process_of_node(server: Served, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = tmp_path / "app.js"
    script.write_text(example("node"))
    assert run(server, node, str(script)) == f"{TEXT}\n"
