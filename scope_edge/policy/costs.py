"""The cost of a query on every model of a pool: tokens, US dollars, seconds; expected values and upper bounds.

Arrays end in the model axis, so the same lines price one query, shape (models,), and many, shape (queries, models). NaN
stands for unknown and spreads, with one exception: a free model costs nothing, however many tokens it takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.types import ModelCard, Where

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from scope_edge.types import Floats

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class PoolColumns:
    """A pool's cards as columns, shape (models,), NaN for a missing value. Built once per pool.

    Attributes:
        usd_in, usd_out: US dollars per token (on cards per million); both NaN when either is unknown.
        load_seconds: 0 for cloud models without a value, since nothing has to be loaded.
        tie_rank: device before cloud, then pool order. price_rank: cheapest completion tokens first, then prompt tokens,
            then tie_rank; unknown prices last. It orders models of which only the price is known.
    """

    models: tuple[str, ...]
    where: tuple[Where, ...]
    cloud: Bools
    token_factor: Floats
    usd_in: Floats
    usd_out: Floats
    context_tokens: Floats
    prompt_tokens_per_second: Floats
    tokens_per_second: Floats
    load_seconds: Floats
    tie_rank: Ints
    price_rank: Ints


@dataclass(frozen=True, slots=True)
class Costs:
    """Queries on every model, shape (models,) or (queries, models): own tokens, US dollars, seconds; `_hi` are upper bounds.

    cost: usd + seconds x value_of_time, the cost that the policy weighs.
    """

    prompt_tokens: Floats
    prompt_tokens_hi: Floats
    usd: Floats
    usd_hi: Floats
    seconds: Floats
    seconds_hi: Floats
    cost: Floats


def pool_columns(cards: Sequence[ModelCard]) -> PoolColumns:
    """Return the cards as columns, in the same order."""
    cloud = np.array([card.where == "cloud" for card in cards], bool)
    usd_in, usd_out = _column(card.usd_in for card in cards), _column(card.usd_out for card in cards)
    priced = ~(np.isnan(usd_in) | np.isnan(usd_out))
    usd_in, usd_out = np.where(priced, usd_in / 1e6, np.nan), np.where(priced, usd_out / 1e6, np.nan)
    load = _column(card.load_seconds for card in cards)
    return PoolColumns(
        models=tuple(card.id for card in cards),
        where=tuple(card.where for card in cards),
        cloud=cloud,
        token_factor=_column(card.token_factor for card in cards),
        usd_in=usd_in,
        usd_out=usd_out,
        context_tokens=_column(card.context_tokens for card in cards),
        prompt_tokens_per_second=_column(card.prompt_tokens_per_second for card in cards),
        tokens_per_second=_column(card.tokens_per_second for card in cards),
        load_seconds=np.where(cloud & np.isnan(load), 0.0, load),
        tie_rank=_ranks(np.lexsort((cloud,))),
        price_rank=_ranks(np.lexsort((cloud, usd_in, usd_out))),
    )


def query_costs(
    pool: PoolColumns,
    tokens: Floats,
    tokens_hi: Floats,
    prompts: tuple[Floats | float, Floats | float],
    value_of_time: float,
) -> Costs:
    """Price one query or many. tokens, tokens_hi: shape (models,) or (queries, models), own tokens.

    prompts: expected and upper bound, cl100k; numbers or (queries,) each. value_of_time: US dollars per second.
    """
    prompt, prompt_hi = (np.asarray(one)[..., None] * pool.token_factor for one in prompts)
    usd, seconds = _usd(pool, prompt, tokens), _seconds(pool, prompt, tokens)
    return Costs(
        prompt_tokens=prompt,
        prompt_tokens_hi=prompt_hi,
        usd=usd,
        usd_hi=_usd(pool, prompt_hi, tokens_hi),
        seconds=seconds,
        seconds_hi=_seconds(pool, prompt_hi, tokens_hi),
        cost=usd + seconds * value_of_time if value_of_time else usd,
    )


def expected_costs(pool: PoolColumns, tokens: Floats, prompt_tokens: Floats, value_of_time: float = 0.0) -> Floats:
    """Return the expected cost of many queries, shape (queries, models), US dollars.

    tokens: shape (queries, models), own tokens; prompt_tokens: (queries,), cl100k. A model whose speed is unknown has an
    unknown cost once time has a value.
    """
    prompt = prompt_tokens[:, None] * pool.token_factor
    usd = _usd(pool, prompt, tokens)
    return usd + _seconds(pool, prompt, tokens) * value_of_time if value_of_time else usd


def _usd(pool: PoolColumns, prompt: Floats, tokens: Floats) -> Floats:
    return prompt * pool.usd_in + np.where(pool.usd_out == 0.0, 0.0, tokens * pool.usd_out)


def _seconds(pool: PoolColumns, prompt: Floats, tokens: Floats) -> Floats:
    return pool.load_seconds + prompt / pool.prompt_tokens_per_second + tokens / pool.tokens_per_second


def _column(values: Iterable[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _ranks(order: Ints) -> Ints:
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    return ranks
