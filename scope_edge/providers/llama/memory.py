"""The one memory plan: what the estimator may take of a machine that also has to hold the device model.

The device model stays where it is (on the GPU if there is one); the estimator goes to the GPU if both fit there, else to
the processor with as much context as memory allows, else it is not run at all.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scope_edge.providers.llama.gpus import Gpu
from scope_edge.providers.llama.messages import AnswerFormat

if TYPE_CHECKING:
    pass

GIB = 2**30
# One GPU with memory of its own, or the machine's memory (an Apple GPU's too).
Store = Literal["gpu", "memory"]
# Cells of key-value cache: a long prompt with eight long samples, twice; half of it will do; a GPU takes more at once.
CONTEXT, LEAST_CONTEXT, GPU_CONTEXT = 12_288, 6_144, 32_768
# What llama.cpp takes beside weights and cache: work space of a batch, rows of logits.
_WORK = GIB // 2
# Left to everything else.
SPARE = GIB
SPARE_GPU = GIB // 2
CPU_BATCH, GPU_BATCH = 256, 1024
# Prompts at once, samples decoded at once, tokens of used prompts that stay in the cache: on the processor, and on a GPU.
Layouts = tuple[tuple[int, int, int], tuple[int, int, int]]
# Attention looks at all cells in use, whoever's they are: on the processor each kept prompt slows all decoding, and many
# samples at once win little there (docs/benchmarks.md).
LIST_LAYOUTS: Layouts = ((8, 8, 0), (16, 64, GPU_CONTEXT))
# A conversation sends all that was said again, and reading that takes long: some of it stays, and costs the others attention.
STREAM_LAYOUTS: Layouts = ((16, 8, 2048), (64, 64, GPU_CONTEXT // 2))


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is to be loaded.

    Attributes:
        context: cells of key-value cache. batch: tokens decoded at once. gpu_layers: on the GPU, -1 = all.
        threads: cores. needs: bytes it will take. why: one line for people.
    """

    context: int
    batch: int
    gpu_layers: int
    threads: int
    needs: int
    why: str


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Why a model is not loaded: one line for people."""

    why: str


def plan_estimator(
    shape: AnswerFormat,
    size: int,
    *,
    available: int | None,
    gpus: Sequence[Gpu] = (),
    resident_gb: float = 0.0,
    context: int | None = None,
) -> Plan | NoRoom:
    """Where the estimator goes.

    Args:
        shape, size: of its GGUF; size in bytes.
        available: bytes of memory that can be had, None = unknown.
        gpus: what is there. resident_gb: of the device model that must keep its place, in 10^9 bytes.
        context: cells asked for; None = as many as serve, fewer where memory is short.
    """
    cores = physical_cores()
    gpu = next((one for one in gpus if one.memory_gb is not None), None)
    if gpu is not None and gpu.memory_gb is not None:
        wanted = context or GPU_CONTEXT
        needs = _needs(shape, size, wanted)
        room = gpu.memory_gb * GIB - resident_gb * 1e9 - SPARE_GPU
        if needs <= room:
            return Plan(wanted, GPU_BATCH, -1, cores, needs, _line(needs, wanted, gpu.name, resident_gb))
    elif any(one.maker == "apple" for one in gpus):
        # One memory for both: what fits the machine fits the GPU.
        wanted, needs = context or GPU_CONTEXT, _needs(shape, size, context or GPU_CONTEXT)
        if available is None or needs + SPARE <= available:
            return Plan(wanted, GPU_BATCH, -1, cores, needs, _line(needs, wanted, "the Apple GPU", resident_gb))
    # A device model on the processor has its pages in memory too; on a GPU it has not.
    beside = 0.0 if gpu is not None else resident_gb * 1e9
    for wanted in (context,) if context else (CONTEXT, LEAST_CONTEXT):
        needs = _needs(shape, size, wanted)
        if available is None or needs + beside + SPARE <= available:
            return Plan(wanted, CPU_BATCH, 0, cores, needs, _line(needs, wanted, "the processor", resident_gb))
    short = "" if not beside else f" beside a device model of {resident_gb:.1f} GB"
    have = 0 if available is None else available
    return NoRoom(f"no room: it needs {needs / GIB:.1f} GiB{short} and {have / GIB:.1f} GiB can be had")


def _needs(shape: AnswerFormat, size: int, context: int) -> int:
    return size + shape.kv_bytes * context + _WORK


def _line(needs: int, context: int, where: str, resident_gb: float) -> str:
    beside = f", beside a device model of {resident_gb:.1f} GB" if resident_gb else ""
    return f"{needs / GIB:.1f} GiB on {where} with a context of {context:,} tokens{beside}"


def available_memory() -> int | None:
    """Bytes of memory that can be had now, limits of a container included; None = unknown."""
    if sys.platform == "win32":
        return _windows_memory()
    found = [amount for amount in (_meminfo(), _cgroup()) if amount is not None]
    if found:
        return min(found)
    with contextlib.suppress(ValueError, OSError, AttributeError):
        # No word on what is free (macOS): count on half.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return None


def physical_cores() -> int:
    """Cores this process may use. Two threads of one core are no faster than one at this work."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
        pairs = set()
        for block in text.split("\n\n"):
            fields = dict(line.split(":", 1) for line in block.splitlines() if ":" in line)
            known = {key.strip(): value.strip() for key, value in fields.items()}
            if "core id" in known:
                pairs.add((known.get("physical id"), known["core id"]))
        if pairs:
            return max(1, min(usable, len(pairs)))
    return usable


