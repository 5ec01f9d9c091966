"""Every router's predictions for every scored query and candidate of one set, by one split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import AssetError
from scope_edge.estimator.factory import INSTALL, scope_estimator
from scope_edge.estimator.store import find_installed
from scope_edge.evaluation.baselines import LEARNED, inputs, nearest
from scope_edge.training.learn import CORE_SIZE
from scope_edge.types import EncodedQuery, Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.estimation.irt import EstimateTable, IrtEstimator
    from scope_edge.evaluation.fit import Part
    from scope_edge.training.dataset import Progress
    from scope_edge.types import Floats, ModelCard

OURS = "scope-edge"
LEARNED_NAMES = ("knn5", *LEARNED)
# Numbers of anchors at which a joining model is scored.
SIZES = (10, 25, 50, 100, CORE_SIZE)
# Certain probabilities would make log-loss infinite.
CLIP = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class SplitPredictions:
    """Predictions for one set and split, with the outcomes. Arrays are (queries, candidates), NaN = missing.

    Attributes:
        part: the set's part of the split. anchors: the most that a candidate is known by.
        estimator: the candidates' estimator. table: its estimates.
        p: router -> P(correct). correct, tokens: outcomes, and completion tokens in the models' own.
        by_size: number of anchors -> estimates from that many.
        mean_tokens: (candidates,) mean completion tokens on the training queries, own tokens: a learned router's guess.
    """

    part: Part
    anchors: int
    estimator: IrtEstimator
    table: EstimateTable
    p: Mapping[str, Floats]
    correct: Floats
    tokens: Floats
    by_size: Mapping[int, EstimateTable]
    mean_tokens: Floats

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which outcomes are known."""
        return np.isfinite(self.correct)


def predict(
    part: Part, cards: Sequence[ModelCard], anchors: int, coverage: float, baselines: Sequence[str], progress: Progress
) -> SplitPredictions:
    """Predict by our estimator and by the baselines (names in LEARNED_NAMES).

    cards: of the candidates, in their order. anchors: the most that a candidate is known by.
    """
    estimator = part.estimator(cards, anchors, coverage)
    table = estimator.table(part.positions, part.similarity)
    factor = np.array([card.token_factor for card in cards])
    material = part.material.tokens[np.ix_(part.models, part.taught)]
    with np.errstate(invalid="ignore"):
        counted = np.isfinite(material)
        mean_tokens = np.where(counted, material, 0.0).sum(axis=1) / counted.sum(axis=1) * factor
    sizes = [size for size in SIZES if size < anchors]
    return SplitPredictions(
        part=part,
        anchors=anchors,
        estimator=estimator,
        table=table,
        p={name: np.clip(p, CLIP, 1 - CLIP) for name, p in _all(part, table, anchors, baselines, progress).items()},
        correct=part.data.correct[np.ix_(part.models, part.rows)].T,
        tokens=part.data.tokens[np.ix_(part.models, part.rows)].T * factor,
        by_size={size: part.estimator(cards, size, coverage).table(part.positions, part.similarity) for size in sizes}
        | {anchors: table},
        mean_tokens=mean_tokens,
    )


def _all(
    part: Part, table: EstimateTable, anchors: int, baselines: Sequence[str], progress: Progress
) -> dict[str, Floats]:
    """Return each router's P(correct), (queries, candidates)."""
    data, taught, rows = part.material, part.taught, part.rows
    every = np.ones(len(data.models), bool)
    seen = inputs(data.take(every, taught), part.data.take(every, rows))
    fingerprints = part.fingerprints(anchors)
    at = dict(zip(data.ids[taught].tolist(), range(len(taught)), strict=True))
    found: dict[str, list[Floats]] = {name: [] for name in baselines}
    for done, (name, m) in enumerate(zip(part.names, part.models.tolist(), strict=True), 1):
        progress(f"{part.name}, seed {part.split.seed}: routers", done - 1, len(part.models))
        outcomes = data.correct[m, taught]
        for router in baselines:
            if router == "knn5":
                # Imported anchors carry their set's name before the id.
                answered = [
                    one.anchors.ids[i].removeprefix(f"{one.anchors.name}/")
                    for one in fingerprints[name]
                    for i in np.flatnonzero(np.isfinite(one.correct))
                ]
                asked = [at[id] for id in answered if id in at]
                p = nearest(seen.similarity[:, asked], outcomes[asked], 5)
            else:
                p = LEARNED[router](seen, np.isfinite(outcomes), outcomes)
            found[router].append(p)
    return {OURS: table.p_correct, **{name: np.column_stack(columns) for name, columns in found.items()}}


