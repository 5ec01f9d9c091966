"""Two things that a map which has learned difficulty may fool itself about, checked.

    python build_scripts/check_map.py --data ROUTING_DATA/zeroeval ... --cache FOLDER --write anchors/README.md

Another domain: learned on all sets but one, what the map says of the one left out, with the encoder's states and without.
Its own queries: calibration and lengths of held-out models on training queries, as the map has them with their families left
out of it, and on held-out ones. Anchors are training queries: were the two apart, abilities fitted to anchors would be off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from figures import table, write_figures
from unseen import CLIP, LEAST_SCORED, Unseen, arguments, read, unseen

from scope_edge.estimation.difficulty import Kernel
from scope_edge.estimation.metrics import scores
from scope_edge.estimation.newton import fit_platt, logit, sigmoid
from scope_edge.training.fit_map import fit_map
from scope_edge.training.joint_fit import fit_joint, fit_lengths
from scope_edge.training.learn import CORE_SIZE, MOST_LANDMARKS, pool_estimator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.difficulty import MapPositions
    from scope_edge.estimation.irt import IrtEstimator
    from scope_edge.training.dataset import Pooled
    from scope_edge.types import Floats

WITH, WITHOUT = Kernel(), replace(Kernel(), turn=0.0)


def main() -> None:
    options = arguments(__doc__, "map")
    data = read(options.data, options.cache)
    text = "\n\n".join((another_domain(data), own_queries(data, options.seeds)))
    print(text)
    if options.write:
        write_figures(options.write, text, "map")


def another_domain(data: Pooled) -> str:
    """A row a set: correlation with the queries' own difficulty and length, and AUC by difficulty alone over all models."""
    joint = fit_joint(data.correct, data.sets)
    rows = []
    for number, name in enumerate(data.set_names):
        there = data.sets == number
        rest = _without(data, number)
        fit, lengths = fit_joint(rest.correct, rest.sets), fit_lengths(rest.tokens, rest.sets)
        own = fit_lengths(data.tokens[:, there], np.zeros(there.sum(), np.int64))
        figures = []
        for kernel in (WITHOUT, WITH):
            fitted, _ = fit_map(rest, fit, lengths, min(MOST_LANDMARKS, len(rest) // 4), kernel=kernel)
            places = fitted.places_of(data.vectors[there], data.states[there], data.features[there])
            figures.append(
                [
                    np.corrcoef(places.difficulty, joint.b[there])[0, 1],
                    _mean_auc(-places.difficulty, data.correct[:, there][~data.base]),
                    np.corrcoef(places.log_length, own)[0, 1],
                ]
            )
        rows.append([name, *(f"{value:.3f}" for pair in zip(*figures, strict=True) for value in pair)])
    head = ["left out", "difficulty: without states", "with", "AUC: without", "with", "log-length: without", "with"]
    return "Learned on all sets but one; correlations, and AUC by difficulty alone:\n\n" + table(head, rows)


def _without(data: Pooled, number: int) -> Pooled:
    """The table without a set, and without the models that were measured on nothing else."""
    rest = data.take(np.ones(len(data.models), bool), data.sets != number)
    names = tuple(name for i, name in enumerate(data.set_names) if i != number)
    rest = replace(rest, set_names=names, sets=rest.sets - (rest.sets > number))
    return rest.take(np.isfinite(rest.correct).any(axis=1), np.ones(len(rest), bool))


def _mean_auc(values: Floats, correct: Floats) -> float:
    found = []
    for row in correct:
        known = np.isfinite(row)
        if known.sum() >= LEAST_SCORED:
            p = sigmoid(values[known])
            found.append(scores(p, row[known]).auc)
    return float(np.nanmean(found))


def own_queries(data: Pooled, seeds: list[int]) -> str:
    """A row a set: slope and intercept of outcomes on predicted log-odds, and share of lengths under the bound."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for seed in seeds:
        for part in unseen(data, seed):
            found.setdefault(part.set_name, []).append(np.array(list(_taught_and_fresh(part))))
    rows = []
    for name, values in found.items():
        stacked = np.array(values)
        means = stacked.mean(axis=0)
        apart = stacked[:, 1] - stacked[:, 0]
        error = apart.std(axis=0, ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else np.full(3, np.nan)
        cells = [
            f"{means[0, i]:.3f} | {means[1, i]:.3f} | {apart[:, i].mean():+.3f} ± {error[i]:.3f}" for i in range(3)
        ]
        rows.append([name, *cells])
    head = ["set"]
    for title in ("slope", "intercept", "lengths covered (0.9 asked)"):
        head += [f"{title}: training queries", "held-out", "difference"]
    return (
        f"Held-out models by {CORE_SIZE} anchors at random (half of a set's queries where these are fewer), on the other training"
        f" queries and on held-out ones, means and standard errors over {len(seeds)} splits:\n\n" + table(head, rows)
    )


def _taught_and_fresh(part: Unseen) -> Iterator[list[float]]:
    """(slope, intercept, coverage) of all models of the part together: on training queries, then on held-out ones."""
    whole = part.learned.whole[part.set_name]
    order = np.random.default_rng(part.seed).permutation(len(whole))
    # At random, so that what is left is as fair a sample as the held-out queries are.
    anchors = whole.take(order[: min(CORE_SIZE, len(order) // 2)].tolist())
    prior = pool_estimator(part.train, part.models, part.learned, anchors, CORE_SIZE)
    own = np.flatnonzero(part.train.sets == part.set_number)
    own = own[~np.isin(part.train.ids[own], anchors.ids)]
    for table_, rows, places in (
        (part.train, own, part.learned.positions.take(own)),
        (part.test, part.rows, part.positions),
    ):
        yield _calibration(table_, part, rows, places, prior)


def _calibration(
    data: Pooled, part: Unseen, rows: NDArray[np.intp], places: MapPositions, prior: IrtEstimator
) -> list[float]:
    said = prior.table(places, np.ones(len(places)))
    correct, tokens = (values[np.ix_(part.models, rows)].T for values in (data.correct, data.tokens))
    known, counted = np.isfinite(correct), tokens > 0
    slope, intercept = fit_platt(logit(said.p_correct[known], CLIP), correct[known], np.zeros((2, 2)))
    covered = float((tokens[counted] <= said.tokens_hi[counted]).mean()) if counted.any() else np.nan
    return [slope, intercept, covered]


if __name__ == "__main__":
    main()
