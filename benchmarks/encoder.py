"""What encoding costs: `python benchmarks/encoder.py`, with `--data FOLDER` for a stream of real queries.

Two tables. One query at a time, by length: the bare session call on token ids made beforehand, and `Encoder.encode`, in turn.
A stream of queries: bare session calls, one thread a core and one query a run, against `Encoder.encode_many`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from scope_edge.encoding.encoder import ONNX, TOKENIZER, WINDOW, Encoder
from scope_edge.encoding.session import usable_cores
from scope_edge.storage import assets
from scope_edge.types import Query

SENTENCE = "how many ways are there to seat seven guests around a table if two of them never sit next to each other"
WORDS = SENTENCE.split()
LENGTHS = {"short": 12, "medium": 60, "long": 240, "two windows": 400, "beyond the limit": 20_000}


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of a call, by the clock and of all cores together."""

    wall: list[float]
    processor: list[float]

    def __str__(self) -> str:
        return f"{median(self.wall):.2f} | {quantiles(self.wall, n=20)[-1]:.2f} | {median(self.processor):.2f}"


class Bare:
    """A session as the encoder makes it, and nothing around it."""

    def __init__(self, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(assets.read(ONNX), options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_buffer(assets.read(TOKENIZER))
        self.tokenizer.enable_truncation(WINDOW)

    def feed(self, text: str) -> dict[str, Any]:
        """What the session takes for a text, cut at one window."""
        ids = np.array([self.tokenizer.encode(text).ids], dtype=np.int64)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    def run(self, text: str) -> None:
        """Encode one text."""
        self.session.run(None, self.feed(text))


def print_latency(encoder: Encoder, bare: Bare, repeats: int) -> None:
    """One query at a time; ratios of medians, where both do the same work."""
    print("| query | windows | bare p50 | p95 | processor | encode p50 | p95 | processor | ratios |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, length in LENGTHS.items():
        text = " ".join(random.Random(length).choices(WORDS, k=length))
        windows = encoder.encode(Query(text)).windows
        run, feed = bare.session.run, bare.feed(text)
        plain, whole = in_turn((partial(run, None, feed), partial(encoder.encode, Query(text))), repeats)
        ratios = (median(whole.wall) / median(plain.wall), median(whole.processor) / median(plain.processor))
        ratio = " / ".join(f"{value:.2f}" for value in ratios) if windows == 1 else ""
        print(f"| {name}, {length} words | {windows} | {plain} | {whole} | {ratio} |")
    print("\nmilliseconds; ratios of wall and of processor time; where these differ much, something else was running\n")


def in_turn(calls: Sequence[Callable[[], object]], repeats: int) -> list[Times]:
    """Times of each call, `repeats` times, the calls taking turns so that a busy machine slows all alike."""
    times = [Times([], []) for _ in calls]
    for _ in range(repeats):
        for call, spent in zip(calls, times, strict=True):
            wall, processor = perf_counter(), process_time()
            call()
            spent.wall.append((perf_counter() - wall) * 1e3)
            spent.processor.append((process_time() - processor) * 1e3)
    return times


def print_stream(encoder: Encoder, bare: Bare, texts: Sequence[str], threads: int) -> None:
    """Queries a second, best of three rounds, in turn."""

    def plain() -> None:
        with ThreadPoolExecutor(threads) as pool:
            deque(pool.map(bare.run, texts), maxlen=0)

    def whole() -> None:
        deque(encoder.encode_many(Query(text) for text in texts), maxlen=0)

    slow, fast = (len(texts) / min(times.wall) * 1e3 for times in in_turn((plain, whole), 3))
    print(f"\n| {len(texts)} queries | a second |\n|---|---|\n| bare sessions | {slow:.0f} |")
    print(f"| encode_many | {fast:.0f} |\n| ratio | {fast / slow:.2f} |")


def stream_texts(data: Path | None, count: int) -> list[str]:
    """Real queries that fit one window, drawn by a fixed seed; without `data`, random words of like length."""
    rng = random.Random(0)
    if data is None:
        return [" ".join(rng.choices(WORDS, k=rng.randint(8, 200))) for _ in range(count)]
    texts: list[str] = []
    for path in sorted(data.glob("*/queries.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts += [text for text in (json.loads(line)["text"] for line in lines) if len(text) < 2 * WINDOW]
    return rng.sample(texts, count)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="What encoding costs.")
    parser.add_argument("--data", type=Path, help="folder of routing data sets, for the stream")
    parser.add_argument("--stream", type=int, default=1000, help="queries in the stream (default: 1000)")
    parser.add_argument("--repeats", type=int, default=100, help="times each query is encoded (default: 100)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="default: all cores")
    options = parser.parse_args()
    encoder = Encoder.load(threads=options.threads)
    print(f"{options.threads} threads, onnxruntime {onnxruntime.__version__}\n")
    print_latency(encoder, Bare(options.threads), options.repeats)
    print_stream(encoder, Bare(1), stream_texts(options.data, options.stream), options.threads)


if __name__ == "__main__":
    main()