def refined(
    found: SplitPredictions,
    cards: Sequence[ModelCard],
    progress: Progress,
    *,
    name: str | None = None,
    threads: int | None = None,
    coverage: float = 0.9,
) -> SplitPredictions:
    """Refine our p, tokens and upper bounds on every query with an installed language model, without a time limit.

    name: of the estimator; None = the newest. threads: cores to use; None = all. coverage: of the upper bounds.
    Raises AssetError if none is installed or its files are damaged.
    """
    installed = find_installed(name)
    if installed is None:
        raise AssetError(f"no estimator is installed; {INSTALL}")
    part, data = found.part, found.part.data
    estimator = scope_estimator(installed, cards, _with_texts(found), threads=threads, coverage=coverage)
    columns: list[list[Floats]] = [[], [], []]
    try:
        for q, row in enumerate(part.rows.tolist()):
            progress(f"{part.name}, seed {part.split.seed}: {installed.name}", q, len(part.rows))
            vector, state, multilingual = data.vectors[row], data.states[row], data.multilingual[row]
            encoded = EncodedQuery(Query(str(data.texts[row])), vector, state, multilingual, 1, False)
            estimates, _ = found.estimator.estimate(encoded, float(part.similarity[q]))
            # Predictions are scored, so every candidate is worth refining.
            refinement = estimator.refine(encoded, estimates, lambda *_: tuple(range(len(cards))))
            if refinement.degraded:
                raise AssetError(f"{installed.name}: {refinement.degraded[0]}")
            one = refinement.estimates
            for column, values in zip(columns, (one.p_correct, one.tokens, one.tokens_hi), strict=True):
                column.append(values)
    finally:
        estimator.close()
    p, tokens, tokens_hi = (np.array(column) for column in columns)
    longer = np.where(found.table.tokens > 0, tokens / found.table.tokens, 1.0)
    table = replace(
        found.table, p_correct=p, tokens=tokens, tokens_hi=tokens_hi, tokens_mean=found.table.tokens_mean * longer
    )
    return replace(found, table=table, p={**found.p, OURS: np.clip(p, CLIP, 1 - CLIP)})


def _with_texts(found: SplitPredictions) -> Mapping[str, tuple[Fingerprint, ...]]:
    """Return the candidates' fingerprints with the questions' texts, which a prompt shows."""
    material = found.part.material
    keys = zip(material.sets.tolist(), material.ids.tolist(), strict=True)
    text = {(material.set_names[s], id): str(words) for (s, id), words in zip(keys, material.texts, strict=True)}
    made: dict[int, AnchorSet] = {}

    def with_texts(one: Fingerprint) -> Fingerprint:
        anchors = one.anchors
        if id(anchors) not in made:
            texts = tuple(text.get((anchors.name, key), "") for key in anchors.ids)
            # Models measured on different queries have different anchors; an estimator tells sets apart by name.
            made[id(anchors)] = replace(anchors, name=f"{anchors.name}#{len(made)}", texts=texts)
        return replace(one, anchors=made[id(anchors)])

    return {name: tuple(map(with_texts, parts)) for name, parts in found.part.fingerprints(found.anchors).items()}
