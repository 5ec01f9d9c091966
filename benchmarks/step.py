"""What a step of decoding costs beside llama.cpp: drawing tokens, turning them into text, sending it.

    python benchmarks/random_gguf.py tiny random-tiny.gguf
    python benchmarks/step.py random-tiny.gguf

The model gives the vocabulary (151,936 tokens); its decode is replaced by random logits that lie there already. Printed is
the processor time of this process for each token written, the best of three, what it takes to begin and to read prompts included.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from scope_edge.providers.llama import native
from scope_edge.providers.llama.batch import Batcher
from scope_edge.providers.llama.messages import Job, Layout, LoadOptions, Mode, Sampling, TextPiece, write_frames
from scope_edge.providers.llama.native import Native
from scope_edge.providers.llama.worker import Streams

LAYOUT = Layout(slots=64, lanes=64, batch=1024, keep=16_384, chunk=1024)


class Free(Native):
    """A model whose decode costs nothing."""

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__(path, LoadOptions(32_768, 128, 1024, 0, True, threads), lambda: False)
        draw = np.random.default_rng(0)
        self._rows = [draw.standard_normal((64, self.size)).astype(np.float32) * 2 for _ in range(4)]
        self.steps = 0

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int], wanted: Sequence[bool]
    ) -> Any:
        self._batch.fill(tokens, positions, sequences, wanted)
        self.steps += 1
        return self._rows[self.steps % 4][: sum(wanted)]


def streams(engine: Free, count: int, sampling: Sampling) -> float:
    """Seconds a token of so many streams."""
    written = 0
    with Path(os.devnull).open("wb") as pipe:

        def send(bodies: Sequence[dict[str, Any]]) -> None:
            nonlocal written
            written += sum(body["tokens"] for body in bodies if body["type"] == "end")
            write_frames(pipe, bodies)

        all_ = Streams(Batcher(engine, LAYOUT, lambda: False), send, set())
        begun = process_time()
        for number in range(count):
            job = Job((TextPiece(f"{number}: how many figs are there?"),), 1, "text", 64, sampling)
            all_.begin(number, job, None)
        while all_.busy:
            all_.advance()
        return (process_time() - begun) / written


def listed(engine: Free, prompts: int, mode: Mode) -> float:
    """Seconds a token of prompts with eight samples each."""
    batcher = Batcher(engine, LAYOUT, lambda: False)
    jobs = [Job((TextPiece(f"{n}: how many figs?"),), 8, mode, 64, Sampling(seed=n)) for n in range(prompts)]
    begun = process_time()
    results, _ = batcher.run(jobs)
    return (process_time() - begun) / sum(sample.tokens for result in results for sample in result.samples)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    native.start()
    engine = Free(options.model, options.threads)
    gc.freeze()  # as the worker does

    def show(name: str, seconds: Callable[[], float]) -> None:
        print(f"| {name} | {min(seconds() for _ in range(3)) * 1e6:.0f} |")

    print("| | microseconds a token |\n| --- | --- |")
    for count in (1, 8, 32, 64):
        for top_k, sampling in (("20", Sampling()), ("200", Sampling(1.0, 1.0, 200)), ("1", Sampling(0.0))):
            show(f"{count} streams, top_k {top_k}", lambda c=count, s=sampling: streams(engine, c, s))
    for prompts in (1, 7):
        show(f"cot, {prompts} prompts of 8 samples", lambda p=prompts: listed(engine, p, "cot"))


if __name__ == "__main__":
    main()
