"""What llama.cpp was built with, asked of a child process: importing native code may crash or hang, the asker may not."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

State = Literal["ok", "missing", "broken"]
_CHILD = Path(__file__).with_name("build_info.py")
_LIBRARY = "llama_cpp"
# Starting a GPU's runtime takes seconds where its driver is cold.
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LlamaBuild:
    """What is known of the installed llama.cpp.

    Attributes:
        state: "missing" = not installed, "broken" = installed but did not load.
        version: of llama-cpp-python. system_info: llama.cpp's own words on what it was built with.
        backends: what it can compute on, from those words, "CPU" among them. gpu_offload: whether it can use a GPU.
        problem: what went wrong, in words; None when nothing did.
    """

    state: State
    version: str | None = None
    system_info: str | None = None
    backends: tuple[str, ...] = ()
    gpu_offload: bool | None = None
    problem: str | None = None


def probe_llama(*, timeout: float = TIMEOUT_SECONDS, library: str | None = None) -> LlamaBuild:
    """Ask a child process. Never raises for what llama.cpp does.

    Args:
        timeout: seconds the child may take.
        library: a folder to look for llama_cpp in before all others; None = where this process would find it.
    """
    folders = ([library] if library else []) + _safe_path()
    if library is None and not _installed():
        return LlamaBuild("missing", problem="llama-cpp-python is not installed")
    # Isolated (-I): neither the current folder nor PYTHONPATH may put another llama_cpp in our way.
    command = [sys.executable, "-I", str(_CHILD), json.dumps(folders)]
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            cwd=_CHILD.parent,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return LlamaBuild("broken", problem=f"did not load within {timeout:g} seconds")
    except OSError as error:
        return LlamaBuild("broken", problem=f"no child process could be started ({error.strerror or error})")
    return _read(ended)


def _installed() -> bool:
    try:
        return find_spec(_LIBRARY) is not None
    except ValueError:
        return False


def _safe_path() -> list[str]:
    """Where this process imports from, without the current folder."""
    here = Path.cwd()
    return [entry for entry in sys.path if entry and Path(entry).is_absolute() and Path(entry) != here]


def _read(ended: subprocess.CompletedProcess[bytes]) -> LlamaBuild:
    answer: object = None
    with contextlib.suppress(ValueError):
        answer = json.loads(ended.stdout)
    if not isinstance(answer, dict):
        return LlamaBuild("broken", problem=_ending(ended))
    if "error" in answer:
        return LlamaBuild("broken", problem=f"cannot be imported ({answer['error']})")
    info = str(answer.get("system_info"))
    return LlamaBuild(
        "ok",
        version=str(answer.get("version")),
        system_info=info,
        backends=backends(info),
        gpu_offload=bool(answer.get("gpu_offload")),
        # A crash while unloading: the worker would meet it too, at its end.
        problem=None if ended.returncode == 0 else _ending(ended),
    )


def backends(system_info: str) -> tuple[str, ...]:
    """The names in "CUDA : ARCHS = 900 | CPU : SSE3 = 1 | AVX = 1 |": those before a colon."""
    parts = (part.partition(" : ") for part in system_info.split("|"))
    return tuple(dict.fromkeys(name.strip() for name, colon, _ in parts if colon))


def _ending(ended: subprocess.CompletedProcess[bytes]) -> str:
    """How a child without an answer ended, with the last thing it said."""
    said = ended.stderr.decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(said) if line.strip()), "")
    tail = f"; it last said: {last[:200]}" if last else ""
    if ended.returncode < 0:
        return f"crashed while loading ({_signal(-ended.returncode)}){tail}"
    return f"ended with exit code {ended.returncode} while loading{tail}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
