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
    from scope_edge.router import Noted, Refiner, Router


def load_router(settings: Settings, noted: Noted | None = None) -> Router:
    """A router for the settings' active pool, from bundled files and the user's own. noted: told of every decision.

    Raises AssetError (a file missing or damaged), UsageError (unknown or empty pool, unknown provider),
    MissingExtraError (an optional library asked for by name is not installed).
    """
    from scope_edge.encoder import Encoder

    # Half of a cold start, and most of it outside the interpreter: the rest is made ready meanwhile.
    encoder = Encoder.loading(provider=settings.provider, threads=settings.threads)
    pool = load_catalog(settings).pool(settings.pool)

    from scope_edge.anchors import load_bank
    from scope_edge.feedback.local import Corrected
    from scope_edge.policy import PoolPolicy
    from scope_edge.router import Router
    from scope_edge.standing import load_standing

    bank = load_bank(settings.index, cache_dir=assets.user_cache_dir())
    standing = load_standing(settings, pool)
    return Router(
        encoder=encoder(),
        bank=bank,
        estimator=Corrected(standing.prior, standing.basis.map, pool),
        policy=PoolPolicy(pool, standing.prepared),
        refiner=_refiner(settings, pool, standing.fingerprints),
        noted=noted,
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
