"""Puts the concrete parts together. The only room that names them all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from scope_edge import assets
from scope_edge.catalog import load_catalog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scope_edge.config import Settings
    from scope_edge.fingerprints import Fingerprint
    from scope_edge.prior import Prior
    from scope_edge.records import ModelCard
    from scope_edge.reference import Reference
    from scope_edge.router import Refiner, Router
    from scope_edge.utility import PolicyPool


def load_router(settings: Settings) -> Router:
    """A router for the settings' active pool, from bundled files and the user's own.

    Raises AssetError (a file missing or damaged), UsageError (unknown or empty pool, unknown provider),
    MissingExtraError (an optional library asked for by name is not installed).
    """
    from scope_edge.encoder import Encoder

    # Half of a cold start, and most of it outside the interpreter: the rest is made ready meanwhile.
    encoder = Encoder.loading(provider=settings.provider, threads=settings.threads)
    pool = load_catalog(settings).pool(settings.pool)

    from scope_edge.anchors import load_bank
    from scope_edge.fingerprints import load_fingerprints
    from scope_edge.policy import PoolPolicy
    from scope_edge.prior import Prior, load_basis
    from scope_edge.router import Router

    bank = load_bank(settings.index, cache_dir=assets.user_cache_dir())
    basis = load_basis()
    sets, fingerprints = load_fingerprints()
    if any(one.own for one in sets):
        from scope_edge.refit.use import refitted

        asked = [card.id for card in pool]
        fingerprints = refitted(fingerprints, basis, asked, cache_dir=assets.user_cache_dir())
    prior = Prior(basis, pool, fingerprints, coverage=settings.coverage)
    prepared = prepared_pool(pool, prior, basis.reference, settings.value_of_time)
    if any(card.gguf is not None for card in pool):
        from scope_edge.managing.loadable import unloadable

        prepared = replace(prepared, unloadable=unloadable(pool))
    return Router(
        encoder=encoder(),
        bank=bank,
        estimator=prior,
        policy=PoolPolicy(pool, prepared),
        refiner=_refiner(settings, pool, fingerprints),
    )


def prepared_pool(
    pool: Sequence[ModelCard], prior: Prior, reference: Reference, value_of_time: float = 0.0
) -> PolicyPool:
    """The pool as the policy knows it: what alpha means in it is read off what the prior says of the reference.

    That is a fair sample of the bank, and does not move because a user added anchors.
    """
    import numpy as np

    from scope_edge.policy import policy_pool

    table = prior.table(reference.places, np.ones(len(reference)))
    return policy_pool(pool, table.p_correct.T, table.tokens.T, reference.prompt_tokens, value_of_time=value_of_time)


def _refiner(
    settings: Settings, pool: Sequence[ModelCard], fingerprints: Mapping[str, Sequence[Fingerprint]]
) -> Refiner | None:
    """The estimator to ask after the prior. With none installed, finding that out costs one look at a folder."""
    if settings.estimator == "prior":
        return None
    wanted = settings.estimator == "gguf" or settings.estimator_name is not None
    if not wanted and not (assets.user_data_dir() / "estimators").is_dir():
        return None
    from scope_edge.estimator.use import load_estimator

    return load_estimator(settings, pool, fingerprints)
