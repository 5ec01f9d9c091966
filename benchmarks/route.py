"""What routing costs beside encoding alone: `python benchmarks/route.py`, with `--data FOLDER` for a stream of real queries.

Every figure is a ratio of two things measured in turn in one run, so that a busy or slow machine slows both; medians of
`--rounds`. Processor time is shown beside wall time: where the two differ much, something else was running.

1. `scope-edge --help` against importing click.
2. A cold `scope-edge route` against the floor: a script that loads the encoder's files plainly and encodes the same query.
3. A warm decision without its encoding, for the default pool and for a pool of `--models`; the whole against the encoding.
4. A stream through `--jsonl` against encoding the same queries the same way, and its memory for more and more lines.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, thread_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scope_edge.pipeline import Pipeline

QUERY = "How many primes are there below one hundred?"
ROUTE = (sys.executable, "-m", "scope_edge", "route")
CLICK = (sys.executable, "-c", "import click")
HELP = (sys.executable, "-m", "scope_edge", "--help")
FLOOR = """
import sys
import numpy
import onnxruntime
import tokenizers

folder = sys.argv[1]
tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
session = onnxruntime.InferenceSession(f"{folder}/encoder.onnx", providers=["CPUExecutionProvider"])
ids = numpy.array([tokenizer.encode(sys.argv[2]).ids], dtype=numpy.int64)
session.run(None, {"input_ids": ids, "attention_mask": numpy.ones_like(ids)})
"""
# The stream's floor: the same encoder, threads and reading of lines, and nothing after it.
STREAM_FLOOR = """
import json
import sys
from scope_edge.encoding.encoder import Encoder
from scope_edge.types import Query

with open(sys.argv[1], encoding="utf-8") as lines:
    for _ in Encoder.load().encode_many(Query(json.loads(line)["text"]) for line in lines):
        pass
"""


@dataclass(frozen=True)
class Cost:
    """One run: wall and processor seconds, and peak memory in MB."""

    wall: float
    cpu: float
    peak: float


def run(command: Sequence[str]) -> Cost:
    """Run a command to its end, its output thrown away; it must succeed."""
    start = perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = perf_counter() - start
    if status:
        sys.exit(f"{' '.join(command)[:200]} failed")
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale)


def in_turn(commands: Mapping[str, Sequence[str]], rounds: int) -> Mapping[str, list[Cost]]:
    """Run the commands in turn, `rounds` times over, after one run each that warms the disk's cache."""
    for command in commands.values():
        run(command)
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            costs[name].append(run(command))
    return costs


def compare(title: str, ours: Sequence[str], floor: Sequence[str], rounds: int, goal: str) -> None:
    costs = in_turn({"ours": ours, "floor": floor}, rounds)
    pairs = list(zip(costs["ours"], costs["floor"], strict=True))
    wall = median(a.wall for a, _ in pairs), median(b.wall for _, b in pairs)
    row(title, *wall, median(a.wall / b.wall for a, b in pairs), median(a.cpu / b.cpu for a, b in pairs), goal)


def row(title: str, ours: float, floor: float, ratio: float, cpu_ratio: float, goal: str) -> None:
    print(
        f"| {title} | {ours * 1e3:.{digits(ours)}f} | {floor * 1e3:.{digits(floor)}f} "
        f"| {ratio:.2f} | {cpu_ratio:.2f} | {goal} |",
        flush=True,
    )


def digits(seconds: float) -> int:
    return 0 if seconds >= 0.1 else 2


def cold(rounds: int) -> None:
    from scope_edge.storage import assets

    folder = str(assets.bundled_root() / "models" / "encoder")
    print("\n| cold start | ms | floor ms | ratio | ratio of CPU time | goal |\n|---|---|---|---|---|---|")
    compare("`--help` : `import click`", HELP, CLICK, rounds, "1.5")
    floor = (sys.executable, "-c", FLOOR, folder, QUERY)
    compare("`route` : encoder alone", (*ROUTE, QUERY), floor, rounds, "1.25")


