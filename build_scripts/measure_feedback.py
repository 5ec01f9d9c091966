"""What does feedback do to estimates, near by and elsewhere? On queries and models nothing was fitted on.

    python build_scripts/measure_feedback.py --data ROUTING_DATA/zeroeval ROUTING_DATA/mmlu_pro --cache FOLDER --write docs/journal.md

A model's answers to some held-out queries of one category are judged: drawn at random, or only such as were wrong, as people speak
up about those. Then it is predicted on the other held-out queries of the category ("near") and on those of all other
categories ("far"); by what the package does (local: feedback/local.py), and by its ability fitted to the same outcomes (ability).
Figures are changes of log-loss and of the mean absolute error of log-length against saying nothing, in thousandths; less is
better; one standard error over models and categories beside each.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from figures import write_figures
from numpy.typing import NDArray
from unseen import CLIP, read

from scope_edge.estimation.ability import softening
from scope_edge.estimation.anchors import AnchorSet
from scope_edge.estimation.feedback_correction import fit_correction
from scope_edge.estimation.fingerprints import Fingerprint
from scope_edge.estimation.irt import EstimateTable, IrtEstimator
from scope_edge.estimation.newton import logit, sigmoid
from scope_edge.evaluation.fit import Part, refitted
from scope_edge.evaluation.run import cards_of
from scope_edge.evaluation.splits import split
from scope_edge.factory import open_catalog
from scope_edge.settings.config import Settings
from scope_edge.types import ModelCard

Floats = NDArray[np.float64]
COUNTS = (1, 5, 20)
MODELS, CATEGORIES, ANCHORS, COVERAGE = 24, 3, 250, 0.9
WAYS = ("local", "ability")
# So many queries of a category must be left to be predicted.
LEAST = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the routing data format")
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings between runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--write", type=Path, help="put the table between the <!-- figures: feedback --> marks of this file"
    )
    options = parser.parse_args()
    catalog, found = open_catalog(Settings()), {}
    for folder in options.data:
        data = read([folder], options.cache)
        for seed in options.seeds:
            for part in refitted(data, split(data, seed)):
                cards = cards_of(catalog, part.names)
                for key, changes in judged(part, cards, np.random.default_rng(seed)):
                    found.setdefault((part.name, *key), []).append(changes)
    text = table(found)
    print(text)
    if options.write:
        write_figures(options.write, text, "feedback")


def judged(
    part: Part, cards: Sequence[ModelCard], rng: np.random.Generator
) -> Iterator[tuple[tuple[str, int], Floats]]:
    """((which answers, how many), (ways, 3) changes): log-loss near and far, and length near."""
    plain = part.estimator(cards, ANCHORS, COVERAGE).table(part.positions, part.similarity)
    for m in rng.permutation(len(cards))[:MODELS].tolist():
        correct = part.data.correct[part.models[m], part.rows]
        tokens = part.data.tokens[part.models[m], part.rows] * cards[m].token_factor
        for trial in trials(part, np.where(np.isfinite(plain.p_correct[:, m]), correct, np.nan), rng):
            after = [way(part, cards[m], m, trial.said, plain) for way in (local, by_ability)]
            yield (
                (trial.which, len(trial.said)),
                np.array([changes(plain, m, one, correct, tokens, trial) for one in after]),
            )


@dataclass(frozen=True)
class Trial:
    """said: scored queries whose answers are judged; near, far: (q,) those that are predicted."""

    which: str
    said: NDArray[np.intp]
    near: NDArray[np.bool_]
    far: NDArray[np.bool_]


def trials(part: Part, correct: Floats, rng: np.random.Generator) -> Iterator[Trial]:
    """Of one model, whose outcomes these are."""
    categories, known = part.data.categories[part.rows], np.isfinite(correct)
    for category in rng.permutation(np.unique(categories))[:CATEGORIES]:
        inside = known & (categories == category)
        for which, usable in (("any", inside), ("wrong", inside & (correct < 0.5))):
            order = rng.permutation(np.flatnonzero(usable))
            for count in COUNTS:
                near = inside.copy()
                near[order[:count]] = False
                if len(order) >= count and near.sum() >= LEAST:
                    yield Trial(which, order[:count], near, known & ~inside)


def local(part: Part, card: ModelCard, m: int, rows: NDArray[np.intp], plain: EstimateTable) -> tuple[Floats, Floats]:
    """Probabilities and lengths of one model on all scored queries, after some of its answers were judged."""
    vectors = part.data.vectors[part.rows]
    p, tokens = plain.p_correct[:, m], plain.tokens[:, m]
    lengths = part.data.tokens[part.models[m], part.rows[rows]] * card.token_factor
    surprise = np.log(np.where(lengths > 0, lengths, np.nan)) - np.log(tokens[rows])
    outcomes = part.data.correct[part.models[m], part.rows[rows]], surprise
    pull = fit_correction((), vectors[rows], logit(p[rows]), outcomes)
    moves = np.array([pull.at(vector) for vector in vectors])
    return sigmoid(logit(p) + moves[:, 0]), tokens * np.exp(moves[:, 1])


def by_ability(
    part: Part, card: ModelCard, m: int, rows: NDArray[np.intp], plain: EstimateTable
) -> tuple[Floats, Floats]:
    """Likewise, the answers being one more fingerprint of the model's."""
    places, population, where = part.positions.take(rows), part.irt.population, part.rows[rows]
    slope = places.domains @ population.discrimination
    factor = softening(slope, places.domains @ population.unexplained)
    anchors = AnchorSet(
        name="said",
        ids=tuple(part.data.ids[where].tolist()),
        categories=tuple(part.data.categories[where].tolist()),
        vectors=part.data.vectors[where],
        prompt_tokens=part.data.text_tokens[where],
        difficulty=places.difficulty,
        discrimination=slope * factor,
        log_length=places.log_length,
        map_difficulty=places.difficulty,
        domains=places.domains,
        traits=places.traits * factor[:, None],
        linked=False,
        own=True,
    )
    correct, tokens = (column[part.models[m], where] for column in (part.data.correct, part.data.tokens))
    prints = (*part.fingerprints(ANCHORS)[card.id], Fingerprint(card.id, anchors, correct, tokens))
    prior = IrtEstimator(part.irt, [card], {card.id: prints}, coverage=COVERAGE)
    found = prior.table(part.positions, part.similarity)
    return found.p_correct[:, 0], found.tokens[:, 0]


