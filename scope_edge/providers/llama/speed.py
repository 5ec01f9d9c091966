"""How a model is loaded on this machine: fallback configurations, and the speed cache of those that worked.

When llama.cpp crashes the worker restarts: as configured -> no repacking -> no GPU -> give up. Repacked weights crash every
processor with AMX (llama.cpp issue 20824), and a GPU can be out of memory: each step removes the most probable cause.
The cache is one small JSON file per model, llama.cpp build and machine; losing it costs one warm-up. Every load and every run adds
what it measured, as an exponentially decayed mean of speeds: one slow run lowers it by a fifth at most, and what lasts moves it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import threading
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from scope_edge.errors import AssetError
from scope_edge.providers.llama.process import llama_version
from scope_edge.storage.files import write_atomically

# After this a GPU that failed is tried again: it may have been full.
_WITHOUT_GPU_SECONDS = 3600.0
# The weight of the latest measurement.
_WEIGHT = 0.2
# Fewer tokens say little about a speed.
_LEAST_READ, _LEAST_WRITTEN = 64, 16
_learning = threading.Lock()
_revision = 0


@dataclass(frozen=True, slots=True)
class LoadConfiguration:
    """name: for people and for the cache. repack: `use_extra_bufts`. gpu: whether a GPU may take part."""

    name: str
    repack: bool
    gpu: bool


FULL = LoadConfiguration("as configured", repack=True, gpu=True)
PLAIN = LoadConfiguration("no repacking", repack=False, gpu=True)
# Its process sees no GPU at all (process.py): querying a full one ends it, too.
BARE = LoadConfiguration("no GPU", repack=False, gpu=False)


def fallback_configurations(gpu_layers: int, begin: str | None = None) -> tuple[LoadConfiguration, ...]:
    """Return the configurations to try, in order. begin: name of the one that worked last; earlier ones are left out."""
    known = (FULL, PLAIN, BARE) if gpu_layers else (FULL, PLAIN)  # without a GPU the last two would be equal
    names = [one.name for one in known]
    return known[names.index(begin) :] if begin in names else known


@dataclass(frozen=True, slots=True)
class SpeedRecord:
    """A worker that has loaded a model, and its speed.

    Attributes:
        rung: name of the configuration. load_seconds: from the start of its process until it was warmed up.
        prefill_tps: prompt tokens a second. decode_tps: of `lanes` samples decoded together, in total; alone_tps: of one answer.
        context: cells of cache it really has. gpu: whether a GPU takes part.
    """

    rung: str
    load_seconds: float
    prefill_tps: float
    alone_tps: float
    decode_tps: float
    lanes: int
    context: int
    gpu: bool

    @property
    def batch_prompts(self) -> int:
        """The best number of prompts of eight samples in one list."""
        return max(1, self.lanes // 8)

    def since(self, before: SpeedRecord | None) -> SpeedRecord:
        """Return it with the decayed means of both, if it was loaded alike. Answers tell more of `alone_tps` than a load."""
        if before is None or before.rung != self.rung or before.gpu != self.gpu:
            return self
        return replace(
            self,
            load_seconds=1 / _decayed(1 / before.load_seconds, 1 / self.load_seconds),
            prefill_tps=_decayed(before.prefill_tps, self.prefill_tps),
            alone_tps=before.alone_tps,
            decode_tps=_decayed(before.decode_tps, self.decode_tps),
        )

    def after(self, run: RunSpeed) -> SpeedRecord:
        """Return it with the decayed means after one more answer, as far as that was long enough to tell."""
        prefill, alone = self.prefill_tps, self.alone_tps
        if run.read >= _LEAST_READ and run.read_seconds > 0:
            prefill = _decayed(prefill, run.read / run.read_seconds)
        if run.written >= _LEAST_WRITTEN and run.write_seconds > 0:
            alone = _decayed(alone, run.written / run.write_seconds)
        return replace(self, prefill_tps=prefill, alone_tps=alone)

    @property
    def prompt_seconds(self) -> float:
        """Seconds of a usual prompt: 1,000 tokens read, eight samples of 80 written."""
        return 1000 / max(self.prefill_tps, 1e-6) + 640 / max(self.decode_tps, 1e-6)


@dataclass(frozen=True, slots=True)
class RunSpeed:
    """What one answer took: prompt tokens read, and tokens written, each with its seconds."""

    read: int
    read_seconds: float
    written: int
    write_seconds: float


def revision() -> int:
    """Return a number that changes whenever this process has learned a speed."""
    return _revision


def learn(sha256: str, cache_dir: Path, run: RunSpeed) -> None:
    """Add a run to the speed of a loaded model, if the cache can be written."""
    with _learning:
        known = remembered(sha256, cache_dir)
        if known is None or (better := known.after(run)) == known:
            return
        with contextlib.suppress(OSError):
            # The file's time says since when its configuration holds.
            time_of_load = _file(sha256, cache_dir).stat().st_mtime_ns
            remember(sha256, cache_dir, known.rung, better)
            os.utime(_file(sha256, cache_dir), ns=(time_of_load, time_of_load))


def _decayed(before: float, now: float) -> float:
    return before + _WEIGHT * (now - before)


def remembered(sha256: str, cache_dir: Path) -> SpeedRecord | None:
    """Return the last measured speed of a model, on this machine and build; None = never measured."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        body = json.loads(_file(sha256, cache_dir).read_bytes())
        if body["ready"] is not None:
            return SpeedRecord(**body["ready"])
    return None


def remembered_configuration(sha256: str, cache_dir: Path) -> str | None:
    """Return the name of the configuration to begin with; None = the first."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        file = _file(sha256, cache_dir)
        rung = str(json.loads(file.read_bytes())["rung"])
        if rung != BARE.name or time.time() - file.stat().st_mtime < _WITHOUT_GPU_SECONDS:
            return rung
    return None


def remember(sha256: str, cache_dir: Path, rung: str, ready: SpeedRecord | None) -> None:
    """Save a configuration's name and speed, if the cache can be written."""
    global _revision
    body = {"rung": rung, "ready": None if ready is None else asdict(ready)}
    with contextlib.suppress(AssetError):
        write_atomically(_file(sha256, cache_dir), json.dumps(body).encode())
    _revision += 1


def _file(sha256: str, cache_dir: Path) -> Path:
    key = hashlib.sha256(f"{sha256} {_machine()}".encode()).hexdigest()[:24]
    return cache_dir / "llama" / f"{key}.json"


@cache
def _machine() -> str:
    """Return the llama.cpp build, the processor with its features, and the GPUs."""
    from scope_edge.providers.llama.memory import gpu_names

    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        processor = "|".join(
            next((line for line in lines if line.startswith(name)), "") for name in ("model name", "flags", "Features")
        )
    return f"{llama_version()}; {processor}; {', '.join(gpu_names())}"
