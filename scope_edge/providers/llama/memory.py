"""The memory plan: where models go, and what the estimator may take of a machine that also holds the device model; its GPUs.

The device model stays where it is (on a GPU, if any). The estimator goes to the GPU if both fit there, else to the processor with
as much context as memory allows, else it does not run.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scope_edge.providers.llama.messages import ModelShape
from scope_edge.providers.llama.process import child_environment

Maker = Literal["nvidia", "amd", "apple"]
GIB = 2**30
# One GPU with memory of its own, or the machine's memory (an Apple GPU's too).
Store = Literal["gpu", "memory"]
# Cells of key-value cache: a long prompt with eight long samples, twice; once, the least; more at once on a GPU.
CONTEXT, LEAST_CONTEXT, GPU_CONTEXT = 12_288, 6_144, 32_768
# Memory of llama.cpp beside weights and cache: work space of a batch, rows of logits.
_WORK = GIB // 2
# Left to everything else.
SPARE = GIB
SPARE_GPU = GIB // 2
CPU_BATCH, GPU_BATCH = 256, 1024
_NVIDIA_SECONDS = 15.0
_AMD = "0x1002"
# Prompts at once, samples decoded at once, tokens of used prompts that stay cached: on the processor, and on a GPU.
Layouts = tuple[tuple[int, int, int], tuple[int, int, int]]
# Attention reads all cells in use: on the processor each kept prompt slows all decoding, and many samples at once win little
# (docs/benchmarks.md).
LIST_LAYOUTS: Layouts = ((8, 8, 0), (16, 64, GPU_CONTEXT))
# A conversation sends its history again, which takes long to read: some of it stays cached, and slows the others a little.
STREAM_LAYOUTS: Layouts = ((16, 8, 2048), (64, 64, GPU_CONTEXT // 2))


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    memory_gb, free_gb: all of its memory, and the free part, in units of 2^30 bytes; None = unknown (an Apple GPU uses the
    machine's). found_by: the program or file that lists it.
    """

    maker: Maker
    name: str
    memory_gb: float | None
    found_by: str
    free_gb: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How to load a model.

    Attributes:
        context: cells of key-value cache. batch: tokens decoded at once. gpu_layers: on the GPU, -1 = all.
        threads: cores. needs: bytes. why: one line for the user.
    """

    context: int
    batch: int
    gpu_layers: int
    threads: int
    needs: int
    why: str


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Why a model is not loaded: one line for the user."""

    why: str


def plan_estimator(
    shape: ModelShape,
    size: int,
    *,
    available: int | None,
    gpus: Sequence[Gpu] = (),
    resident_gb: float = 0.0,
    context: int | None = None,
) -> Plan | NoRoom:
    """Plan where the estimator goes.

    Args:
        shape, size: of its GGUF; size in bytes.
        available: bytes of free memory, None = unknown.
        gpus: the machine's. resident_gb: of the device model that must keep its place, in 10^9 bytes.
        context: cells; None = as many as are useful, fewer if memory is short.
    """
    beside = f", beside a device model of {resident_gb:.1f} GB" if resident_gb else ""

    def plan(cells: int, room: float, where: str, batch: int, gpu_layers: int) -> Plan | None:
        needs = _needs(shape, size, cells)
        why = f"{needs / GIB:.1f} GiB on {where} with a context of {cells:,} tokens{beside}"
        return Plan(cells, batch, gpu_layers, physical_cores(), needs, why) if needs <= room else None

    memory = float("inf") if available is None else available - SPARE
    own = next(((gpu.name, gpu.memory_gb) for gpu in gpus if gpu.memory_gb is not None), None)
    found = None
    if own is not None:
        name, gpu_gb = own
        found = plan(context or GPU_CONTEXT, gpu_gb * GIB - resident_gb * 1e9 - SPARE_GPU, name, GPU_BATCH, -1)
    elif any(gpu.maker == "apple" for gpu in gpus):  # it shares the machine's memory
        found = plan(context or GPU_CONTEXT, memory, "the Apple GPU", GPU_BATCH, -1)
    # A device model on the processor has its pages in memory, too; on a GPU it has not.
    taken = 0.0 if own is not None else resident_gb * 1e9
    for cells in (context,) if context else (CONTEXT, LEAST_CONTEXT):
        found = found or plan(cells, memory - taken, "the processor", CPU_BATCH, 0)
    if found is not None:
        return found
    short = f" beside a device model of {resident_gb:.1f} GB" if taken else ""
    needs = _needs(shape, size, context or LEAST_CONTEXT)
    return NoRoom(f"no room: it needs {needs / GIB:.1f} GiB{short} and {(available or 0) / GIB:.1f} GiB are free")


