"""Puts the concrete parts together. The only room that names them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scope_edge import assets
from scope_edge.catalog import load_catalog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scope_edge.config import Settings
    from scope_edge.fingerprints import Fingerprint
    from scope_edge.records import ModelCard
    from scope_edge.router import Refiner, Router


def load_router(settings: Settings) -> Router:
    """A router for the settings' active pool, from bundled files and the user's own.

    Raises AssetError (a file missing or damaged), UsageError (unknown or empty pool, unknown provider),
    MissingExtraError (an optional library asked for by name is not installed).
    """
    from scope_edge.encoder import Encoder

    # Half of a cold start, and most of it outside the interpreter: the rest is made ready meanwhile.
    encoder = Encoder.loading(provider=settings.provider, threads=settings.threads)
    pool = load_catalog(settings).pool(settings.pool)

    import numpy as np

    from scope_edge.anchors import load_bank
    from scope_edge.fingerprints import load_fingerprints
    from scope_edge.policy import PoolPolicy, policy_pool
    from scope_edge.prior import Prior, load_map
    from scope_edge.router import Router

    bank = load_bank(settings.index, cache_dir=assets.user_cache_dir())
    fitted, population, calibration = load_map()
    sets, fingerprints = load_fingerprints()
    if any(one.own for one in sets):
        from scope_edge.refit.use import refitted

        asked = [card.id for card in pool]
        fingerprints = refitted(fingerprints, population, asked, cache_dir=assets.user_cache_dir())
    prior = Prior(fitted, population, pool, fingerprints, calibration=calibration, coverage=settings.coverage)
    # What alpha means is read off the bundled sets alone: it must not move because a user added anchors, and the bundled
    # ones are spread over what people ask, which a user's set need not be.
    reference = [one for one in sets if not one.own]
    p, tokens = (np.hstack(parts) for parts in zip(*(prior.on(one) for one in reference), strict=True))
    prompts = np.concatenate([one.prompt_tokens for one in reference])
    prepared = policy_pool(pool, p, tokens, prompts, value_of_time=settings.value_of_time)
    return Router(
        encoder=encoder(),
        bank=bank,
        estimator=prior,
        policy=PoolPolicy(pool, prepared),
        refiner=_refiner(settings, pool, fingerprints),
    )


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
