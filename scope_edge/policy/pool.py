"""The state of a pool before any query: the estimator of its models, and the meaning of alpha among them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimation.fingerprints import ASKED, load_fingerprints
from scope_edge.estimation.irt import IrtEstimator, IrtModel, load_irt_model
from scope_edge.estimation.user_calibration import load_personal
from scope_edge.policy.utility import PolicyPool, policy_pool
from scope_edge.storage import assets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.estimation.reference import Reference
    from scope_edge.types import ModelCard


@dataclass(frozen=True, slots=True, eq=False)
class PoolState:
    """A pool as routing knows it.

    own_sets: the user's anchors. prior: of the pool's models, in its order, and then of the others requested.
    prepared: of the pool alone.
    """

    cards: tuple[ModelCard, ...]
    fingerprints: Mapping[str, Sequence[Fingerprint]]
    own_sets: tuple[AnchorSet, ...]
    irt: IrtModel
    prior: IrtEstimator
    prepared: PolicyPool


def load_pool_state(
    cards: Sequence[ModelCard],
    others: Sequence[ModelCard] = (),
    *,
    coverage: float = 0.9,
    value_of_time: float = 0.0,
    unloadable: Mapping[str, str] | None = None,
) -> PoolState:
    """Load the state of a pool from bundled files and the user's own.

    Args:
        others: models to estimate that cannot be chosen.
        coverage: of the upper bound on tokens. value_of_time: US dollars a second of waiting is worth.
        unloadable: models that cannot be loaded on this machine -> why.

    Raises AssetError (a file missing or damaged), UsageError (an empty pool).
    """
    all_cards = (*cards, *others)
    irt, (sets, measured) = load_irt_model(), load_fingerprints()
    fingerprints, local = measured, None
    if any(one.own for one in sets):
        from scope_edge.estimation.refit import near_own_anchors, refitted

        models, cache = [card.id for card in all_cards], assets.user_cache_dir()
        fingerprints = refitted(measured, irt, models, cache_dir=cache)
        local = near_own_anchors(measured, irt, cache_dir=cache)
    own_sets = tuple(one for one in sets if one.own and one.name != ASKED)
    personal = load_personal(measured).found
    prior = IrtEstimator(irt, all_cards, fingerprints, coverage=coverage, personal=personal, local=local)
    prepared = replace(prepared_pool(cards, prior, irt.reference, value_of_time), unloadable=unloadable or {})
    return PoolState(tuple(cards), fingerprints, own_sets, irt, prior, prepared)


def prepared_pool(
    pool: Sequence[ModelCard], prior: IrtEstimator, reference: Reference, value_of_time: float = 0.0
) -> PolicyPool:
    """Prepare the pool, the first models of the prior, for the policy. The reference determines the meaning of alpha in it.

    It is a fair sample of the bank, and does not move when a user adds anchors.
    """
    table, n = prior.table(reference.places, np.ones(len(reference))), len(pool)
    p, tokens = table.p_correct[:, :n].T, table.tokens[:, :n].T
    return policy_pool(pool, p, tokens, reference.prompt_tokens, value_of_time=value_of_time)
