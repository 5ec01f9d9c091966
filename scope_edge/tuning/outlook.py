"""The forecast of a user's pool over some traffic: at every alpha, and for every model alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import UsageError
from scope_edge.policy.costs import pool_columns
from scope_edge.policy.pool import load_pool_state
from scope_edge.providers.llama.loadable import unloadable
from scope_edge.tuning import forecast
from scope_edge.tuning.forecast import DRAWS, Expected, Forecast, Prospect
from scope_edge.tuning.traffic import Traffic, bank_traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from scope_edge.catalog.cards import Catalog
    from scope_edge.estimation.difficulty import DifficultyMap
    from scope_edge.policy.pool import PoolState
    from scope_edge.types import ModelCard, Preference

# Goals are met to the hundredth of alpha.
GRID = tuple(round(i / 100, 2) for i in range(101))


@dataclass(frozen=True, slots=True, eq=False)
class PoolForecast:
    """The forecast of a pool.

    Attributes:
        rows: at every alpha, rising. leads: each row's lead over the model to match, with its standard error.
        alone: model -> the expectation for all queries without limits; measured models of the pool, and the one to match.
        unmeasured: models of the pool without a fingerprint, which are left out.
    """

    pool: tuple[str, ...]
    rows: tuple[Forecast, ...]
    leads: tuple[tuple[float, float | None], ...]
    alone: Mapping[str, Expected]
    traffic: Traffic
    unmeasured: tuple[str, ...]


def forecast_pool(
    catalog: Catalog,
    preference: Preference,
    alphas: Sequence[float] = GRID,
    *,
    coverage: float = 0.9,
    value_of_time: float = 0.0,
    match: str | None = None,
    traffic: Callable[[DifficultyMap], Traffic] | None = None,
) -> PoolForecast:
    """Forecast the active pool under a preference's policy and limits, at each alpha.

    Args:
        coverage, value_of_time: as in `load_pool_state`.
        match: a model to compare with, in the pool or not.
        traffic: makes the traffic from the map; None = the bank's reference.

    Raises UsageError (unknown model or pool, nothing measured), AssetError (a bundled file is missing or damaged).
    """
    if preference.policy == "paper":
        # It uses each model's own anchors nearest to a query, which map positions do not give.
        raise UsageError("the choices of the paper's policy cannot be forecast; leave `policy` at scope-edge")
    cards = catalog.pool()
    matched = None if match is None else catalog.card(match)
    others = () if matched is None or matched in cards else (matched,)
    pool_state = load_pool_state(
        cards, others, coverage=coverage, value_of_time=value_of_time, unloadable=unloadable(cards)
    )
    seen = bank_traffic(pool_state.irt.reference) if traffic is None else traffic(pool_state.irt.map)
    everyone = (*cards, *others)
    measured = pool_state.prior.measured
    unmeasured = tuple(card.id for card, known in zip(cards, measured, strict=False) if not known)
    preference = replace(preference, exclude=(*preference.exclude, *unmeasured))
    prospect = _prospect(pool_state, everyone, seen, preference)
    if not any(measured[: len(cards)]):
        raise UsageError(
            f"no model of pool {catalog.active_pool} was measured; `scope-edge fingerprint MODEL` measures one"
        )
    target = None if matched is None else everyone.index(matched)
    if target is not None and not measured[target]:
        raise UsageError(f"{match} was not measured; `scope-edge fingerprint {match}` measures it")
    chosen = [forecast.choices(pool_state.prepared, prospect, alpha, preference.policy) for alpha in alphas]
    return PoolForecast(
        pool=tuple(card.id for card in cards),
        rows=tuple(
            forecast.foreseen(alpha, forecast.expected(prospect, one))
            for alpha, one in zip(alphas, chosen, strict=True)
        ),
        leads=() if target is None else tuple(forecast.lead(prospect, one, target) for one in chosen),
        alone={
            card.id: forecast.expected(prospect, np.full(len(seen), i))
            for i, card in enumerate(everyone)
            if measured[i]
        },
        traffic=seen,
        unmeasured=unmeasured,
    )


def _prospect(
    pool_state: PoolState, everyone: Sequence[ModelCard], traffic: Traffic, preference: Preference
) -> Prospect:
    """Return these models, the pool's first, over the traffic, under the preference's limits."""
    plain = forecast.prospect_of(
        pool_columns(everyone), pool_state.prior, traffic.positions, traffic.prompt_tokens, draws=DRAWS
    )
    prompts = traffic.prompt_tokens, traffic.prompt_tokens_hi
    allowed, unlimited = forecast.within_limits(pool_state.prepared, plain.table, prompts, preference)
    return replace(plain, allowed=allowed, unlimited=unlimited)
