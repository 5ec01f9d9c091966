"""The parts of a router, made from the settings and put together. No other file names them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scope_edge.catalog.cards import load_catalog
from scope_edge.storage import assets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from scope_edge.catalog.cards import Catalog
    from scope_edge.encoding.encoder import Encoder
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.execution import Executor
    from scope_edge.execution.protocols import Provider
    from scope_edge.execution.spending import Ledger
    from scope_edge.fingerprinting.importing.naming import Cards
    from scope_edge.history import Journal
    from scope_edge.pipeline import Pipeline, PrivacyCheck, QueryEncoder, Refiner
    from scope_edge.settings.config import Settings
    from scope_edge.types import EncodedQuery, ModelCard, Query


def open_catalog(settings: Settings) -> Catalog:
    """Load the bundled model cards and pools with the settings' own. Raises AssetError or ConfigError."""
    return load_catalog(settings.models, settings.pools, settings.pool, file=settings.file)


def open_cards() -> Cards:
    """Load the cards to match imported models with. Raises AssetError or ConfigError."""
    from scope_edge.fingerprinting.importing.naming import Cards
    from scope_edge.settings.config import load_settings

    return Cards(open_catalog(load_settings()))


def open_journal(settings: Settings) -> Journal:
    """Make the journal; nothing is read or written yet."""
    from scope_edge.history import Journal
    from scope_edge.history.entry import JournalOptions

    return Journal(
        JournalOptions(
            choice=settings.journal,
            text=settings.journal_text,
            embedding=settings.journal_embedding,
            days=settings.journal_days,
            mb=settings.journal_mb,
            pool=settings.pool,
            profile=settings.profile,
            value_of_time=settings.value_of_time,
        )
    )


def open_ledger(settings: Settings) -> Ledger:
    """Open the record of spending, under the settings' caps."""
    from scope_edge.execution.spending import Ledger

    return Ledger(settings.max_usd_day, settings.max_usd_month)


@dataclass(frozen=True, slots=True)
class Providers:
    """The places where models run. Executors may share them, since models on the device share one memory.

    device: for GGUFs; None without any. cloud: for endpoints, wherever they are.
    """

    device: Provider | None
    cloud: Provider


def load_encoder(settings: Settings) -> Callable[[], Encoder]:
    """Load the encoder in the background. The returned function waits for it, and raises as `load_pipeline`."""
    from scope_edge.encoding.encoder import Encoder

    return Encoder.loading(provider=settings.provider, threads=settings.threads)


def load_pipeline(settings: Settings, encoder: Callable[[], QueryEncoder] | None = None) -> Pipeline:
    """Load the pipeline of the settings' active pool, from bundled files and the user's own.

    encoder: returns one that is loaded already.

    Raises AssetError (a file missing or damaged), UsageError (unknown or empty pool, unknown provider),
    MissingExtraError (an optional library requested by name is not installed).
    """
    # Half of a cold start, and most of it outside the interpreter: the rest is made ready meanwhile.
    encoder = encoder or load_encoder(settings)
    pool, look = _with_speeds(open_catalog(settings).pool())

    from scope_edge.estimation.anchors import load_bank
    from scope_edge.estimation.feedback_correction import FeedbackCorrectedEstimator
    from scope_edge.pipeline import Pipeline
    from scope_edge.policy.policy import PoolPolicy
    from scope_edge.policy.pool import load_pool_state

    state = load_pool_state(
        pool, coverage=settings.coverage, value_of_time=settings.value_of_time, unloadable=_unloadable(pool)
    )
    bank = load_bank(settings.index, cache_dir=assets.user_cache_dir(), own=state.own_sets)
    return Pipeline(
        encoder=encoder(),
        bank=bank,
        estimator=FeedbackCorrectedEstimator(state.prior, state.irt.map, pool),
        policy=PoolPolicy(pool, state.prepared, look),
        refiner=_refiner(settings, pool, state.fingerprints),
        guard=_guard(settings),
    )


def load_providers(settings: Settings, cards: Sequence[ModelCard]) -> Providers:
    """Make the providers of these models. Nothing is started or connected to yet."""
    from scope_edge.execution.cloud import CloudProvider
    from scope_edge.providers.openai.pace import Pace

    silence = settings.silence_seconds
    pace = Pace(settings.first_token_seconds, settings.least_pace, pause=silence)
    cloud = CloudProvider(silence=silence, pace=pace, offline=settings.offline)
    return Providers(_device(settings, cards), cloud)


def load_executor(
    settings: Settings,
    cards: Sequence[ModelCard],
    encode: Callable[[Query], EncodedQuery],
    journal: Journal,
    providers: Providers | None = None,
) -> Executor:
    """Make the executor of decisions on these models. Nothing is started or connected to yet. providers: None = its own."""
    from scope_edge.execution import Executor

    def agree(first: str, second: str) -> bool:
        # Imported when two answers are compared: the graders load numpy, which a pinned model needs for nothing else.
        from scope_edge.fingerprinting.grading.agree import agree as same

        return same(first, second, encode)

    providers = providers or load_providers(settings, cards)
    return Executor(
        cards,
        device=providers.device,
        cloud=providers.cloud,
        agree=agree,
        ledger=open_ledger(settings),
        journal=journal,
    )


def _device(settings: Settings, pool: Sequence[ModelCard]) -> Provider | None:
    if all(card.gguf is None for card in pool):
        return None
    from scope_edge.estimator.factory import bytes_needed
    from scope_edge.execution.device import DeviceProvider
    from scope_edge.providers.llama.host import DeviceHost

    host = DeviceHost(
        cache_dir=assets.user_cache_dir(),
        threads=settings.threads,
        keep_alive=settings.keep_alive,
        # One memory plan: the estimator's part, now or later, is not available to the device's models.
        reserved_bytes=bytes_needed(settings, pool),
    )
    return DeviceProvider(host)


def _guard(settings: Settings) -> PrivacyCheck | None:
    if settings.privacy == "off":
        return None
    from scope_edge.policy.privacy import PrivacyGuard

    return PrivacyGuard()


def _refiner(
    settings: Settings, pool: Sequence[ModelCard], fingerprints: Mapping[str, Sequence[Fingerprint]]
) -> Refiner | None:
    """Load the installed estimator that refines estimates. Without one, this costs one look at a folder."""
    if settings.estimator == "prior":
        return None
    wanted = settings.estimator == "gguf" or settings.estimator_name is not None
    if not wanted and not (assets.user_data_dir() / "estimators").is_dir():
        return None
    from scope_edge.estimator.factory import load_estimator

    return load_estimator(settings, pool, fingerprints)


def _with_speeds(
    pool: tuple[ModelCard, ...],
) -> tuple[tuple[ModelCard, ...], Callable[[], Sequence[ModelCard] | None]]:
    """Return the pool's cards with their speeds as last measured, and what returns them again when that has changed."""
    if all(card.gguf is None for card in pool):
        return pool, lambda: None
    from scope_edge.providers.llama.loadable import speeds_of

    look = speeds_of(pool)
    return tuple(look() or pool), look


def _unloadable(pool: Sequence[ModelCard]) -> Mapping[str, str]:
    """Return the models whose GGUF cannot be loaded here -> why. A pool without any imports nothing for it."""
    if all(card.gguf is None for card in pool):
        return {}
    from scope_edge.providers.llama.loadable import unloadable

    return unloadable(pool)
