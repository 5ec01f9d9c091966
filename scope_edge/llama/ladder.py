"""The rungs a worker is restarted down when llama.cpp crashes: as configured -> no repacking -> no GPU -> give up.

Repacked weights crash every processor with AMX (llama.cpp issue 20824), and a GPU can be out of memory: each rung takes
away what most likely did it. The rung that worked is remembered (memo.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rung:
    """name: for people and for the memory. repack: `use_extra_bufts`. gpu: whether a GPU may take part."""

    name: str
    repack: bool
    gpu: bool


FULL = Rung("as configured", repack=True, gpu=True)
PLAIN = Rung("no repacking", repack=False, gpu=True)
# Its process sees no GPU at all (launch.py): to look at one that is full ends it as well.
BARE = Rung("no GPU", repack=False, gpu=False)


def rungs(gpu_layers: int, begin: str | None = None) -> tuple[Rung, ...]:
    """The rungs to try, in order. Without a GPU the last one would be the same as the one before.

    begin: name of the rung that worked last time; those above it are left out.
    """
    ladder = (FULL, PLAIN, BARE) if gpu_layers else (FULL, PLAIN)
    names = [rung.name for rung in ladder]
    return ladder[names.index(begin) :] if begin in names else ladder
