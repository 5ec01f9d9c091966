"""Index speed and recall: `python benchmarks/index.py`, `--long` for a million vectors.

Two tables: exact search over the bundled bank (or --vectors) against the plain scan, for queries left out of it and for
everyday text far from it; then the graph and exact search over 100,000 vectors, each a real embedding pushed aside at
random. With --long it is 1,000,000: 5 GB of memory, 4 GB of disk for a moment, and about twenty minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from scope_edge.encoding.encoder import Encoder
from scope_edge.encoding.hnsw import GraphParameters
from scope_edge.encoding.nearest import ExactIndex, Index, PackedIndex, build_index, from_body, pack_vectors
from scope_edge.storage import assets, packs
from scope_edge.types import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.types import Vector

T = TypeVar("T")
K = 10
BANK = "anchors/bank.pack"
# What people ask a chat assistant: little of it is near the bank's exam questions, which is the hard case for pruning.
EVERYDAY = (
    "hey, how are you doing today?",
    "what should I cook tonight with chicken and rice",
    "write me a short birthday poem for my grandmother who loves gardening",
    "can you recommend a good book about the Roman empire",
    "I feel a bit sad today and don't know why",
    "help me write an email to my landlord about a broken heater",
    "give me ten names for a small black cat",
    "tell me a joke about programmers",
    "plan a three day trip to Kyoto for a family with two kids",
    "how do I get red wine stains out of a carpet",
    "summarize the plot of Hamlet in two sentences",
    "what is the difference between a latte and a flat white",
    "my dog keeps barking at night, what can I do",
    "rewrite this to sound more polite: send me the file now",
    "what are good exercises for lower back pain",
    "compare iPhone and Android phones for an older person",
    "I need a cover letter for a barista job",
    "fix the grammar: me and him goes to school yesterday",
    "write a haiku about winter rain",
    "how do I change a flat tire",
    "write a SQL query that returns the top five customers by revenue",
    "my docker container exits with code 137, what does it mean",
    "bonjour, pouvez-vous m'aider avec mes devoirs ?",
    "draft a polite decline to a wedding invitation",
    "give me a vegan lasagna recipe",
    "should I buy or rent an apartment in Berlin",
    "make a packing list for a week of camping",
    "write a dialogue of two robots arguing about art",
    "how do I center a div in CSS",
    "what's a good gift for a man who has everything",
)


def real_vectors(path: Path | None) -> Vector:
    """Unit vectors of real text: every matrix in a .npz, a .npy, or the bundled bank."""
    if path is None:
        body = packs.unpack(assets.read(BANK), "bank", BANK)
        return from_body(body["vectors"], BANK).unpack()
    loaded: Any = np.load(path)
    rows = np.concatenate([loaded[name] for name in loaded]) if isinstance(loaded, Mapping) else loaded
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def perturbed(base: Vector, n: int, rng: np.random.Generator) -> Vector:
    """n unit vectors, each a row of `base` moved by 0.3 to 0.9 in a random direction (cosine to it 0.96 to 0.74)."""
    out = np.empty((n, base.shape[1]), np.float32)
    for start in range(0, n, 50_000):
        rows = base[rng.integers(len(base), size=min(50_000, n - start))]
        noise = rng.standard_normal(rows.shape, dtype=np.float32)
        noise *= rng.uniform(0.3, 0.9, (len(rows), 1)).astype(np.float32) / np.linalg.norm(noise, axis=1, keepdims=True)
        rows = rows + noise
        out[start : start + len(rows)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return out


def times(index: Index, queries: Vector, rounds: int, *, between: Vector | None = None) -> NDArray[np.float64]:
    """Milliseconds of every search, `rounds` times over: wall and processor time, shape (2, searches).

    `between` is read in between, to empty the caches. On a busy machine the processor's time is the one to look at.
    """
    out = []
    for _ in range(rounds):
        for query in queries:
            if between is not None:
                between.sum()
            start, used = perf_counter(), thread_time()
            index.search(query, K)
            out.append(((perf_counter() - start) * 1e3, (thread_time() - used) * 1e3))
    return np.array(out).T


def recall(index: Index, truth: list[set[int]], queries: Vector) -> float:
    found = [len(truth[i] & set(index.search(query, K)[0].tolist())) for i, query in enumerate(queries)]
    return float(np.mean(found)) / K


def took(work: Callable[[], T]) -> tuple[T, float]:
    start = perf_counter()
    result = work()
    return result, perf_counter() - start


def head(last: str) -> None:
    print(f"| queries, search | ms p50 / p95 | CPU ms p50 / p95 | {last} |\n|---|---|---|---|")


def row(name: str, milliseconds: NDArray[np.float64], more: str) -> None:
    (wall50, used50), (wall95, used95) = np.percentile(milliseconds, [50, 95], axis=1)
    print(f"| {name} | {wall50:.2f} / {wall95:.2f} | {used50:.2f} / {used95:.2f} | {more} |", flush=True)


def bank_table(base: Vector, sorts: Mapping[str, Vector], rounds: int) -> None:
    """Exact search at the size of the bank: plain scan, packed, and packed after other work emptied the caches."""
    packed = pack_vectors(base)
    index, start = took(lambda: PackedIndex(packed))
    plain, other = ExactIndex(base), np.ones(16_000_000, np.float32)
    print(f"\n{len(base):,} vectors, exact; packed index ready in {start * 1e3:.1f} ms\n")
    head("of the ten nearest float32 vectors")
    for sort, queries in sorts.items():
        truth = [set(plain.search(query, K)[0].tolist()) for query in queries]
        row(f"{sort}, plain scan", times(plain, queries, rounds), "1")
        same = f"{recall(index, truth, queries):.3f}"
        row(f"{sort}, packed", times(index, queries, rounds), same)
        row(f"{sort}, packed, caches emptied", times(index, queries, 1, between=other), same)


def large_table(base: Vector, n: int, sorts: Mapping[str, Vector], parameters: GraphParameters) -> None:
    """Graph against exact search at n perturbed vectors, and what it costs to build, cache and load the graph."""
    vectors = perturbed(base, n, np.random.default_rng(1))
    plain = ExactIndex(vectors)
    with tempfile.TemporaryDirectory() as folder:

        def build() -> Index:
            return build_index(vectors, "hnsw", cache_dir=Path(folder), identity=f"{n}", parameters=parameters)

        graph, built = took(build)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        _, loaded = took(build)
    print(f"\n{n:,} vectors, {parameters}:")
    print(f"built and cached in {built:.0f} s, cache {size / 1e6:.0f} MB, loaded in {loaded:.2f} s\n")
    head(f"recall@{K}")
    for sort, queries in sorts.items():
        truth = [set(plain.search(query, K)[0].tolist()) for query in queries]
        row(f"{sort}, plain scan", times(plain, queries[:30], 1), "1")
        row(f"{sort}, hnsw", times(graph, queries, 3), f"{recall(graph, truth, queries):.4f}")


def main() -> None:
    standard = GraphParameters()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, help=".npz or .npy of real unit vectors; default: the bundled bank")
    parser.add_argument("--n", type=int, default=100_000, help="perturbed vectors; 0 = only the bank's table")
    parser.add_argument("--long", action="store_true", help="a million perturbed vectors")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--links", type=int, default=standard.links)
    parser.add_argument("--width-build", type=int, default=standard.width_build)
    parser.add_argument("--width-search", type=int, default=standard.width_search)
    options = parser.parse_args()
    real = real_vectors(options.vectors)
    out = np.random.default_rng(0).permutation(len(real)) < 300
    encoder = Encoder.load()
    sorts = {
        "left out": real[out],
        "left out and pushed aside": perturbed(real[out], 100, np.random.default_rng(2)),
        "everyday": np.array([encoder.encode(Query(text)).vector for text in EVERYDAY]),
    }
    bank_table(real[~out], sorts, options.rounds)
    n = 1_000_000 if options.long else options.n
    if n:
        parameters = GraphParameters(options.links, options.width_build, options.width_search)
        large_table(real[~out], n, sorts, parameters)
    if sys.platform == "linux":
        import resource

        print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")


if __name__ == "__main__":
    main()
