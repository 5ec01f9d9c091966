"""Does a set that the map placed get better once models have been measured on it? On queries and models nothing was fitted on.

    python build_scripts/measure_refit.py --data ROUTING_DATA/zeroeval ... --cache FOLDER --write docs/benchmarks.md

The splits are those of `scope-edge eval`. Up to 250 of a set's training queries, drawn at random, play a set of the user's: placed
by the map with their families left out of it, ordered as core-250 is, by what the map says. Some of the seed's training models
"are measured" on it and refit it, known by their outcomes on the other sets' core anchors too where they have some; then every
held-out model answers the first anchors and is predicted on held-out queries: on such as the anchors are ("alike"), and, with
anchors of one half of the set's categories, on those of the other half ("apart"). Beside it the same with difficulties from the
map alone, and from the joint fit of all training models. Differences are paired; intervals are a bootstrap over models and
queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from figures import table, write_figures
from unseen import CLIP, LEAST_SCORED, Scored, Unseen, arguments, interval, read, resampled, unseen

from scope_edge.estimation.ability import softening
from scope_edge.estimation.anchors import AnchorSet
from scope_edge.estimation.fingerprints import Fingerprint
from scope_edge.estimation.metrics import scores
from scope_edge.estimation.newton import logit
from scope_edge.estimation.refit import anchors_for
from scope_edge.evaluation.splits import split
from scope_edge.training.learn import core_of, fingerprint, pool_estimator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.training.dataset import Pooled
    from scope_edge.types import Floats

MEASURED = (1, 2, 5, 10, 20)
SIZES = (25, 250)
MAP, JOINT = "map", "joint fit"
# What is set against the map alone.
PAIRED = ("refit by 2", "refit by 10", JOINT)
# Held-out queries of a set that are predicted, at most, drawn by the seed.
QUERIES = 1000


def main() -> None:
    options = arguments(__doc__, "refit")
    data = read(options.data, options.cache)
    found: list[Scored] = []
    for seed in options.seeds:
        known = data.take(~split(data, seed).unseen & ~data.base, np.ones(len(data), bool))
        for part in unseen(data, seed):
            for apart in (False, True):
                found += predicted(part, known, apart=apart)
    text = "\n\n".join(report(found))
    print(text)
    if options.write:
        write_figures(options.write, text, "refit")


def predicted(part: Unseen, known: Pooled, *, apart: bool) -> Iterator[Scored]:
    """Every held-out model of one set, by anchors as hard as each way has it. known: the training models."""
    rng = np.random.default_rng(part.seed)
    own = part.train.sets == part.set_number
    categories = rng.permutation(np.unique(part.train.categories[own]))
    anchoring = set((categories[: len(categories) // 2] if apart else categories).tolist())
    scoring = set(categories.tolist()) - anchoring if apart else anchoring
    usable = np.flatnonzero(np.isin(part.test.categories[part.rows], list(scoring)))
    kept = rng.permutation(usable)[:QUERIES]
    part = replace(part, rows=part.rows[kept], positions=part.positions.take(kept))
    placed, joint = own_set(part, np.flatnonzero(own & np.isin(part.train.categories, list(anchoring))))
    ways = {MAP: placed, **refits(part, known, placed), JOINT: joint}
    p = {f"{way}, {size}": _probabilities(part, anchors, size) for way, anchors in ways.items() for size in SIZES}
    here = part.rows
    for column, m in enumerate(part.models):
        scored = np.isfinite(part.test.correct[m, here])
        if scored.sum() < LEAST_SCORED or not len(_known(part.train, m, joint)):
            continue
        yield Scored(
            seed=part.seed,
            set_name=f"{part.set_name}, {'apart' if apart else 'alike'}",
            model=str(part.test.models[m]),
            queries=here[scored],
            correct=part.test.correct[m, here[scored]],
            p={name: np.clip(values[scored, column], CLIP, 1 - CLIP) for name, values in p.items()},
        )


def _known(train: Pooled, model: int, anchors: AnchorSet) -> Floats:
    outcomes = fingerprint(train, model, anchors).correct
    return outcomes[np.isfinite(outcomes)]


def own_set(part: Unseen, usable: NDArray[np.int64]) -> tuple[AnchorSet, AnchorSet]:
    """Some of these training queries as `placing.place` would make a user's set of them, and as the joint fit has them."""
    learned, train = part.learned, part.train
    rows = np.random.default_rng(part.seed).permutation(usable)[: SIZES[-1]]
    places = learned.positions.take(rows)
    domains, difficulty = places.domains, places.difficulty
    joint = AnchorSet(
        name=part.set_name,
        ids=tuple(train.ids[rows].tolist()),
        categories=tuple(train.categories[rows].tolist()),
        vectors=train.vectors[rows],
        prompt_tokens=train.text_tokens[rows],
        difficulty=learned.joint.b[rows],
        discrimination=learned.joint.a[rows],
        log_length=places.log_length,
        map_difficulty=difficulty,
        domains=domains,
        traits=places.traits,
        linked=False,
    )
    population = learned.irt.population
    slope = domains @ population.discrimination
    factor = softening(slope, domains @ population.unexplained)
    placed = replace(joint, difficulty=difficulty, discrimination=slope * factor, traits=joint.traits * factor[:, None])
    ordered = core_of(placed, np.ones(len(rows)), population, len(rows))
    at = {id: i for i, id in enumerate(joint.ids)}
    return ordered, joint.take([at[id] for id in ordered.ids])


