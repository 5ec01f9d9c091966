"""How far `tune` and `calibrate` can be trusted, on models and queries that nothing was fitted on.

python build_scripts/measure_tuning.py --data ROUTING_DATA/zeroeval ROUTING_DATA/mmlu_pro ROUTING_DATA/kor_bench [--seeds 0,1]

Prints, for every set and split:

traits   what came true of the difference that traits make between two models, among pairs within 10 points of each other;
pools    for random pools of unseen and seen models at alpha 1: expected minus realised accuracy, with traits believed in
         full and as `tune` believes them, and how many standard errors of abilities and of outcomes apart (sd of z; 1 where posteriors
         say all there is);
own      a correction fitted to 250 outcomes of four unseen models: log-loss before and after on queries they are scored on,
         fitted to a core set and to queries at random.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scope_edge.catalog.cards import Catalog
from scope_edge.encoding.encoder import Encoder
from scope_edge.estimation.ability import softening
from scope_edge.estimation.anchors import AnchorSet
from scope_edge.estimation.fingerprints import Fingerprint
from scope_edge.estimation.irt import IrtEstimator
from scope_edge.evaluation.fit import Part, refitted
from scope_edge.evaluation.run import cards_of
from scope_edge.evaluation.splits import sources_of, split
from scope_edge.factory import open_catalog
from scope_edge.policy.costs import pool_columns
from scope_edge.settings.config import load_settings
from scope_edge.training.dataset import read_pooled
from scope_edge.tuning.calibrate import calibrate_pool
from scope_edge.tuning.forecast import DRAWS, prospect_of, without_traits

Floats = NDArray[np.float64]
COVERAGE, ANCHORS, POOLS = 0.9, 250, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--cache", type=Path, help="where vectors of the queries are kept")
    given = parser.parse_args()
    catalog, encoder = open_catalog(load_settings()), Encoder.load()
    for folder in given.data:
        data = read_pooled(sources_of([folder]), catalog, encoder, cache=given.cache).data
        for seed in map(int, given.seeds.split(",")):
            chosen = split(data, seed)
            for part in refitted(data, chosen):
                for line in _lines(part, catalog):
                    print(f"{part.name} seed {seed}  {line}", flush=True)


def _lines(part: Part, catalog: Catalog) -> Iterator[str]:
    correct = part.data.correct[np.ix_(part.models, part.rows)].T
    prior = part.estimator(cards_of(catalog, part.names), ANCHORS, COVERAGE)
    table = prior.table(part.positions, part.similarity)
    plain = without_traits(prior, part.positions).p_correct
    yield f"traits  {_slope(table.p_correct, plain, correct):.2f} of what they say came true"
    yield from _pools(part, catalog, correct)
    yield from _own(part, catalog, correct)


def _slope(p: Floats, plain: Floats, correct: Floats) -> float:
    """Of differences in outcome between near models on differences their traits make, beside all else."""
    gram, target = np.zeros((2, 2)), np.zeros(2)
    for i in range(p.shape[1]):
        for j in range(i):
            known = np.isfinite(correct[:, i]) & np.isfinite(correct[:, j])
            if known.sum() < 200 or abs(p[known, i].mean() - p[known, j].mean()) > 0.1:
                continue
            told = (p - plain)[known]
            x = np.stack([plain[known, i] - plain[known, j], told[:, i] - told[:, j]], axis=1)
            y = correct[known, i] - correct[known, j]
            x, y = x - x.mean(axis=0), y - y.mean()
            gram, target = gram + x.T @ x, target + x.T @ y
    return float(np.linalg.solve(gram, target)[1])


def _pools(part: Part, catalog: Catalog, correct: Floats) -> Iterator[str]:
    rng, rows = np.random.default_rng(0), []
    for _ in range(4 * POOLS):
        at = rng.choice(len(part.names), min(int(rng.integers(3, 9)), len(part.names)), replace=False)
        common = np.flatnonzero(np.isfinite(correct[:, at]).all(axis=1))
        if len(common) < 300 or len(rows) == POOLS:
            continue
        cards = cards_of(catalog, [part.names[i] for i in at])
        prospect = prospect_of(
            pool_columns(cards),
            part.estimator(cards, ANCHORS, COVERAGE),
            part.positions.take(common),
            part.prompts[0][common],
            draws=DRAWS,
        )
        chosen = prospect.table.p_correct.argmax(axis=1)
        line = np.arange(len(common))
        came = correct[common, at[chosen]]
        off = [float((p[line, chosen] - came).mean()) for p in (prospect.table.p_correct, prospect.believed)]
        error = np.std([p[line, chosen].mean() for p, _ in prospect.draws])
        rows.append((*off, off[1] / np.hypot(error, came.std() / np.sqrt(len(came))), error))
    if not rows:
        yield "pools   none with 300 common queries"
        return
    found = np.array(rows)
    full, trusted, z, error = found.mean(axis=0)
    size = np.sqrt((found[:, :2] ** 2).mean(axis=0))
    yield (
        f"pools   {len(rows)}: {100 * full:+.2f} points off in full, {100 * trusted:+.2f} as believed"
        f" (root mean square {100 * size[0]:.2f}, {100 * size[1]:.2f}); error foreseen {100 * error:.2f},"
        f" z {z:+.2f} with sd {found[:, 2].std():.2f}, {100 * (abs(found[:, 2]) < 1.645).mean():.0f} % within 90 %"
    )


def _own(part: Part, catalog: Catalog, correct: Floats) -> Iterator[str]:
    at = np.flatnonzero(part.unseen)[:4]
    names = [part.names[i] for i in at]
    cards = cards_of(catalog, names)
    # A user's own questions are unseen ones, so half of the scored queries play them; the other half is scored.
    own, scored = np.array_split(np.random.default_rng(0).permutation(len(part.rows)), 2)
    scored = np.sort(scored)
    places, known = part.positions.take(scored), np.isfinite(correct[np.ix_(scored, at)])
    for how, prints in (("core", _core(part, names)), ("random", _placed(part, at, own[:ANCHORS]))):
        found = calibrate_pool(part.irt, cards, prints, COVERAGE)
        losses = []
        for personal in (None, found.full, found.personal):
            prior = IrtEstimator(part.irt, cards, prints, coverage=COVERAGE, personal=personal)
            p, y = prior.table(places, np.ones(len(scored))).p_correct[known], correct[np.ix_(scored, at)][known]
            losses.append(-(y * np.log(p) + (1 - y) * np.log1p(-p)).mean())
        yield (
            f"own     {how}: log-loss in cross-validation {found.before['all'].logloss:.4f} -> {found.after['all'].logloss:.4f},"
            f" on new queries {losses[0]:.4f} -> {losses[1]:.4f}; as kept ({', '.join(found.helps) or 'nothing'}) {losses[2]:.4f}"
        )


def _core(part: Part, names: Sequence[str]) -> dict[str, list[Fingerprint]]:
    """Their outcomes on the core set, passed off as a fair sample."""
    prints = part.fingerprints(ANCHORS)
    return {
        name: [replace(one, anchors=replace(one.anchors, own=True), own=True) for one in prints[name]] for name in names
    }


def _placed(part: Part, at: NDArray[np.intp], rows: NDArray[np.intp]) -> dict[str, list[Fingerprint]]:
    """Their outcomes on these scored queries, of which only the map is known, as of a user's own."""
    places, data, where = part.positions.take(rows), part.data, part.rows[rows]
    population = part.irt.population
    slope = places.domains @ population.discrimination
    factor = softening(slope, places.domains @ population.unexplained)
    anchors = AnchorSet(
        name="own",
        ids=tuple(data.ids[where].tolist()),
        categories=tuple(data.categories[where].tolist()),
        vectors=data.vectors[where],
        prompt_tokens=data.text_tokens[where],
        difficulty=places.difficulty,
        discrimination=slope * factor,
        log_length=places.log_length,
        map_difficulty=places.difficulty,
        domains=places.domains,
        traits=places.traits * factor[:, None],
        linked=False,
        own=True,
    )
    return {
        part.names[i]: [
            Fingerprint(part.names[i], anchors, data.correct[part.models[i], where], data.tokens[part.models[i], where])
        ]
        for i in at.tolist()
    }


if __name__ == "__main__":
    main()
