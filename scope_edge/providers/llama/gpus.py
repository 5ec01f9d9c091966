"""The GPUs of this machine, found without any library."""

from __future__ import annotations

import contextlib
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Maker = Literal["nvidia", "amd", "apple"]
_SECONDS = 15.0
_AMD = "0x1002"


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
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=True
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