def refits(part: Unseen, known: Pooled, placed: AnchorSet) -> Mapping[str, AnchorSet]:
    """The set refitted by the first so many training models, in an order drawn by the seed."""
    others = [one for name, one in part.learned.anchors.items() if name != part.set_name]
    measured: list[tuple[str, tuple[Fingerprint, ...]]] = []
    for m in np.random.default_rng(part.seed).permutation(len(known.models)):
        own = fingerprint(known, m, placed)
        if np.isfinite(own.correct).sum() >= LEAST_SCORED:
            elsewhere = [one for one in (fingerprint(known, m, anchors) for anchors in others) if _any(one)]
            measured.append((own.model, (own, *elsewhere)))
    return {
        f"refit by {count}": anchors_for("", placed, dict(measured[:count]), part.learned.irt)
        for count in MEASURED
        if count <= len(measured)
    }


def _any(one: Fingerprint) -> bool:
    return bool(np.isfinite(one.correct).any())


def _probabilities(part: Unseen, anchors: AnchorSet, size: int) -> Floats:
    """P(correct) of every query and model, (queries, models), known by the first `size` anchors seen in one way."""
    prior = pool_estimator(part.train, part.models, part.learned, anchors, size)
    return prior.table(part.positions, np.ones(len(part.positions))).p_correct


def report(found: Sequence[Scored]) -> Iterator[str]:
    """The tables, as markdown."""
    for name in dict.fromkeys(one.set_name for one in found):
        here = [one for one in found if one.set_name == name]
        models = len({one.model for one in here})
        yield f"{name}, {models} unseen models, {len(here)} model-seed pairs:\n\n" + _scores(here)
    rows = []
    for name in dict.fromkeys(one.set_name for one in found):
        for size in SIZES:
            for way in PAIRED:
                here = [one for one in found if one.set_name == name and f"{way}, {size}" in one.p]
                if here:
                    difference = resampled(list(here), f"{way}, {size}", f"{MAP}, {size}")
                    rows.append([name, str(size), way, *(interval(difference[:, column]) for column in (0, 1, 3))])
    head = ["set", "anchors", "difficulty from", "AUC", "accuracy", "log-loss (lower is better)"]
    yield "Against the map alone (difference, 95 % interval):\n\n" + table(head, rows)


def _ways(found: Sequence[Scored]) -> list[str]:
    return [
        way for way in (MAP, *(f"refit by {n}" for n in MEASURED), JOINT) if any(f"{way}, 25" in one.p for one in found)
    ]


def _scores(here: Sequence[Scored]) -> str:
    rows = []
    for size in SIZES:
        for way in _ways(here):
            values = [_row(one, way, size) for one in here if f"{way}, {size}" in one.p]
            rows.append([str(size), way, str(len(values)), *(f"{value:.4f}" for value in np.nanmean(values, axis=0))])
    return table(
        [
            "anchors",
            "difficulty from",
            "pairs",
            "AUC",
            "accuracy",
            "log-loss",
            "ability error, logit",
            "error of mean p",
        ],
        rows,
    )


def _row(one: Scored, way: str, size: int) -> list[float]:
    """Three scores, how far the mean log-odds lie from those by 250 jointly fitted anchors, mean p from the share correct."""
    p, best = one.p[f"{way}, {size}"], one.p[f"{JOINT}, {SIZES[-1]}"]
    measured = scores(p, one.correct)
    apart = float(np.mean(logit(p)) - np.mean(logit(best)))
    return [measured.auc, measured.accuracy, measured.logloss, abs(apart), abs(float(p.mean() - one.correct.mean()))]


if __name__ == "__main__":
    main()
