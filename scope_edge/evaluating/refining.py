"""The installed estimator's word instead of the prior's, on scored queries: every candidate it can be asked about, every query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import AssetError
from scope_edge.estimator.installed import find_installed
from scope_edge.estimator.use import INSTALL, scope_estimator
from scope_edge.evaluating.predicting import CLIP, OURS, Predicted
from scope_edge.records import EncodedQuery, Query

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scope_edge.anchors import AnchorSet
    from scope_edge.evaluating.predicting import Progress
    from scope_edge.fingerprints import Fingerprint
    from scope_edge.records import Estimates, Floats, ModelCard


def refined(
    found: Predicted,
    cards: Sequence[ModelCard],
    progress: Progress,
    *,
    name: str | None = None,
    threads: int | None = None,
    coverage: float = 0.9,
) -> Predicted:
    """Refine our p, tokens and upper bounds with an installed estimator; there is no limit of time.

    name: of the estimator; None = the newest. threads: cores to use; None = all. coverage: of the upper bounds.

    Raises AssetError: none is installed, or its files are damaged.
    """
    installed = find_installed(name)
    if installed is None:
        raise AssetError(f"no estimator is installed; {INSTALL}")
    part = found.part
    estimator = scope_estimator(installed, cards, _with_texts(found), threads=threads, coverage=coverage)
    columns: list[list[Floats]] = [[], [], []]
    try:
        for q, row in enumerate(part.rows.tolist()):
            progress(f"{part.name}, seed {part.split.seed}: {installed.name}", q, len(part.rows))
            vector, state = part.data.vectors[row], part.data.states[row]
            encoded = EncodedQuery(Query(str(part.data.texts[row])), vector, state, 1, False)
            estimates, _ = found.prior.estimate(encoded, float(part.similarity[q]))
            refinement = estimator.refine(encoded, estimates, _everybody)
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


def _everybody(estimates: Estimates, low: Floats, high: Floats) -> tuple[int, ...]:
    """Every candidate is worth asking about: it is the predictions that are scored."""
    return tuple(range(len(estimates.models)))


def _with_texts(found: Predicted) -> Mapping[str, tuple[Fingerprint, ...]]:
    """The candidates' fingerprints, their anchors with the questions' texts, which a prompt shows."""
    material = found.part.material
    keys = zip(material.sets.tolist(), material.ids.tolist(), strict=True)
    text = {(material.set_names[s], id): str(words) for (s, id), words in zip(keys, material.texts, strict=True)}
    made: dict[int, AnchorSet] = {}

    def told(one: Fingerprint) -> Fingerprint:
        anchors = one.anchors
        if id(anchors) not in made:
            texts = tuple(text.get((anchors.name, key), "") for key in anchors.ids)
            # Models measured on different queries have different anchors; an estimator knows sets by their names.
            made[id(anchors)] = replace(anchors, name=f"{anchors.name}#{len(made)}", texts=texts)
        return replace(one, anchors=made[id(anchors)])

    return {name: tuple(map(told, parts)) for name, parts in found.part.fingerprints(found.anchors).items()}
