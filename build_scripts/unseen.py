"""Models and queries that nothing was fitted on, for the scripts that measure: what a seed leaves to be predicted, and intervals."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.encoding.encoder import Encoder
from scope_edge.estimation.metrics import scores
from scope_edge.evaluation.splits import sources_of, split
from scope_edge.factory import open_catalog
from scope_edge.settings.config import Settings
from scope_edge.training.dataset import read_pooled
from scope_edge.training.learn import Learned, learn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.difficulty import MapPositions
    from scope_edge.training.dataset import Pooled
    from scope_edge.types import Floats

SEEDS = (30, 31, 32, 33, 34)
# A held-out model is scored on a set where it has at least this many outcomes to be scored on.
LEAST_SCORED = 100
RESAMPLES = 200
CLIP = 1e-4


def arguments(description: str | None, figures: str) -> argparse.Namespace:
    """What such a script is told: data, cache, seeds, and a document whose figures of this name it writes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the routing data format")
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings between runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument(
        "--write", type=Path, help=f"put the tables between the <!-- figures: {figures} --> marks of this file"
    )
    return parser.parse_args()


def read(folders: Sequence[Path], cache: Path | None) -> Pooled:
    """The sets as one table. cache: a folder that keeps embeddings between runs."""
    return read_pooled(sources_of(folders), open_catalog(Settings()), Encoder.load(), cache=cache).data


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One held-out model on one set's held-out queries.

    p: way of predicting -> (n,) predictions. queries: (n,) index in the table.
    """

    seed: int
    set_name: str
    model: str
    queries: NDArray[np.int64]
    correct: Floats
    p: Mapping[str, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Unseen:
    """One set's part of a seed's split.

    models: held-out ones that can be scored there, index in `test`. rows: queries of the set, likewise; positions: theirs.
    """

    seed: int
    set_number: int
    set_name: str
    learned: Learned
    train: Pooled
    test: Pooled
    models: Sequence[int]
    rows: NDArray[np.intp]
    positions: MapPositions


def unseen(data: Pooled, seed: int) -> Iterator[Unseen]:
    """Learn on one seed's training part; what is left to be predicted, set by set."""
    parted = split(data, seed)
    learned = learn(data.take(~parted.unseen, parted.taught))
    print(f"seed {seed}: learned", flush=True)
    train = data.take(parted.unseen, parted.taught)
    test = data.take(parted.unseen, parted.scored)
    for s, name in enumerate(data.set_names):
        here = np.flatnonzero(test.sets == s)
        counts = np.isfinite(test.correct[:, here]).sum(axis=1)
        models = [
            m
            for m in np.flatnonzero(counts >= LEAST_SCORED)
            if len(np.unique(_known(train.correct[m, train.sets == s]) > 0.5)) == 2
        ]
        if models:
            positions = learned.irt.map.places_of(*test.encoded(here))
            yield Unseen(seed, s, name, learned, train, test, models, here, positions)


def _known(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def resampled(here: list[Scored], first: str, second: str) -> Floats:
    """Mean paired difference of the four scores: row 0 as measured, then resampled over models and queries."""
    rng = np.random.default_rng(0)
    orders = [[np.argsort(one.p[router], kind="stable") for router in (first, second)] for one in here]
    top = max(int(one.queries.max()) for one in here) + 1
    models = sorted({one.model for one in here})
    out = []
    for draw in range(RESAMPLES + 1):
        seeds = {one.seed: np.ones(top) if draw == 0 else rng.poisson(1.0, top).astype(float) for one in here}
        share = (
            dict.fromkeys(models, 1.0) if draw == 0 else dict(zip(models, rng.poisson(1.0, len(models)), strict=True))
        )
        rows, weights = [], []
        for one, (a, b) in zip(here, orders, strict=True):
            if not share[one.model]:
                continue
            w = seeds[one.seed][one.queries]
            x, y = (scores(one.p[r], one.correct, w, o) for r, o in ((first, a), (second, b)))
            rows.append([x.auc - y.auc, x.accuracy - y.accuracy, x.brier - y.brier, x.logloss - y.logloss])
            weights.append(share[one.model])
        if rows:  # a draw of few models may have left them all out
            out.append(_weighted_mean(np.array(rows), np.array(weights)))
    return np.array(out)


def _weighted_mean(table: Floats, weights: Floats) -> Floats:
    """Of every column of (rows, columns), over its rows that are known."""
    known = np.isfinite(table)
    share = np.where(known, weights[:, None], 0.0)
    with np.errstate(invalid="ignore"):
        mean: Floats = (np.where(known, table, 0.0) * share).sum(axis=0) / share.sum(axis=0)
    return mean


def interval(values: Floats) -> str:
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return f"{values[0]:+.4f} [{low:+.4f}, {high:+.4f}]"
