"""What routing saves as a pool grows, beside running every model; and what it takes a new model to join."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.evaluation.replay import Replay, places_of
from scope_edge.evaluation.report import Joining, PoolSize
from scope_edge.policy.costs import expected_costs
from scope_edge.policy.policy import choose_many
from scope_edge.policy.utility import policy_pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.evaluation.predict import SplitPredictions
    from scope_edge.types import ModelCard


def pool_sizes(cards: Sequence[ModelCard], found: Sequence[SplitPredictions], one: Replay) -> tuple[PoolSize, ...]:
    """Tokens a query, prompt and completion, for the first 1, 2, ... models of the pool; at alpha 1, where it spends most.

    Only models whose tokens were counted take part: what the others spend is not known.
    """
    counted = np.flatnonzero(np.isfinite(one.tokens).all(axis=0))
    spent = (one.prompts + one.tokens)[:, counted]
    rows = []
    for size in range(1, len(counted) + 1):
        chosen = np.concatenate([_most_accurate([cards[i] for i in counted[:size]], split, one) for split in found])
        rows.append(
            PoolSize(
                size, float(spent[np.arange(len(spent)), chosen].mean()), float(spent[:, :size].sum(axis=1).mean())
            )
        )
    return tuple(rows)


def _most_accurate(cards: Sequence[ModelCard], split: SplitPredictions, one: Replay) -> NDArray[np.intp]:
    """What alpha 1 chooses of these cards for the queries of one split that are in the replay."""
    at = places_of(cards, split)
    rows = np.flatnonzero(np.isin(split.part.rows, one.query))
    p, tokens = (column[np.ix_(rows, at)] for column in (split.table.p_correct, split.table.tokens))
    prompts = split.part.prompts[0][rows]
    pool = policy_pool(cards, p.T, tokens.T, prompts)
    return choose_many(pool, p, expected_costs(pool.columns, tokens, prompts), 1.0)


def joining(cards: Sequence[ModelCard], found: Sequence[SplitPredictions]) -> tuple[Joining, ...]:
    """For every candidate whose parameters its card tells: FLOPs for its anchors, and for all training queries.

    2 FLOPs a parameter and token read or written (Kaplan et al. 2020, arXiv 2001.08361). A router that learns a model from
    the whole training split needs the second before its own training begins. Means over splits.
    """
    rows = []
    for card in cards:
        costs = []
        for one in found:
            if card.parameters_b is None or card.id not in one.part.names:
                continue
            material, taught = one.part.material, one.part.taught
            m = one.part.models[one.part.names.index(card.id)]
            tokens = (material.tokens[m, taught] + material.text_tokens[taught]) * card.token_factor
            asked = min(one.anchors, int(np.isfinite(material.correct[m, taught]).sum()))
            if np.isfinite(tokens).any():
                each = 2e9 * card.parameters_b * float(np.nanmean(tokens))
                costs.append((each * asked, each * len(taught)))
        if costs:
            anchors, everything = np.mean(costs, axis=0)
            rows.append(Joining(card.id, float(anchors), float(everything)))
    return tuple(rows)
