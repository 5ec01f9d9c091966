"""Measure the prior on queries and models that nothing was fitted on, beside three routers trained on far more.

    python build_scripts/measure_prior.py --data ROUTING_DATA/zeroeval ... --cache FILE.npz --write anchors/README.md

Each seed holds out half of the queries (whole families in grouped sets) and a third of the models, by hash. Everything is
learned on the rest; each held-out model is then known by its outcomes on 25 or 250 core anchors. The others see *all* its
outcomes on the training half. Differences are paired (same models, same queries); intervals are a bootstrap over models
and queries.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from figures import write_figures
from learn import COVERAGE, Learned, learn, pool_prior
from pooled import read_pooled
from routing_data import held_out
from scores import ece, ece_floor, scores

from scope_edge.calibration import calibrate

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pooled import Pooled

    from scope_edge.difficulty import Place

    Floats = NDArray[np.float64]

SEEDS = (30, 31, 32, 33, 34)
SIZES = (25, 250)
# A held-out model is scored on a set where it has at least this many outcomes to be scored on.
LEAST_SCORED = 100
RESAMPLES = 200
BASELINES = ("5-NN vote, 250 anchors", "kNN(50), full", "logistic regression, full")
CLIP = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One held-out model on one set's held-out queries.

    p: router -> (n,) predictions. lengths: size -> (median, upper bound) (n,), tokens. queries: (n,) index in the table.
    """

    seed: int
    set_name: str
    model: str
    queries: NDArray[np.int64]
    categories: NDArray[np.str_]
    correct: Floats
    tokens: Floats
    p: Mapping[str, Floats]
    lengths: Mapping[int, tuple[Floats, Floats]]


def ours(size: int) -> str:
    """The name of the prior with so many anchors."""
    return f"scope-edge, {size} anchors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the routing data format")
    parser.add_argument("--cache", type=Path, help="file that keeps embeddings between runs (.npz)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--landmarks", type=int, default=3072)
    parser.add_argument("--write", type=Path, help="put the tables between the <!-- figures --> marks of this file")
    options = parser.parse_args()
    data = read_pooled(options.data, options.cache)
    found = [one for seed in options.seeds for one in measure(data, seed, options.landmarks)]
    text = "\n\n".join(report(found))
    print(text)
    if options.write:
        write_figures(options.write, text)


@dataclass(frozen=True, slots=True, eq=False)
class Unseen:
    """One set's part of a seed's split. models: held-out ones that can be scored there; placed: queries and their places."""

    seed: int
    set_number: int
    set_name: str
    learned: Learned
    train: Pooled
    test: Pooled
    models: Sequence[int]
    placed: Sequence[tuple[int, Place]]


def measure(data: Pooled, seed: int, landmarks: int) -> Iterator[Scored]:
    """Learn on one seed's training part and predict the rest."""
    for part in unseen(data, seed, landmarks):
        yield from _predict(part)


def unseen(data: Pooled, seed: int, landmarks: int) -> Iterator[Unseen]:
    """Learn on one seed's training part; what is left to be predicted, set by set."""
    unseen_queries = np.zeros(len(data.ids), bool)
    for s, name in enumerate(data.set_names):
        here = data.sets == s
        unseen_queries[here] = held_out(name, [group.partition(":")[2] for group in data.groups[here]], seed, 0.5)
    unseen_models = held_out("models", data.models.tolist(), seed, 1 / 3) & ~data.base
    learned = learn(data.take(~held_out("models", data.models.tolist(), seed, 1 / 3), ~unseen_queries), landmarks)
    print(f"seed {seed}: learned", flush=True)
    train = data.take(unseen_models, ~unseen_queries)
    test = data.take(unseen_models, unseen_queries)
    places = [learned.map.place_of(v, f) for v, f in zip(test.vectors, test.features, strict=True)]
    for s, name in enumerate(data.set_names):
        here = np.flatnonzero(test.sets == s)
        counts = np.isfinite(test.correct[:, here]).sum(axis=1)
        models = [
            m
            for m in np.flatnonzero(counts >= LEAST_SCORED)
            if len(np.unique(_known(train.correct[m, train.sets == s]) > 0.5)) == 2
        ]
        if models:
            yield Unseen(seed, s, name, learned, train, test, models, [(q, places[q]) for q in here])


def _predict(part: Unseen) -> Iterator[Scored]:
    """Every router's predictions for one set."""
    train, test, models, learned, placed = part.train, part.test, part.models, part.learned, part.placed
    here = np.array([q for q, _ in placed])
    anchors = learned.anchors[part.set_name]
    p: dict[str, Floats] = {}
    lengths: dict[int, tuple[Floats, Floats]] = {}
    for size in SIZES:
        prior = pool_prior(train, models, learned, anchors, size)
        estimates = [calibrate(prior.at(place, 1.0), learned.calibration) for _, place in placed]
        p[ours(size)] = np.array([one.p_correct for one in estimates])
        lengths[size] = (np.array([one.tokens for one in estimates]), np.array([one.tokens_hi for one in estimates]))
    rows = np.flatnonzero(train.sets == part.set_number)
    similarity = test.vectors[here] @ train.vectors[rows].T
    for column, m in enumerate(models):
        scored = np.isfinite(test.correct[m, here])
        outcomes = train.correct[m, rows]
        others = _baselines(train, rows, outcomes, similarity[scored], test.vectors[here[scored]], anchors.ids)
        mine = {router: values[scored, column] for router, values in p.items()}
        yield Scored(
            seed=part.seed,
            set_name=part.set_name,
            model=str(test.models[m]),
            queries=here[scored],
            categories=test.categories[here[scored]],
            correct=test.correct[m, here[scored]],
            tokens=test.tokens[m, here[scored]],
            p={router: np.clip(values, CLIP, 1 - CLIP) for router, values in {**mine, **others}.items()},
            lengths={size: (a[scored, column], b[scored, column]) for size, (a, b) in lengths.items()},
        )


