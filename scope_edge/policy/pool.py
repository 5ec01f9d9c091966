"""What is known of a pool before any query: the prior of its models, and what alpha means among them."""

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

    own_sets: the user's anchors. prior: of the pool's models, in its order, and then of the others that were wanted.
    prepared: of the pool alone.
    """

    cards: tuple[ModelCard, ...]
    fingerprints: Mapping[str, Sequence[Fingerprint]]
    own_sets: tuple[AnchorSet, ...]
    basis: IrtModel
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
    """Read what is known of a pool from bundled files and the user's own.

    Args:
        others: models to estimate that cannot be chosen.
        coverage: of the upper bound on tokens. value_of_time: US dollars a second of waiting is worth.
        unloadable: models that cannot be loaded on this machine -> why.

    Raises AssetError (a file missing or damaged), UsageError (an empty pool).
    """
    everyone = (*cards, *others)
    basis, (sets, measured) = load_irt_model(), load_fingerprints()
    fingerprints = measured
    if any(one.own for one in sets):
        from scope_edge.estimation.refit import refitted

        asked = [card.id for card in everyone]
        fingerprints = refitted(measured, basis, asked, cache_dir=assets.user_cache_dir())
    own_sets = tuple(one for one in sets if one.own and one.name != ASKED)
    personal = load_personal(measured).found
    prior = IrtEstimator(basis, everyone, fingerprints, coverage=coverage, personal=personal)
    prepared = prepared_pool(cards, prior, basis.reference, value_of_time)
    prepared = replace(prepared, unloadable=unloadable or {})
    return PoolState(tuple(cards), fingerprints, own_sets, basis, prior, prepared)


def prepared_pool(
    pool: Sequence[ModelCard], prior: IrtEstimator, reference: Reference, value_of_time: float = 0.0
) -> PolicyPool:
    """The pool, the first models of the prior, as the policy knows it: what alpha means in it is read off the reference.

    That is a fair sample of the bank, and does not move because a user added anchors.
    """
    table, n = prior.table(reference.places, np.ones(len(reference))), len(pool)
    p, tokens = table.p_correct[:, :n].T, table.tokens[:, :n].T
    return policy_pool(pool, p, tokens, reference.prompt_tokens, value_of_time=value_of_time)
