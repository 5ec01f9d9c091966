"""Every router's word on every scored query and candidate of one set, by one split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.evaluating.baselines import LEARNED, inputs, nearest
from scope_edge.learning.learn import CORE_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.evaluating.fitting import Part
    from scope_edge.fingerprints import Fingerprint
    from scope_edge.prior import EstimateTable, Prior
    from scope_edge.records import Floats, ModelCard

    Progress = Callable[[str, int, int], None]

OURS = "scope-edge"
LEARNED_NAMES = ("knn5", *LEARNED)
# Anchors at which a model that joins is looked at.
SIZES = (10, 25, 50, 100, CORE_SIZE)
# No probability is scored as certain: log-loss would be infinite.
CLIP = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """Predictions for one set and split, with what came. Arrays are (queries, candidates), NaN = missing.

    Attributes:
        part: the set's part of the split. anchors: how many a candidate is known by, at most.
        prior: the candidates, so known. table: what it says.
        p: router -> P(correct). correct, tokens: what came; tokens in the models' own.
        by_size: number of anchors -> the prior's table with so many.
        mean_tokens: (candidates,) mean completion tokens on the training queries, own tokens: a learned router's guess.
    """

    part: Part
    anchors: int
    prior: Prior
    table: EstimateTable
    p: Mapping[str, Floats]
    correct: Floats
    tokens: Floats
    by_size: Mapping[int, EstimateTable]
    mean_tokens: Floats

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which outcomes there are."""
        return np.isfinite(self.correct)


def predict(
    part: Part, cards: Sequence[ModelCard], anchors: int, coverage: float, baselines: Sequence[str], progress: Progress
) -> Predicted:
    """cards: of the candidates, in their order. anchors: a candidate is known by at most so many. baselines: names in LEARNED_NAMES."""
    prior = part.prior(cards, anchors, coverage)
    table = prior.table(part.places, part.similarity)
    factor = np.array([card.token_factor for card in cards])
    material = part.material.tokens[np.ix_(part.models, part.taught)]
    with np.errstate(invalid="ignore"):
        counted = np.isfinite(material)
        mean_tokens = np.where(counted, material, 0.0).sum(axis=1) / counted.sum(axis=1) * factor
    sizes = [size for size in SIZES if size < anchors]
    return Predicted(
        part=part,
        anchors=anchors,
        prior=prior,
        table=table,
        p={name: np.clip(p, CLIP, 1 - CLIP) for name, p in _all(part, table, anchors, baselines, progress).items()},
        correct=part.data.correct[np.ix_(part.models, part.rows)].T,
        tokens=part.data.tokens[np.ix_(part.models, part.rows)].T * factor,
        by_size={size: part.prior(cards, size, coverage).table(part.places, part.similarity) for size in sizes}
        | {anchors: table},
        mean_tokens=mean_tokens,
    )


def _all(
    part: Part, table: EstimateTable, anchors: int, baselines: Sequence[str], progress: Progress
) -> dict[str, Floats]:
    """Router -> P(correct), (queries, candidates)."""
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
                asked = [at[id] for one in fingerprints[name] for id in _asked(one) if id in at]
                p = nearest(seen.similarity[:, asked], outcomes[asked], 5)
            else:
                p = LEARNED[router](seen, np.isfinite(outcomes), outcomes)
            found[router].append(p)
    return {OURS: table.p_correct, **{name: np.column_stack(columns) for name, columns in found.items()}}


def _asked(one: Fingerprint) -> list[str]:
    """The anchors a fingerprint has an outcome on."""
    return [one.anchors.ids[i] for i in np.flatnonzero(np.isfinite(one.correct))]
