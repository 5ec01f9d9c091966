"""What llama.cpp was built with, asked of a child process: importing native code may crash or hang, the asker may not."""

from __future__ import annotations

import contextlib
import json
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from scope_edge.providers.llama.process import child_command, child_folder, ending, installed

State = Literal["ok", "missing", "broken"]
# Starting a GPU's runtime takes seconds where its driver is cold.
TIMEOUT_SECONDS = 60.0
_KINDS = ("ggml-cuda", "ggml-hip", "ggml-vulkan", "ggml-metal", "ggml-sycl")


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


def has_gpu_library() -> bool:
    """Whether the installed llama.cpp brings a library for GPUs of some kind. Where none lies apart it may be built in."""
    try:
        found = find_spec("llama_cpp")
    except ValueError:
        return False
    folders = found.submodule_search_locations if found is not None else None
    names = [file.name for folder in folders or () for file in Path(folder, "lib").glob("*ggml-*")]
    return any(kind in name for name in names for kind in _KINDS)


def probe_llama(*, timeout: float = TIMEOUT_SECONDS, library: str | None = None) -> LlamaBuild:
    """Ask a child process. Never raises for what llama.cpp does.

    Args:
        timeout: seconds the child may take.
        library: a folder to look for llama_cpp in before all others; None = where this process would find it.
    """
    if library is None and not installed():
        return LlamaBuild("missing", problem="llama-cpp-python is not installed")
    try:
        ended = subprocess.run(
            child_command("probe_child.py", "build", library=library),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            cwd=child_folder(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return LlamaBuild("broken", problem=f"did not load within {timeout:g} seconds")
    except OSError as error:
        return LlamaBuild("broken", problem=f"no child process could be started ({error.strerror or error})")
    return _read(ended)


def _read(ended: subprocess.CompletedProcess[bytes]) -> LlamaBuild:
    answer: object = None
    with contextlib.suppress(ValueError):
        answer = json.loads(ended.stdout)
    if not isinstance(answer, dict):
        return LlamaBuild("broken", problem=ending(ended.returncode, ended.stderr, "loading"))
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
        problem=None if ended.returncode == 0 else ending(ended.returncode, ended.stderr, "loading"),
    )


def backends(system_info: str) -> tuple[str, ...]:
    """The names in "CUDA : ARCHS = 900 | CPU : SSE3 = 1 | AVX = 1 |": those before a colon."""
    parts = (part.partition(" : ") for part in system_info.split("|"))
    return tuple(dict.fromkeys(name.strip() for name, colon, _ in parts if colon))
