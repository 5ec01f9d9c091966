"""What alpha buys in the user's pool: every alpha, and every model alone, over the traffic it is asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import UsageError
from scope_edge.policy.costs import pool_columns
from scope_edge.policy.pool import load_pool_state
from scope_edge.providers.llama.loadable import unloadable
from scope_edge.tuning.forecast import (
    DRAWS,
    Expected,
    Forecast,
    Prospect,
    choices,
    expected,
    foreseen,
    lead,
    prospect_of,
    within_limits,
)
from scope_edge.tuning.traffic import Traffic, bank_traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from scope_edge.catalog.cards import Catalog
    from scope_edge.estimation.difficulty import DifficultyMap
    from scope_edge.policy.pool import PoolState
    from scope_edge.types import ModelCard, Preference

# Fine enough that a wish is met to the hundredth of alpha.
GRID = tuple(round(i / 100, 2) for i in range(101))


@dataclass(frozen=True, slots=True, eq=False)
class PoolForecast:
    """What to expect.

    Attributes:
        rows: at every alpha, rising. leads: how far each is ahead of the model to match, with the standard error of that.
        alone: model -> what it would do with all queries, limits aside; models of the pool
            that were measured, and the one to match.
        unmeasured: models of the pool without a fingerprint, of which nothing is expected.
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
        coverage, value_of_time: as `load_standing` takes them.
        match: a model to look at alone, in the pool or not.
        traffic: makes it from the map; None = the bank's reference.

    Raises UsageError (unknown model or pool, nothing measured), AssetError (a bundled file is missing or damaged).
    """
    if preference.policy == "paper":
        # It goes by each model's own anchors nearest to a query, which places alone do not tell.
        raise UsageError("what the paper's policy will choose cannot be foreseen; leave `policy` at scope-edge")
    cards = catalog.pool()
    matched = None if match is None else catalog.card(match)
    others = () if matched is None or matched in cards else (matched,)
    standing = load_pool_state(
        cards, others, coverage=coverage, value_of_time=value_of_time, unloadable=unloadable(cards)
    )
    seen = bank_traffic(standing.irt.reference) if traffic is None else traffic(standing.irt.map)
    everyone = (*cards, *others)
    prospect = _prospect(standing, everyone, seen, preference)
    measured = np.isfinite(prospect.table.p_correct[0]).tolist()
    if not any(measured[: len(cards)]):
        raise UsageError(
            f"no model of pool {catalog.active_pool} was measured; `scope-edge fingerprint MODEL` measures one"
        )
    target = None if matched is None else everyone.index(matched)
    if target is not None and not measured[target]:
        raise UsageError(f"how good {match} is is not known; `scope-edge fingerprint {match}` measures it")
    chosen = [choices(standing.prepared, prospect, alpha, preference.policy) for alpha in alphas]
    return PoolForecast(
        pool=tuple(card.id for card in cards),
        rows=tuple(foreseen(alpha, expected(prospect, one)) for alpha, one in zip(alphas, chosen, strict=True)),
        leads=() if target is None else tuple(lead(prospect, one, target) for one in chosen),
        alone={card.id: expected(prospect, np.full(len(seen), i)) for i, card in enumerate(everyone) if measured[i]},
        traffic=seen,
        unmeasured=tuple(card.id for card, known in zip(cards, measured, strict=False) if not known),
    )


def _prospect(standing: PoolState, everyone: Sequence[ModelCard], traffic: Traffic, preference: Preference) -> Prospect:
    """These models, the pool's first, over the traffic, under the preference's limits."""
    plain = prospect_of(pool_columns(everyone), standing.prior, traffic.places, traffic.prompt_tokens, draws=DRAWS)
    prompts = traffic.prompt_tokens, traffic.prompt_tokens_hi
    allowed, unlimited = within_limits(standing.prepared, plain.table, prompts, preference)
    return replace(plain, allowed=allowed, unlimited=unlimited)
