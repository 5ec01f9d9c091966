"""What is remembered of a model on this machine: the rung that works, and how fast it ran there.

One small JSON file in the cache folder a model, llama.cpp build and machine; losing it costs one warm-up.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path

from scope_edge.errors import AssetError
from scope_edge.files import write_atomically
from scope_edge.llama.ladder import BARE

_WITHOUT_GPU_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker that has loaded a model, and its speed.

    Attributes:
        rung: how it was loaded, see ladder.py. load_seconds: from the start of its process until it could answer, warmed up;
            from files that were read before or not.
        prefill_tps: prompt tokens a second. decode_tps: of `lanes` samples decoded together, all in all.
        context: cells of cache it really has. gpu: whether a GPU takes part.
    """

    rung: str
    load_seconds: float
    prefill_tps: float
    decode_tps: float
    lanes: int
    context: int
    gpu: bool

    @property
    def batch_prompts(self) -> int:
        """How many prompts of eight samples it is best given at once."""
        return max(1, self.lanes // 8)

    def at_best(self, before: Ready | None) -> Ready:
        """With the better of both speeds, when it was loaded alike: other work on the machine only ever slows one down."""
        if before is None or before.rung != self.rung or before.gpu != self.gpu:
            return self
        prefill, decode = max(self.prefill_tps, before.prefill_tps), max(self.decode_tps, before.decode_tps)
        return replace(self, prefill_tps=prefill, decode_tps=decode)

    @property
    def prompt_seconds(self) -> float:
        """Of a usual prompt: 1,000 tokens read, eight samples of 80 written."""
        return 1000 / max(self.prefill_tps, 1e-6) + 640 / max(self.decode_tps, 1e-6)


def remembered(sha256: str, cache_dir: Path) -> Ready | None:
    """What the model was last ready with, on this machine and build; None = never measured."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        body = json.loads(_file(sha256, cache_dir).read_bytes())
        if body["ready"] is not None:
            return Ready(**body["ready"])
    return None


def remembered_rung(sha256: str, cache_dir: Path) -> str | None:
    """The rung to begin at; None = the first. A GPU that failed is given another chance after a while: it may have been full."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        file = _file(sha256, cache_dir)
        rung = str(json.loads(file.read_bytes())["rung"])
        if rung != BARE.name or time.time() - file.stat().st_mtime < _WITHOUT_GPU_SECONDS:
            return rung
    return None


def remember(sha256: str, cache_dir: Path, rung: str, ready: Ready | None) -> None:
    """Keep the rung, and what it was ready with. That it cannot be kept is no reason to fail."""
    body = {"rung": rung, "ready": None if ready is None else asdict(ready)}
    with contextlib.suppress(AssetError):
        write_atomically(_file(sha256, cache_dir), json.dumps(body).encode())


def _file(sha256: str, cache_dir: Path) -> Path:
    key = hashlib.sha256(f"{sha256} {_machine()}".encode()).hexdigest()[:24]
    return cache_dir / "llama" / f"{key}.json"


@cache
def _machine() -> str:
    """The llama.cpp build, the processor with its abilities, and the GPUs."""
    from scope_edge.gpus import gpu_names

    version = "none"
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version("llama-cpp-python")
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        processor = "|".join(
            next((line for line in lines if line.startswith(name)), "") for name in ("model name", "flags", "Features")
        )
    return f"{version}; {processor}; {', '.join(gpu_names())}"
