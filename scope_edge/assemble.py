"""Puts the concrete parts together. The only room that names them all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from scope_edge import assets
from scope_edge.catalog import load_catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from scope_edge.config import Settings
    from scope_edge.encoder import Encoder
    from scope_edge.executor import Executor
    from scope_edge.executor.contracts import Place
    from scope_edge.fingerprints import Fingerprint
    from scope_edge.records import EncodedQuery, ModelCard, Query
    from scope_edge.router import Flow, Guard, Noted, Refiner


@dataclass(frozen=True, slots=True)
class Places:
    """Where models run. Several executors may share them: models on the device have one memory.

    device: of GGUFs; None = there are none. cloud: of endpoints, wherever they are.
    """

    device: Place | None
    cloud: Place


def load_encoder(settings: Settings) -> Callable[[], Encoder]:
    """The encoder, loaded in the background; calling what comes back waits for it. Raises as `load_flow`."""
    from scope_edge.encoder import Encoder

    return Encoder.loading(provider=settings.provider, threads=settings.threads)


def load_flow(settings: Settings, noted: Noted | None = None, encoder: Callable[[], Encoder] | None = None) -> Flow:
    """A router for the settings' active pool, from bundled files and the user's own.

    noted: told of every decision. encoder: one that is loaded already.

    Raises AssetError (a file missing or damaged), UsageError (unknown or empty pool, unknown provider),
    MissingExtraError (an optional library asked for by name is not installed).
    """
    # Half of a cold start, and most of it outside the interpreter: the rest is made ready meanwhile.
    encoder = encoder or load_encoder(settings)
    pool = load_catalog(settings).pool(settings.pool)

    from scope_edge.anchors import load_bank
    from scope_edge.feedback.local import Corrected
    from scope_edge.policy import PoolPolicy
    from scope_edge.router import Flow
    from scope_edge.standing import load_standing

    bank = load_bank(settings.index, cache_dir=assets.user_cache_dir())
    standing = load_standing(settings, pool)
    return Flow(
        encoder=encoder(),
        bank=bank,
        estimator=Corrected(standing.prior, standing.basis.map, pool),
        policy=PoolPolicy(pool, standing.prepared),
        refiner=_refiner(settings, pool, standing.fingerprints),
        guard=_guard(settings),
        noted=noted,
    )


def load_places(settings: Settings, cards: Sequence[ModelCard]) -> Places:
    """Where these models run. Nothing is started or connected to yet."""
    from scope_edge.executor.cloud import CloudPlace

    cloud = CloudPlace(silence=settings.silence_seconds, offline=settings.offline)
    return Places(_device(settings, cards), cloud)


def load_executor(
    settings: Settings,
    cards: Sequence[ModelCard],
    encode: Callable[[Query], EncodedQuery],
    places: Places | None = None,
) -> Executor:
    """What carries decisions on these models out. Nothing is started or connected to yet. places: None = its own."""
    from scope_edge.executor import Executor
    from scope_edge.grading.agree import agree
    from scope_edge.journal import Journal
    from scope_edge.ledger import Ledger

    places = places or load_places(settings, cards)
    return Executor(
        cards,
        device=places.device,
        cloud=places.cloud,
        agree=partial(agree, encode=encode),
        ledger=Ledger(settings),
        journal=Journal(settings),
    )


def _device(settings: Settings, pool: Sequence[ModelCard]) -> Place | None:
    if all(card.gguf is None for card in pool):
        return None
    from scope_edge.estimator.use import bytes_needed
    from scope_edge.executor.device import DevicePlace
    from scope_edge.llama.host import Host

    # One memory plan: what the estimator takes, or will, is not the device models' to take.
    reserved = bytes_needed(settings, pool)
    return DevicePlace(Host(settings, cache_dir=assets.user_cache_dir(), reserved_bytes=reserved))


def _guard(settings: Settings) -> Guard | None:
    if settings.privacy == "off":
        return None
    from scope_edge.privacy import PrivacyGuard

    return PrivacyGuard()


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