def _baselines(
    train: Pooled,
    rows: NDArray[np.int64],
    outcomes: Floats,
    similarity: Floats,
    vectors: NDArray[np.float32],
    anchor_ids: Sequence[str],
) -> dict[str, Floats]:
    """What the three others say, from this model's own outcomes (n,) on the training rows."""
    from sklearn.linear_model import LogisticRegression

    known = np.isfinite(outcomes)
    anchor = known & np.isin(train.ids[rows], anchor_ids)
    vote = _mean_of_nearest(similarity[:, anchor], outcomes[anchor], 5)
    nearest = _mean_of_nearest(similarity[:, known], outcomes[known], 50)
    model = LogisticRegression(max_iter=300).fit(train.vectors[rows[known]], outcomes[known] > 0.5)
    return dict(zip(BASELINES, (vote, nearest, model.predict_proba(vectors)[:, 1]), strict=True))


def _mean_of_nearest(similarity: Floats, outcomes: Floats, k: int) -> Floats:
    """Mean outcome of the k most similar; a vote of few is moved off 0 and 1 by half a vote, as log-loss needs."""
    nearest = np.argpartition(-similarity, min(k, similarity.shape[1]) - 1, axis=1)[:, :k]
    mean: Floats = (outcomes[nearest].sum(axis=1) + 0.5) / (nearest.shape[1] + 1)
    return mean


def _known(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def report(found: list[Scored]) -> Iterator[str]:
    """The tables, as markdown."""
    names = list(dict.fromkeys(one.set_name for one in found))
    routers = [ours(size) for size in SIZES] + list(BASELINES)
    for name in names:
        here = [one for one in found if one.set_name == name]
        yield (
            f"### {name}: {len({one.model for one in here})} unseen models, {len(here)} model-seed pairs\n\n"
            + _prediction(here, routers)
        )
    yield "### Ahead of the others? (difference with 250 anchors, 95 % interval)\n\n" + _paired(found, names)
    yield "### Calibration and length, pooled over unseen models\n\n" + _calibration(found, names)
    yield "### Calibration by category (250 anchors, ECE above floor)\n\n" + _by_category(found)


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _prediction(here: list[Scored], routers: list[str]) -> str:
    rows = []
    for router in routers:
        values = np.array([_vector(one, router, np.ones(len(one.correct))) for one in here])
        p, y = _pooled(here, router)
        rows.append([router, *(f"{v:.4f}" for v in np.nanmean(values, axis=0)), f"{ece(p, y) - ece_floor(p):.3f}"])
    return table(["router", "AUC", "accuracy", "Brier", "log-loss", "ECE above floor"], rows)


def _vector(one: Scored, router: str, weights: Floats) -> list[float]:
    p = one.p[router]
    s = scores(p, one.correct, weights, np.argsort(p, kind="stable"))
    return [s.auc, s.accuracy, s.brier, s.logloss]


def _paired(found: list[Scored], names: list[str]) -> str:
    rows = []
    for name in names:
        here = [one for one in found if one.set_name == name]
        for router in [*BASELINES, ours(25)]:
            difference = resampled(here, ours(250), router)
            rows.append([name, router, *map(interval, difference.T)])
    return table(["set", "against", "AUC", "accuracy", "Brier (lower is better)", "log-loss (lower is better)"], rows)


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


def _pooled(here: list[Scored], router: str) -> tuple[Floats, Floats]:
    return np.concatenate([one.p[router] for one in here]), np.concatenate([one.correct for one in here])


def _calibration(found: list[Scored], names: list[str]) -> str:
    rows = []
    for name in [*names, "all"]:
        here = [one for one in found if name in ("all", one.set_name)]
        for size in SIZES:
            p, y = _pooled(here, ours(size))
            true = np.concatenate([one.tokens for one in here])
            median, high = (np.concatenate([one.lengths[size][k] for one in here]) for k in (0, 1))
            known = np.isfinite(true) & (true > 0) & np.isfinite(median)
            error = np.abs(np.log(true[known] / median[known]))
            covered = true[known] <= high[known]
            width = np.log(high[known] / median[known])
            figures = [np.median(error), covered.mean(), np.exp(np.median(width))]
            cells = [f"{ece(p, y) - ece_floor(p):.3f}", f"{figures[0]:.3f}", f"{figures[1]:.3f}", f"{figures[2]:.2f}"]
            rows.append([name, str(size), *cells])
    head = ["set", "anchors", "ECE above floor", "median abs log length error"]
    return table([*head, f"coverage of tokens_hi ({COVERAGE:.0%} asked)", "tokens_hi / tokens"], rows)


def _by_category(found: list[Scored]) -> str:
    categories = np.concatenate([one.categories for one in found])
    p, y = _pooled(found, ours(250))
    rows = []
    for category in np.unique(categories):
        at = categories == category
        gap = f"{p[at].mean() - y[at].mean():+.3f}"
        rows.append([category, str(int(at.sum())), f"{ece(p[at], y[at]) - ece_floor(p[at]):.3f}", gap])
    return table(["category", "predictions", "ECE above floor", "mean p - mean correct"], rows)


if __name__ == "__main__":
    main()