def _needs(shape: ModelShape, size: int, context: int) -> int:
    return size + shape.kv_bytes * context + _WORK


def available_memory() -> int | None:
    """Return the bytes of free memory, limits of a container included; None = unknown."""
    if sys.platform == "win32":
        return _windows_memory()
    total = _field(Path("/proc/meminfo"), "MemAvailable:")
    found = [amount for amount in (None if total is None else total * 1024, _cgroup()) if amount is not None]
    if found:
        return min(found)
    with contextlib.suppress(ValueError, OSError, AttributeError):
        # The free memory is unknown (macOS): count on half.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return None


def physical_cores() -> int:
    """Return the number of cores this process may use. Two threads of one core are no faster than one at this work."""
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


def _field(path: Path, name: str) -> int | None:
    """Return a number from a file with lines of a name and a number."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text("ascii", "replace").splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    return None


def _cgroup(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return what a container's limit leaves. File pages count as used there, but the kernel gives them up when needed."""
    with contextlib.suppress(OSError, ValueError):
        limit = (root / "memory.max").read_text().strip()
        if limit != "max":
            used = int((root / "memory.current").read_text()) - (_field(root / "memory.stat", "inactive_file ") or 0)
            return max(0, int(limit) - used)
    return None


def _windows_memory() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "available", "_a", "_b", "_c", "_d", "_e")),
        )

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined]
        return None
    return int(status.available)


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How to load a model that has the machine to itself. room: bytes that all models in the store may take."""

    plan: Plan
    store: Store
    room: float


class MemoryBudget:
    """The room for device models. Later use by other programs is seen in the machine's memory, not in a GPU's."""

    def __init__(self, reserved_bytes: int) -> None:
        """Note the free memory. reserved_bytes: of the estimator, loaded or not."""
        self._reserved = reserved_bytes
        self._begin = available_memory()
        self._lock = threading.Lock()
        self._gpus: tuple[Gpu, ...] | None = None

    def load_plan(self, shape: ModelShape, size: int, held: Mapping[Store, int]) -> LoadPlan | NoRoom:
        """Plan where a model goes. held: bytes of the loaded models, which count as free here.

        The estimator's share of a GPU is kept only if the model fits beside it: else the estimator goes elsewhere.
        """
        # Mapped weights count as free, though they are needed: so never more than at the beginning.
        available, now = self._begin, available_memory()
        if available is not None:
            available = (available if now is None else min(available, now + held["memory"])) - self._reserved
        whole = self.look()
        for kept in (self._reserved, 0):
            gpus = tuple(
                gpu if gpu.memory_gb is None else replace(gpu, memory_gb=gpu.memory_gb - kept / GIB) for gpu in whole
            )
            plan = plan_estimator(shape, size, available=available, gpus=gpus)
            own = next((gpu.memory_gb for gpu in gpus if gpu.memory_gb is not None), None)
            if isinstance(plan, Plan) and plan.gpu_layers and own is not None:
                return LoadPlan(plan, "gpu", own * GIB - SPARE_GPU)
        if isinstance(plan, NoRoom):
            return plan
        return LoadPlan(plan, "memory", float("inf") if available is None else available - SPARE)

    def look(self) -> tuple[Gpu, ...]:
        """Return the GPUs as they were before any model was loaded; found once, for that starts a process."""
        with self._lock:
            if self._gpus is None:
                self._gpus = usable_gpus()
            return self._gpus


def plan_device(shape: ModelShape, size: int) -> Plan | NoRoom:
    """Plan where a model goes on this machine as it is now: a GPU that llama.cpp can use, else the processor."""
    return plan_estimator(shape, size, available=available_memory(), gpus=usable_gpus())


def explain_no_room(shape: ModelShape, size: int) -> str | None:
    """Return why a model has no room on this machine now; None = it has.

    GPUs are queried only if the processor has no room, for that takes longer than a decision.
    """
    plan = plan_estimator(shape, size, available=available_memory())
    if isinstance(plan, NoRoom):
        plan = plan_device(shape, size)
    return plan.why if isinstance(plan, NoRoom) else None


def usable_gpus(held_gb: float = 0.0) -> tuple[Gpu, ...]:
    """Return the GPUs that the installed llama.cpp can use, with the free memory in place of all of it.

    held_gb: in 10^9 bytes, memory that the caller counts separately, so it is added to the free memory.
    """
    from scope_edge.providers.llama.probe import has_gpu_library, probe_llama

    found = find_gpus()
    # A child that loads a GPU's runtime takes a second.
    if not found or not (has_gpu_library() or probe_llama().gpu_offload is not False):
        return ()
    held = held_gb * 1e9 / GIB
    return tuple(
        gpu if gpu.free_gb is None else replace(gpu, memory_gb=min(gpu.free_gb + held, gpu.memory_gb or float("inf")))
        for gpu in found
    )


def find_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that llama.cpp could use if built for them."""
    return (*(tuple(_by_nvidia_smi()) or tuple(_by_nvidia_driver())), *_by_amd_driver(), *_apple())