def changes(
    plain: EstimateTable, m: int, after: tuple[Floats, Floats], correct: Floats, tokens: Floats, trial: Trial
) -> Floats:
    """Log-loss near and far, and error of log-length near, against before."""
    worse = loss(after[0], correct) - loss(plain.p_correct[:, m], correct)
    lengths = np.log(np.where(tokens > 0, tokens, np.nan))
    miss = np.abs(np.log(after[1]) - lengths) - np.abs(np.log(plain.tokens[:, m]) - lengths)
    known = trial.near & np.isfinite(miss)
    parts = (worse[trial.near], worse[trial.far], miss[known])
    return np.array([one.mean() if len(one) else np.nan for one in parts])


def loss(p: Floats, correct: Floats) -> Floats:
    p = np.clip(p, CLIP, 1 - CLIP)
    losses: Floats = -(correct * np.log(p) + (1 - correct) * np.log1p(-p))
    return losses


def table(found: dict[tuple[str, str, int], list[Floats]]) -> str:
    lines = [
        "| set | judged | answers | near, local | near, ability | far, local | far, ability | length, local | length, ability |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, which, count), rows in found.items():
        every = 1000 * np.array(rows)  # (trials, ways, figures)
        middle = np.nanmean(every, axis=0)
        error = np.nanstd(every, axis=0) / np.sqrt(np.maximum(np.isfinite(every).sum(axis=0), 1))
        cells = [f"{middle[w, f] + 0:+.1f} ± {error[w, f]:.1f}" for f in range(3) for w in range(len(WAYS))]
        lines.append(f"| {name} | {which} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
