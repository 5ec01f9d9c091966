"""The paper's utility, kept for comparison (`--policy paper`).

SCOPE (arXiv 2601.22323) scores a model by `U = alpha p + (1 - alpha)(1 - c)^gamma` with
`gamma = gamma0 (1 + 2 (1 - alpha))`, once from predictions and once from the model's outcomes on the anchors nearest to the
query, and blends the two with weight `w = w0 (0.5 + 0.5 alpha)` on the anchors.

gamma0 = 2, w0 = 0.3, the 6 nearest anchors weighted by the square of their similarity, min-max scaling of the anchors'
accuracy and log-cost over the pool for each query, and the 1e-9 added to a cost before its logarithm are the defaults of
the authors' released script. This file differs where the script lets other queries influence this one, or takes a missing
outcome for a wrong one:

- the script scales predicted cost between the smallest and largest of the batch; here c is the log-cost between the
  smallest and largest cost of any model of the pool on a reference anchor, clipped to [0, 1];
- an empty range gives 0, not 0.5, which moves all models alike;
- the script takes a yes or no from the estimator as 1 or 0; here p is the estimated probability;
- a model without outcomes among the anchors is scored by its prediction alone, not as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.policy.costs import expected_costs

if TYPE_CHECKING:
    from scope_edge.policy.costs import PoolColumns
    from scope_edge.types import Floats, Slice

GAMMA = 2.0
ANCHOR_WEIGHT = 0.3
NEAREST = 6
SIMILARITY_POWER = 2.0
_SMALLEST = 1e-9  # US dollars before the logarithm, and the width of a range that is not empty


@dataclass(frozen=True, slots=True)
class CostRange:
    """The smallest and largest log-cost of any model of the pool on a reference anchor."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class AnchorStatistics:
    """The models' outcomes on the anchors nearest to a query; NaN without any.

    accuracy, cost: shape (models,) for one query or (queries, models), share correct and US dollars.
    """

    accuracy: Floats
    cost: Floats


def cost_range(cost: Floats) -> CostRange:
    """Return the range of a pool's reference costs, US dollars, any shape; NaN is left out, (0, 0) without known costs."""
    known = cost[np.isfinite(cost)]
    return CostRange(float(_log(known.min())), float(_log(known.max()))) if known.size else CostRange(0.0, 0.0)


def anchor_statistics(
    pool: PoolColumns, slices: Sequence[Slice], prompt_tokens: float, value_of_time: float = 0.0
) -> AnchorStatistics:
    """Average a query's slices, weighted by similarity^2. prompt_tokens: of the query, cl100k, expected."""
    by_model = {one.model: one for one in slices}
    rows = [_averages(by_model.get(model)) for model in pool.models]
    accuracy, tokens = np.array(rows, np.float64).reshape(-1, 2).T
    cost = expected_costs(pool, (tokens * pool.token_factor)[None], np.array([prompt_tokens]), value_of_time)
    return AnchorStatistics(accuracy, cost[0])


def paper_utility(
    alpha: Floats | float, p: Floats, cost: Floats, span: CostRange, anchors: AnchorStatistics | None
) -> Floats:
    """Return the blended utility of every model. p, cost: shape (..., models). NaN where p or cost is unknown.

    `alpha` is a number, or an array of shape (alphas, 1) against p and cost of shape (models,).
    """
    predicted = _utility(alpha, p, _scaled(_log(cost), span.low, span.high))
    if anchors is None:
        return predicted
    log_cost = _log(anchors.cost)
    accuracy = _scaled(anchors.accuracy, *_ends(anchors.accuracy))
    measured = _utility(alpha, accuracy, _scaled(log_cost, *_ends(log_cost)))
    weight = np.where(np.isnan(measured), 0.0, ANCHOR_WEIGHT * (0.5 + 0.5 * np.asarray(alpha)))
    return weight * np.nan_to_num(measured) + (1.0 - weight) * predicted


def _utility(alpha: Floats | float, p: Floats, c: Floats) -> Floats:
    gamma = GAMMA * (1.0 + 2.0 * (1.0 - np.asarray(alpha)))
    return np.asarray(alpha * p + (1.0 - alpha) * (1.0 - c) ** gamma)


def _scaled(value: Floats, low: Floats | float, high: Floats | float) -> Floats:
    width = np.asarray(high) - np.asarray(low)
    # Multiplying by 0 rather than writing 0 keeps an unknown value unknown.
    return np.asarray(np.clip((value - low) / np.where(width > _SMALLEST, width, 1.0), 0.0, 1.0) * (width > _SMALLEST))


def _ends(values: Floats) -> tuple[Floats, Floats]:
    low = np.where(np.isnan(values), np.inf, values).min(axis=-1, keepdims=True, initial=np.inf)
    high = np.where(np.isnan(values), -np.inf, values).max(axis=-1, keepdims=True, initial=-np.inf)
    known = low <= high
    return np.where(known, low, 0.0), np.where(known, high, 0.0)


def _log(cost: Floats) -> Floats:
    return np.asarray(np.log(cost + _SMALLEST))


def _averages(one: Slice | None) -> tuple[float, float]:
    """Return share correct and mean completion tokens (as counted) of a slice's nearest anchors."""
    if one is None:
        return np.nan, np.nan
    weights = [max(neighbor.similarity, 0.0) ** SIMILARITY_POWER for neighbor in one.neighbors[:NEAREST]]
    return (
        _average(weights, [outcome.correct for outcome in one.outcomes]),
        _average(weights, [outcome.completion_tokens for outcome in one.outcomes]),
    )


def _average(weights: Sequence[float], values: Sequence[float | None]) -> float:
    pairs = [(weight, value) for weight, value in zip(weights, values, strict=False) if value is not None]
    total = sum(weight for weight, _ in pairs)
    return sum(weight * value for weight, value in pairs) / total if total > 0.0 else np.nan