def queries_of(folder: Path | None) -> list[str]:
    """Texts to route: of a routing data set, 2,000 spread over it, or else the lines of this project's own documents."""
    if folder is None:
        documents = sorted((Path(__file__).resolve().parent.parent / "docs").glob("*.md"))
        return [line for path in documents for line in path.read_text("utf-8").splitlines() if len(line) > 40]
    with gzip.open(folder / "queries.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    return texts[:: max(1, len(texts) // 2000)][:2000]


def warm(texts: Sequence[str], rounds: int, models: int) -> None:
    """Decisions in a process that is running: without the encoding, for two sizes of pool, and with it."""
    from scope_edge.encoding.encoder import Encoder
    from scope_edge.factory import load_pipeline
    from scope_edge.settings.config import load_settings
    from scope_edge.types import Preference, Query

    encoder, settings = Encoder.load(), load_settings()
    routers = {"default pool": load_pipeline(settings), f"{models:,} models": large_router(models)}
    queries = [Query(text) for text in texts[: 20 * rounds]]
    encoded = [encoder.encode(query) for query in queries]
    preference = Preference()
    print("\n| warm decision, already encoded | p50 ms | p95 ms | CPU p50 ms | goal p50 |\n|---|---|---|---|---|")
    for (name, router), goal in zip(routers.items(), ("1", "5"), strict=True):
        runs = [timed(partial(router.decide, one, preference)) for one in encoded]
        walls = sorted(wall for wall, _ in runs)
        tail = quantiles(walls, n=20)[-1]
        used = median(used for _, used in runs)
        print(f"| {name} | {median(walls) * 1e3:.2f} | {tail * 1e3:.2f} | {used * 1e3:.2f} | {goal} |", flush=True)
    router = routers["default pool"]
    pairs = [(timed(partial(router.route, one, preference)), timed(partial(encoder.encode, one))) for one in queries]
    print("\n| warm, whole | ms | floor ms | ratio | ratio of CPU time | goal |\n|---|---|---|---|---|---|")
    row(
        "decision : encoding alone",
        median(ours[0] for ours, _ in pairs),
        median(floor[0] for _, floor in pairs),
        median(ours[0] / floor[0] for ours, floor in pairs),
        median(ours[1] / floor[1] for ours, floor in pairs),
        "1.15",
    )


def large_router(size: int) -> Pipeline:
    """A router over `size` models: the fingerprinted ones of the catalog over and over, under other names."""

    from scope_edge.encoding.encoder import Encoder
    from scope_edge.estimation.anchors import load_bank
    from scope_edge.estimation.fingerprints import load_fingerprints
    from scope_edge.estimation.irt import IrtEstimator, load_irt_model
    from scope_edge.factory import open_catalog
    from scope_edge.pipeline import Pipeline
    from scope_edge.policy.policy import PoolPolicy
    from scope_edge.policy.pool import prepared_pool
    from scope_edge.settings.config import load_settings

    real = load_fingerprints()[1]
    measured = [card for card in open_catalog(load_settings()).cards if card.id in real]
    originals = list(islice(cycle(measured), size))
    pool = tuple(replace(card, id=f"{card.id}#{i}") for i, card in enumerate(originals))
    fingerprints = {copy.id: real[card.id] for copy, card in zip(pool, originals, strict=True)}
    basis = load_irt_model()
    prior = IrtEstimator(basis, pool, fingerprints, coverage=0.9)
    prepared = prepared_pool(pool, prior, basis.reference)
    return Pipeline(encoder=Encoder.load(), bank=load_bank(), estimator=prior, policy=PoolPolicy(pool, prepared))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds and this thread's processor seconds of one call."""
    start, used = perf_counter(), thread_time()
    work()
    return perf_counter() - start, thread_time() - used


def stream(texts: Sequence[str], rounds: int, lengths: Sequence[int]) -> None:
    """Lines a second through --jsonl against encoding alone, and peak memory as the stream gets longer."""
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder) / "queries.jsonl", texts)
        ours = (*ROUTE, "--jsonl", str(path))
        costs = in_turn({"ours": ours, "floor": (sys.executable, "-c", STREAM_FLOOR, str(path))}, rounds)
        pairs = list(zip(costs["ours"], costs["floor"], strict=True))
        print(f"\n| {len(texts):,} lines | lines/s | floor lines/s | ratio | ratio of CPU time | goal |")
        print("|---|---|---|---|---|---|")
        speed = [len(texts) / median(pair[i].wall for pair in pairs) for i in (0, 1)]
        ratio, used = (median(getattr(b, kind) / getattr(a, kind) for a, b in pairs) for kind in ("wall", "cpu"))
        print(
            f"| `--jsonl` : encoding | {speed[0]:.0f} | {speed[1]:.0f} | {ratio:.2f} | {used:.2f} | 0.9 |", flush=True
        )
        print("\n| lines | peak memory, MB |\n|---|---|")
        for length in lengths:
            path = written(Path(folder) / f"{length}.jsonl", list(islice(cycle(texts), length)))
            print(f"| {length:,} | {run((*ROUTE, '--jsonl', str(path))).peak:.0f} |", flush=True)


def written(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], help="cold, warm, stream; default: all")
    parser.add_argument("--data", type=Path, help="a folder of routing data; default: lines of the documents")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", type=int, default=1000, help="size of the large pool")
    parser.add_argument("--lines", type=int, nargs="+", default=[500, 2000, 8000], help="lengths to see memory at")
    options = parser.parse_args()
    parts, texts = options.parts or ["cold", "warm", "stream"], queries_of(options.data)
    if "cold" in parts:
        cold(options.rounds)
    if "warm" in parts:
        warm(texts, options.rounds, options.models)
    if "stream" in parts:
        stream(texts, max(1, options.rounds // 5), options.lines)


if __name__ == "__main__":
    main()
