"""How llama.cpp's threads should wait for each other: `python benchmarks/waiting.py GGUF`.

Idle OpenMP threads spin by default, which is fastest on an idle machine and slowest on a busy one: a thread that waits for
another one keeps it from running. Each way of waiting answers the same prompt in a worker of its own, on an idle machine and
beside processes that compute; printed are milliseconds a token, the median of `--rounds` and (the worst).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from scope_edge.providers.llama.client import LlamaClient
from scope_edge.providers.llama.memory import Plan
from scope_edge.providers.llama.messages import Job, Message, Sampling

WAYS = {
    "active": {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "infinite", "KMP_BLOCKTIME": "infinite"},
    "the library's own": {"KMP_BLOCKTIME": "200"},
    "brief (the default here)": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"},
}
VARIABLES = tuple(WAYS["passive"])
SPIN = "while True: pass"
TALK = (Message("user", "Tell me a long story about a river."),)


def milliseconds(gguf: Path, threads: int, tokens: int, rounds: int) -> tuple[float, float]:
    """Time one way of waiting, as the environment says."""
    plan = Plan(context=1024, batch=128, gpu_layers=0, threads=threads, needs=0, why="")
    job = Job((), tokens, "text", 1, Sampling(temperature=0.0), TALK)
    with tempfile.TemporaryDirectory() as cache, LlamaClient(gguf, "unchecked", plan, cache_dir=Path(cache)) as client:
        client.run([job], 600.0)
        found = []
        for _ in range(rounds):
            begun = perf_counter()
            ((reply,), _) = client.run([job], 600.0)
            found.append((perf_counter() - begun) * 1000 / max(reply.samples[0].tokens, 1))
    return median(found), max(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(
        f"{options.threads} threads\n\n| waiting | idle, ms a token | beside 1 busy process | beside {os.cpu_count()} |"
    )
    print("| --- | --- | --- | --- |")
    for name, variables in WAYS.items():
        for variable in VARIABLES:
            os.environ.pop(variable, None)
        os.environ.update(variables)
        cells = []
        for busy in (0, 1, os.cpu_count() or 1):
            others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(busy)]
            try:
                cells.append(milliseconds(options.gguf, options.threads, options.tokens, options.rounds))
            finally:
                for other in others:
                    other.kill()
        print(f"| {name} | {' | '.join(f'{middle:.1f} ({worst:.1f})' for middle, worst in cells)} |", flush=True)


if __name__ == "__main__":
    main()
