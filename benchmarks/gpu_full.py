"""A GPU whose memory another program holds: the worker must come up on the processor and answer.

    python benchmarks/random_gguf.py 0.6b random-0.6b.gguf
    python benchmarks/gpu_full.py random-0.6b.gguf

Loads a model with the GPU free, then again with all but 256 MiB of it taken, and prints on which rung of the ladder it came up,
how fast, and what it answered. NVIDIA only, through the driver's own library. Ends with 1 when the model did not answer.
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scope_edge.providers.llama.client import LlamaClient
from scope_edge.providers.llama.memory import Plan, physical_cores
from scope_edge.providers.llama.messages import Job, TextPiece

MIB = 2**20
LEFT = 256 * MIB


@contextmanager
def taken() -> Iterator[str]:
    """Hold the first GPU's memory meanwhile; yields what is held, in words."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        yield "no NVIDIA driver, nothing is held"
        return

    def ask(name: str, *arguments: object) -> None:
        code = getattr(driver, name)(*arguments)
        if code:
            raise SystemExit(f"the driver's {name} ended with {code}")

    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total, held = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_uint64()
    ask("cuInit", 0)
    ask("cuDeviceGet", ctypes.byref(device), 0)
    ask("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    ask("cuCtxSetCurrent", context)
    ask("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    size = max(free.value - LEFT, MIB)
    ask("cuMemAlloc_v2", ctypes.byref(held), ctypes.c_size_t(size))
    try:
        yield f"{size / 2**30:.1f} of {total.value / 2**30:.1f} GiB are held"
    finally:
        ask("cuMemFree_v2", held)
        ask("cuDevicePrimaryCtxRelease_v2", device)


def load(model: Path, gpu_layers: int, what: str) -> None:
    """Load it and have it write a few tokens."""
    plan = Plan(context=6144, batch=256, gpu_layers=gpu_layers, threads=physical_cores(), needs=0, why="")
    with tempfile.TemporaryDirectory() as folder, LlamaClient(model, "full", plan, cache_dir=Path(folder)) as client:
        ready = client.start(200)
        results, _ = client.run([Job((TextPiece("How many figs are there?"),), 1, "text", 8)], 60)
        (sample,) = results[0].samples
        if not sample.tokens:
            raise SystemExit(f"{what}: nothing was written")
        print(
            f"{what}: rung {ready.rung!r} in {ready.load_seconds:.1f} s, reads {ready.prefill_tps:,.0f} tokens/s,"
            f" writes {ready.decode_tps:,.0f}; {sample.tokens} tokens answered"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--gpu-layers", type=int, default=-1)
    options = parser.parse_args()
    load(options.model, options.gpu_layers, "free")
    with taken() as held:
        load(options.model, options.gpu_layers, held)


if __name__ == "__main__":
    main()
