"""What is known of a pool before any query: the prior of its models, and what alpha means among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.fingerprints import load_fingerprints
from scope_edge.personal import load_personal
from scope_edge.prior import Basis, Prior, load_basis
from scope_edge.utility import PolicyPool, policy_pool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scope_edge.config import Settings
    from scope_edge.fingerprints import Fingerprint
    from scope_edge.records import ModelCard


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """A pool as routing knows it.

    prior: of the pool's models, in its order, and then of any others that were asked for. prepared: of the pool alone.
    """

    cards: tuple[ModelCard, ...]
    fingerprints: Mapping[str, Sequence[Fingerprint]]
    basis: Basis
    prior: Prior
    prepared: PolicyPool


def load_standing(settings: Settings, cards: Sequence[ModelCard], others: Sequence[ModelCard] = ()) -> Standing:
    """From bundled files and the user's own. others: models to estimate that cannot be chosen.

    Raises AssetError (a file missing or damaged), UsageError (an empty pool).
    """
    basis, fingerprints = load_basis(), load_fingerprints()[1]
    personal = load_personal(fingerprints)
    prior = Prior(basis, (*cards, *others), fingerprints, coverage=settings.coverage, personal=personal.found)
    # What alpha means is read off a sample of the bank: it must not move because a user added anchors.
    reference = basis.reference
    table = prior.table(reference.places, np.ones(len(reference)))
    p, tokens = (column[:, : len(cards)].T for column in (table.p_correct, table.tokens))
    prepared = policy_pool(cards, p, tokens, reference.prompt_tokens, value_of_time=settings.value_of_time)
    return Standing(tuple(cards), fingerprints, basis, prior, prepared)