def gpu_names() -> tuple[str, ...]:
    """Return the names of the GPUs, from the kernel's drivers if possible, which starts no process."""
    listed = (*_by_nvidia_driver(), *_by_amd_driver(), *_apple())
    return tuple(gpu.name for gpu in listed or find_gpus())


def read_nvidia_smi(text: str) -> Iterator[Gpu]:
    """Parse the output of nvidia-smi, one line a GPU: name, all and free memory in MiB."""
    for line in text.splitlines():
        name, *memory = (part.strip() for part in line.rsplit(",", 2))
        if len(memory) == 2 and name:
            total, free = (int(one) / 1024 if one.isdigit() else None for one in memory)
            yield Gpu("nvidia", name, total, "nvidia-smi", free)


def _by_nvidia_smi() -> Iterator[Gpu]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return
    command = [program, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired, subprocess.CalledProcessError):
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_NVIDIA_SECONDS,
            check=True,
            env=child_environment(gpu=True),
        ).stdout
        yield from read_nvidia_smi(answer.decode("utf-8", "replace"))


def _by_nvidia_driver(root: Path = Path("/proc/driver/nvidia/gpus")) -> Iterator[Gpu]:
    """Yield the GPUs of the kernel's driver: containers often have it without nvidia-smi."""
    for file in sorted(root.glob("*/information")):
        with contextlib.suppress(OSError):
            for line in file.read_text("utf-8", "replace").splitlines():
                key, _, value = line.partition(":")
                if key.strip() == "Model":
                    yield Gpu("nvidia", value.strip(), None, str(root))


def _by_amd_driver(root: Path = Path("/sys/class/drm"), compute: Path = Path("/dev/kfd")) -> Iterator[Gpu]:
    """Yield AMD GPUs, if the driver's compute device exists."""
    if not compute.exists():
        return
    for card in sorted(root.glob("card[0-9]*/device")):
        with contextlib.suppress(OSError, ValueError):
            if (card / "vendor").read_text().strip() == _AMD:
                total, used = (int((card / f"mem_info_vram_{one}").read_text()) / 2**30 for one in ("total", "used"))
                yield Gpu("amd", f"AMD {(card / 'device').read_text().strip()}", total, str(compute), total - used)


def _apple() -> Iterator[Gpu]:
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        yield Gpu("apple", "Apple GPU (Metal)", None, "every Mac of this kind has one")
