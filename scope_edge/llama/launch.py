"""How child processes that load llama.cpp are started, and what is said when one ends badly.

A child is a script of this folder, run by its path. Its first argument is a JSON list: the folders to import from.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

# CUDA, HIP and Vulkan each have a list of the devices to show.
_NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1", "GGML_VK_VISIBLE_DEVICES": ""}
_FOLDER = Path(__file__).resolve().parent


def child_command(script: str, *arguments: str, library: str | None = None) -> list[str]:
    """The command that runs `script` (a file name in this folder) with `arguments`.

    Args:
        library: a folder to look for llama_cpp in before all others; None = where this process would find it.
    """
    folders = ([library] if library else []) + safe_path()
    # Isolated (-I): neither the current folder nor PYTHONPATH may put another llama_cpp in our way.
    return [sys.executable, "-I", str(_FOLDER / script), json.dumps(folders), *arguments]


def child_environment(*, gpu: bool) -> dict[str, str]:
    """The environment of a child. gpu: whether it may see one.

    llama.cpp asks every GPU it sees how much memory is left, even for a model that stays on the processor. Being asked takes
    memory itself, and where there is none the process ends: so what needs no GPU must not see one.
    """
    return dict(os.environ) if gpu else {**os.environ, **_NO_GPU}


def child_folder() -> Path:
    """The folder to start a child in: never the current one, from which native code could load things."""
    return _FOLDER


def installed() -> bool:
    """Whether llama-cpp-python is there to be tried; it is not loaded."""
    try:
        return find_spec("llama_cpp") is not None
    except ValueError:
        return False


def safe_path() -> list[str]:
    """Where this process imports from, without the current folder."""
    try:
        here: Path | None = Path.cwd()
    except OSError:  # it was deleted under us
        here = None
    return [entry for entry in sys.path if entry and Path(entry).is_absolute() and Path(entry) != here]


def ending(returncode: int, stderr: bytes, doing: str) -> str:
    """How a child without an answer ended, with the last thing it said: "crashed while loading (SIGSEGV); it last …".

    Args:
        doing: what it was at, as in "loading".
    """
    said = stderr.decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(said) if line.strip()), "")
    tail = f"; it last said: {last[:200]}" if last else ""
    if returncode < 0:
        return f"crashed while {doing} ({_signal(-returncode)}){tail}"
    return f"ended with exit code {returncode} while {doing}{tail}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