def _meminfo(path: Path = Path("/proc/meminfo")) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text("ascii", "replace").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _cgroup(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container's limit leaves. Pages of files that were read count as used there, and are given up when needed."""
    with contextlib.suppress(OSError, ValueError):
        limit = (root / "memory.max").read_text().strip()
        if limit != "max":
            return max(0, int(limit) - int((root / "memory.current").read_text()) + _given_up(root))
    return None


def _given_up(root: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "memory.stat").read_text().splitlines():
            name, size = line.split()
            if name == "inactive_file":
                return int(size)
    return 0


def _windows_memory() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "available", "_a", "_b", "_c", "_d", "_e")),
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel: object = getattr(ctypes, "windll", None)
    if kernel is None or not kernel.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined]
        return None
    return int(status.available)


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How a model would be loaded if it had the machine to itself. room: bytes all models in that store may take."""

    plan: Plan
    store: Store
    room: float


class MemoryBudget:
    """Room for device models. What others take later is seen in the machine's memory, not in a GPU's."""

    def __init__(self, reserved_bytes: int) -> None:
        """reserved_bytes: what the estimator takes, or will."""
        self._reserved = reserved_bytes
        self._begin = available_memory()
        self._lock = threading.Lock()
        self._gpus: tuple[Gpu, ...] | None = None

    def load_plan(self, shape: AnswerFormat, size: int, held: Mapping[Store, int]) -> LoadPlan | NoRoom:
        """Where a model goes. held: what those that are loaded take, which counts as free here.

        The estimator's share is kept from a GPU only where the model fits beside it: it is the one to go elsewhere.
        """
        available = self._available(held["memory"])
        if available is not None:
            available -= self._reserved
        whole = self.look()
        for kept in (self._reserved, 0):
            gpus = tuple(_less(gpu, kept) for gpu in whole)
            plan = plan_estimator(shape, size, available=available, gpus=gpus)
            own = next((gpu.memory_gb for gpu in gpus if gpu.memory_gb is not None), None)
            if isinstance(plan, Plan) and plan.gpu_layers and own is not None:
                return LoadPlan(plan, "gpu", own * GIB - SPARE_GPU)
        if isinstance(plan, NoRoom):
            return plan
        return LoadPlan(plan, "memory", float("inf") if available is None else available - SPARE)

    def _available(self, held: int) -> int | None:
        """Bytes of memory there would be without the models that are loaded; None = unknown.

        Weights that a model only mapped count as free, though they are needed: so never more than at the beginning.
        """
        now = available_memory()
        return self._begin if self._begin is None or now is None else min(self._begin, now + held)

    def look(self) -> tuple[Gpu, ...]:
        """The GPUs as they were before any model was loaded; looked for once, for that starts a process."""

        with self._lock:
            if self._gpus is None:
                self._gpus = usable_gpus()
            return self._gpus


def _less(gpu: Gpu, kept: int) -> Gpu:
    return gpu if gpu.memory_gb is None else replace(gpu, memory_gb=gpu.memory_gb - kept / GIB)


def plan_device(shape: AnswerFormat, size: int) -> Plan | NoRoom:
    """Where a model goes on this machine as it is now: on a GPU that llama.cpp can use, else on the processor."""
    return plan_estimator(shape, size, available=available_memory(), gpus=usable_gpus())


def usable_gpus(held_gb: float = 0.0) -> tuple[Gpu, ...]:
    """The GPUs that the installed llama.cpp can use, with the memory that is free now in place of all of it.

    held_gb: in 10^9 bytes, what may be taken by what is counted anyway, and so is free too, as far as there is so much.
    """
    from scope_edge.providers.llama.gpus import find_gpus
    from scope_edge.providers.llama.probe import has_gpu_library, probe_llama

    found = find_gpus()
    # A child that loads a GPU's runtime just to be asked takes a second.
    if not found or not (has_gpu_library() or probe_llama().gpu_offload is not False):
        return ()
    return tuple(gpu if gpu.free_gb is None else replace(gpu, memory_gb=_free(gpu, held_gb)) for gpu in found)


def _free(gpu: Gpu, held_gb: float) -> float:
    free = (gpu.free_gb or 0.0) + held_gb * 1e9 / GIB
    return free if gpu.memory_gb is None else min(free, gpu.memory_gb)
