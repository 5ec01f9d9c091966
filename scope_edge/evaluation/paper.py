"""What the paper's policy reads off each query's slices, for many queries at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scope_edge.policy.costs import expected_costs
from scope_edge.policy.paper import NEAREST, SIMILARITY_POWER, AnchorStatistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.evaluation.predict import SplitPredictions
    from scope_edge.policy.utility import PolicyPool
    from scope_edge.types import Floats


def statistics(
    found: SplitPredictions, models: NDArray[np.intp], pool: PolicyPool, rows: NDArray[np.intp], prompts: Floats
) -> AnchorStatistics:
    """As `policy_paper.anchor_statistics` of each query's slices, (queries, models).

    models: candidates, rows: scored queries, as they are numbered in `found`; prompts: (rows,) cl100k tokens.
    """
    part = found.part
    vectors = part.data.vectors[part.rows[rows]]
    fingerprints = part.fingerprints(found.anchors)
    accuracy, tokens = np.full((2, len(rows), len(models)), np.nan)
    similar: dict[int, Floats] = {}
    for column, m in enumerate(models.tolist()):
        parts = fingerprints[part.names[m]]
        for one in parts:
            if id(one.anchors) not in similar:
                similar[id(one.anchors)] = (vectors @ one.anchors.vectors.T).astype(np.float64)
        asked = [np.flatnonzero(np.isfinite(one.correct)) for one in parts]
        cosines = np.hstack([similar[id(one.anchors)][:, at] for one, at in zip(parts, asked, strict=True)])
        correct = np.concatenate([one.correct[at] for one, at in zip(parts, asked, strict=True)])
        lengths = np.concatenate([one.tokens[at] for one, at in zip(parts, asked, strict=True)])
        near = np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]
        weights = np.maximum(np.take_along_axis(cosines, near, axis=1), 0.0) ** SIMILARITY_POWER
        accuracy[:, column] = _average(weights, correct[near])
        tokens[:, column] = _average(weights, lengths[near])
    return AnchorStatistics(accuracy, expected_costs(pool.columns, tokens * pool.columns.token_factor, prompts))


def _average(weights: Floats, values: Floats) -> Floats:
    known = np.where(np.isfinite(values), weights, 0.0)
    with np.errstate(invalid="ignore"):
        mean: Floats = (known * np.nan_to_num(values)).sum(axis=1) / known.sum(axis=1)
    return mean
