"""How many anchors does a new model need, and does their order matter? On queries and models that nothing was fitted on.

    python build_scripts/measure_anchors.py --data ROUTING_DATA/zeroeval ... --cache FOLDER --write docs/benchmarks.md

The splits are those of `scope-edge eval`. Each held-out model is known by its outcomes on anchors of the core set: on those that
told most after the answers before them ("asked", as `scope-edge fingerprint` asks), on the first ones (most telling of a model
that nothing is known of), or on as many drawn at random; and predicted on held-out queries. Differences are paired (same
models, same queries); intervals are a bootstrap over models and queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from figures import table, write_figures
from unseen import CLIP, Scored, Unseen, arguments, interval, read, resampled, unseen

from scope_edge.estimation.irt import IrtEstimator
from scope_edge.estimation.item_selection import asked
from scope_edge.estimation.metrics import scores
from scope_edge.estimation.newton import logit
from scope_edge.training.learn import COVERAGE, fingerprint
from scope_edge.types import ModelCard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.types import Floats

SIZES = (10, 25, 50, 100)
ALL = "all 250"
PAIRED = (("asked 25", "first 25"), ("asked 25", "random 100"), ("asked 25", ALL))


def main() -> None:
    options = arguments(__doc__, "anchors")
    data = read(options.data, options.cache)
    found = [one for seed in options.seeds for part in unseen(data, seed) for one in predicted(part)]
    text = "\n\n".join(report(found))
    print(text)
    if options.write:
        write_figures(options.write, text, "anchors")


def predicted(part: Unseen) -> Iterator[Scored]:
    """Every held-out model of one set, known by so many anchors chosen one way or the other."""
    anchors = part.learned.anchors[part.set_name]
    random = np.random.default_rng(part.seed).permutation(len(anchors))
    whole = [fingerprint(part.train, m, anchors) for m in part.models]
    population, here = part.learned.irt.population, part.rows
    p = {ALL: _probabilities(part, whole)}
    for size in SIZES:
        p[f"asked {size}"] = _probabilities(part, [asked(one, population, size) for one in whole])
        for how, order in (("first", np.arange(len(anchors))), ("random", random)):
            p[f"{how} {size}"] = _probabilities(part, [_only(one, order[:size]) for one in whole])
    for column, m in enumerate(part.models):
        scored = np.isfinite(part.test.correct[m, here])
        yield Scored(
            seed=part.seed,
            set_name=part.set_name,
            model=str(part.test.models[m]),
            queries=here[scored],
            correct=part.test.correct[m, here[scored]],
            p={name: np.clip(values[scored, column], CLIP, 1 - CLIP) for name, values in p.items()},
        )


def _only(one: Fingerprint, chosen: NDArray[np.int64]) -> Fingerprint:
    """The fingerprint with these anchors' outcomes alone."""
    left = np.isin(np.arange(len(one.correct)), chosen)
    return replace(one, correct=np.where(left, one.correct, np.nan), tokens=np.where(left, one.tokens, np.nan))


def _probabilities(part: Unseen, fingerprints: Sequence[Fingerprint]) -> Floats:
    """P(correct) of every query and model, (queries, models), with the models known by these fingerprints alone."""
    cards = [ModelCard(id=one.model, where="cloud") for one in fingerprints]
    known = {one.model: [one] for one in fingerprints}
    prior = IrtEstimator(part.learned.irt, cards, known, coverage=COVERAGE)
    return prior.table(part.positions, np.ones(len(part.positions))).p_correct


def report(found: list[Scored]) -> Iterator[str]:
    """The tables, as markdown."""
    for name in dict.fromkeys(one.set_name for one in found):
        here = [one for one in found if one.set_name == name]
        models = len({one.model for one in here})
        yield f"{name}, {models} unseen models, {len(here)} model-seed pairs:\n\n" + _scores(here)
    rows = []
    for name in dict.fromkeys(one.set_name for one in found):
        here = [one for one in found if one.set_name == name]
        for first, second in PAIRED:
            difference = resampled(here, first, second)
            rows.append([name, f"{first} - {second}", *map(interval, difference.T[:2])])
    yield "Differences, 95 % interval:\n\n" + table(["set", "", "AUC", "accuracy"], rows)


def _scores(here: list[Scored]) -> str:
    rows = []
    for name in here[0].p:
        rows.append([name, *(f"{value:.4f}" for value in np.nanmean([_row(one, name) for one in here], axis=0))])
    return table(["anchors", "AUC", "accuracy", "ability error, logit", "error of mean p"], rows)


def _row(one: Scored, name: str) -> list[float]:
    """AUC, accuracy, how far the mean log-odds lie from those with all anchors, how far mean p from the share correct."""
    p = one.p[name]
    measured = scores(p, one.correct)
    apart = float(np.mean(logit(p)) - np.mean(logit(one.p[ALL])))
    return [measured.auc, measured.accuracy, abs(apart), abs(float(p.mean() - one.correct.mean()))]


if __name__ == "__main__":
    main()
