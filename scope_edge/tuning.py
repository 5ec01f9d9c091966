"""What a pool is expected to do at every alpha, from fingerprints alone, and the alpha that keeps to a wish.

Expected values over a reference of queries: the policy chooses for each as `route` would, and what it chose is taken to be
right with its calibrated p and to spend its mean tokens. Nothing is run and no label is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.costs import expected_costs
from scope_edge.policy import choose_many

if TYPE_CHECKING:
    from scope_edge.costs import Ints
    from scope_edge.prior import EstimateTable
    from scope_edge.records import Floats, PolicyName
    from scope_edge.utility import PolicyPool


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What is expected at one alpha, a query on average.

    Attributes:
        accuracy: share right. usd: US dollars; None when a chosen model has no price. tokens: prompt and completion, own.
        device_share: of queries that stay on the device. portfolio: share of queries of every model that gets any.
    """

    alpha: float
    accuracy: float
    usd: float | None
    tokens: float | None
    device_share: float
    portfolio: dict[str, float]


def foresee(
    pool: PolicyPool,
    table: EstimateTable,
    prompt_tokens: Floats,
    alphas: Sequence[float],
    policy: PolicyName = "scope-edge",
) -> tuple[Foreseen, ...]:
    """table: estimates of q queries, prompt_tokens: theirs, (q,) cl100k. alphas: in [0, 1]."""
    columns = pool.columns
    weighed = expected_costs(columns, table.tokens, prompt_tokens, pool.value_of_time)
    # Spending adds up by the mean; the policy weighs the median, which is a better guess of one call.
    spent = expected_costs(columns, table.tokens_mean, prompt_tokens)
    tokens = table.tokens_mean + prompt_tokens[:, None] * columns.token_factor
    rows = []
    for alpha in alphas:
        chosen = choose_many(pool, table.p_correct, weighed, alpha, policy=policy)
        rows.append(_expected(pool, alpha, chosen, table.p_correct, spent, tokens))
    return tuple(rows)


def _expected(pool: PolicyPool, alpha: float, chosen: Ints, p: Floats, usd: Floats, tokens: Floats) -> Foreseen:
    at = np.arange(len(chosen)), chosen
    shares = np.bincount(chosen, minlength=len(pool.columns.models)) / len(chosen)
    return Foreseen(
        alpha=float(alpha),
        accuracy=float(np.nanmean(p[at])),
        usd=_known(usd[at]),
        tokens=_known(tokens[at]),
        device_share=float(shares[~pool.columns.cloud].sum()),
        portfolio={model: float(s) for model, s in zip(pool.columns.models, shares, strict=True) if s > 0},
    )


def _known(values: Floats) -> float | None:
    mean = float(values.mean())
    return mean if np.isfinite(mean) else None


def smallest_alpha(seen: Sequence[Foreseen], good: Callable[[Foreseen], bool]) -> Foreseen | None:
    """The first that is good, in order of alpha: the cheapest, as a larger alpha never spends less."""
    return next((one for one in seen if good(one)), None)


def largest_alpha(seen: Sequence[Foreseen], good: Callable[[Foreseen], bool]) -> Foreseen | None:
    """The last that is good: the most accurate."""
    return next((one for one in reversed(seen) if good(one)), None)
