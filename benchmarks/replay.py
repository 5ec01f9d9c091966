"""How long an evaluation takes beside encoding: many queries, models and alphas replayed, on made-up outcomes and vectors.

    python benchmarks/replay.py --queries 10000 --models 30

The map is the bundled one; the queries are random unit vectors near its bank's. What is timed is what `scope-edge eval` does with
one split once a bank is learned: placing, estimating, choosing at 21 alphas by both policies, and scoring.
"""

from __future__ import annotations

import argparse
from time import perf_counter

import numpy as np

from scope_edge.encoding.multilingual import DIMENSION
from scope_edge.estimation.anchors import load_bank_vectors
from scope_edge.estimation.difficulty import FEATURES
from scope_edge.estimation.fingerprints import load_fingerprints
from scope_edge.estimation.irt import load_irt_model
from scope_edge.evaluation import curves, prediction_scores, replay
from scope_edge.evaluation.fit import Part, nearest_similarity
from scope_edge.evaluation.predict import SplitPredictions
from scope_edge.evaluation.splits import Split
from scope_edge.training.dataset import Pooled
from scope_edge.types import ModelCard

ALPHAS = tuple(round(0.05 * i, 2) for i in range(21))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--models", type=int, default=30)
    options = parser.parse_args()
    basis, prints = load_irt_model(), load_fingerprints()[1]
    names = sorted(prints)[: options.models]
    data = made_up(names, options.queries)
    every = np.ones(options.queries, bool)
    start = perf_counter()
    part = Part(
        data=data,
        split=Split(0, every, ~every, np.zeros(len(names), bool)),
        set_number=0,
        irt=basis,
        reference=basis.reference,
        material=data.take(np.ones(len(names), bool), np.arange(options.queries) < 250),
        rows=np.arange(options.queries),
        positions=basis.map.places_of(*data.encoded(slice(None))),
        similarity=nearest_similarity(data.vectors, load_bank_vectors()),
        prompts=(data.text_tokens, 2 * data.text_tokens),
        models=np.arange(len(names)),
        unseen=np.zeros(len(names), bool),
        prints={name: prints[name] for name in names},
    )
    cards = [
        ModelCard(id=name, where="cloud", usd_in=0.1 * (i + 1), usd_out=0.3 * (i + 1)) for i, name in enumerate(names)
    ]
    estimator = part.estimator(cards, 250, 0.9)
    table = estimator.table(part.positions, part.similarity)
    found = SplitPredictions(
        part=part,
        anchors=250,
        estimator=estimator,
        table=table,
        p={"scope-edge": np.clip(table.p_correct, 1e-4, 1 - 1e-4)},
        correct=data.correct.T,
        tokens=data.tokens.T,
        by_size={250: table},
        mean_tokens=np.full(len(names), 200.0),
    )
    estimated = perf_counter()
    replayed = replay.replay(cards, [found], ALPHAS)
    points, singles = replay.points(replayed), replay.singles(replayed)
    curves.curves(points, singles)
    chosen = perf_counter()
    prediction_scores.prediction_scores([found])
    done = perf_counter()
    print(f"| {options.queries:,} queries x {len(names)} models | seconds |\n|---|---|")
    print(f"| placed and estimated | {estimated - start:.1f} |")
    print(f"| chosen at {len(ALPHAS)} alphas by both policies, and weighed | {chosen - estimated:.1f} |")
    print(f"| predictions scored | {done - chosen:.1f} |")
    print(f"| in all (goal 20) | {done - start:.1f} |")


def made_up(models: list[str], queries: int) -> Pooled:
    """Outcomes by chance, on vectors near the bank's."""
    rng = np.random.default_rng(0)
    bank = load_bank_vectors()
    vectors = bank[rng.integers(0, len(bank), queries)] + 0.02 * rng.standard_normal((queries, bank.shape[1]))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    shape = (len(models), queries)
    ids = np.array([f"q{i}" for i in range(queries)])
    return Pooled(
        models=np.array(models),
        base=np.zeros(len(models), bool),
        correct=(rng.random(shape) < 0.6).astype(np.float64),
        tokens=rng.integers(20, 800, shape).astype(np.float64),
        prompt_tokens=np.full(shape, np.nan),
        usd=np.full(shape, np.nan),
        set_names=("made-up",),
        sets=np.zeros(queries, np.int64),
        domain_names=("made-up",),
        domains=np.zeros(queries, np.int64),
        ids=ids,
        texts=ids.astype(object),
        groups=ids.astype(object),
        categories=np.full(queries, "made-up/any"),
        task=np.full(queries, -1),
        expected=np.full((queries, 2), np.nan),
        text_tokens=rng.integers(20, 400, queries).astype(np.float64),
        vectors=vectors,
        states=vectors,
        multilingual=rng.standard_normal((queries, DIMENSION)).astype(np.float32),
        features=rng.standard_normal((queries, FEATURES)),
    )


if __name__ == "__main__":
    main()
