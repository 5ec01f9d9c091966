"""What llama.cpp was built with, found out in a child process: importing native code may crash or hang."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from scope_edge.providers.llama.process import ask_child, installed

State = Literal["ok", "missing", "broken"]
# Starting a GPU's runtime takes seconds where its driver is cold.
TIMEOUT_SECONDS = 60.0
_KINDS = ("ggml-cuda", "ggml-hip", "ggml-vulkan", "ggml-metal", "ggml-sycl")


@dataclass(frozen=True, slots=True)
class LlamaBuild:
    """The installed llama.cpp.

    Attributes:
        state: "missing" = not installed, "broken" = installed but did not load.
        version: of llama-cpp-python. system_info: llama.cpp's own description of its build.
        backends: what it can compute on, from that description, "CPU" among them. gpu_offload: whether it can use a GPU.
        problem: what went wrong, in words; None when nothing did.
    """

    state: State
    version: str | None = None
    system_info: str | None = None
    backends: tuple[str, ...] = ()
    gpu_offload: bool | None = None
    problem: str | None = None


def has_gpu_library() -> bool:
    """Return whether the installed llama.cpp brings a separate library for GPUs; it may also have one built in."""
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
        answer, problem = ask_child("build", doing="loading", timeout=timeout, gpu=True, library=library)
    except subprocess.TimeoutExpired:
        return LlamaBuild("broken", problem=f"did not load within {timeout:g} seconds")
    except OSError as error:
        return LlamaBuild("broken", problem=f"no child process could be started ({error.strerror or error})")
    if answer is None:
        return LlamaBuild("broken", problem=problem)
    if "error" in answer:
        return LlamaBuild("broken", problem=f"cannot be imported ({answer['error']})")
    info = str(answer.get("system_info"))
    # The problem is a crash while unloading, which a worker would meet at its end, too.
    return LlamaBuild("ok", str(answer.get("version")), info, backends(info), bool(answer.get("gpu_offload")), problem)


def backends(system_info: str) -> tuple[str, ...]:
    """Return the names in "CUDA : ARCHS = 900 | CPU : SSE3 = 1 | AVX = 1 |": those before a colon."""
    parts = (part.partition(" : ") for part in system_info.split("|"))
    return tuple(dict.fromkeys(name.strip() for name, colon, _ in parts if colon))
