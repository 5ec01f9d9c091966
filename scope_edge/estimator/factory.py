"""Prepare the installed estimator for one pool. Its weights are loaded only when a query needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError, UsageError, WorkerError
from scope_edge.estimator.calibration import EstimatorCalibration, Key, load_calibration
from scope_edge.estimator.prompt import TextSlices
from scope_edge.estimator.scope import EstimatorEngine, Limits, ScopeEstimator
from scope_edge.estimator.store import Installed, check_gguf, find_installed
from scope_edge.storage import assets
from scope_edge.types import EncodedQuery, Estimates, EstimatorReport, Refinement

if TYPE_CHECKING:
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.providers.llama.client import LlamaClient
    from scope_edge.providers.llama.memory import NoRoom, Plan
    from scope_edge.providers.llama.speed import SpeedRecord
    from scope_edge.settings.config import Settings
    from scope_edge.types import Floats, ModelCard

# The time per query for `--estimator auto`, in seconds.
AUTO_SECONDS = 2.0
CALIBRATE = "`scope-edge calibrate --estimator gguf`"
INSTALL = "`scope-edge estimator install Cooolder/SCOPE` installs one"


class Unusable:
    """An installed estimator that cannot be used: every decision says why."""

    def __init__(self, why: str) -> None:
        self._why = why

    def refine(
        self, encoded: EncodedQuery, estimates: Estimates, could_win: Callable[[Estimates, Floats, Floats], object]
    ) -> Refinement:
        """Return the prior's estimates unchanged."""
        return Refinement(estimates, EstimatorReport("prior"), (f"{self._why}; these are the prior's estimates",))

    def close(self) -> None:
        """Do nothing: no worker runs."""


def load_estimator(
    settings: Settings, pool: Sequence[ModelCard], fingerprints: Mapping[str, Sequence[Fingerprint]]
) -> ScopeEstimator | Unusable | None:
    """Load the estimator of the settings; None where "auto" finds none installed.

    Any GGUF can be installed as one. Its answers count, and it is asked, only once it was compared with known outcomes.

    Raises AssetError when the setting `estimator` is "gguf" and no such estimator is installed.
    """
    try:
        installed = find_installed(settings.estimator_name)
    except AssetError as error:
        return Unusable(str(error))
    if installed is None:
        if settings.estimator == "auto" and settings.estimator_name is None:
            return None
        named = "no estimator" if settings.estimator_name is None else f"no estimator {settings.estimator_name!r}"
        problem = f"{named} is installed; {INSTALL}"
        if settings.estimator == "gguf":
            raise AssetError(problem)
        return Unusable(problem)
    try:
        if calibration(installed) is None:
            return Unusable(f"estimator {installed.name} has no weight before it is calibrated; {CALIBRATE} does that")
        seconds = settings.estimate_seconds
        if seconds is None and settings.estimator == "auto":
            seconds = AUTO_SECONDS
        limits = Limits(seconds, settings.estimate_tokens)
        return scope_estimator(
            installed, pool, fingerprints, limits=limits, threads=settings.threads, coverage=settings.coverage
        )
    except (AssetError, UsageError) as error:
        return Unusable(str(error))


def scope_estimator(
    installed: Installed,
    pool: Sequence[ModelCard],
    fingerprints: Mapping[str, Sequence[Fingerprint]],
    *,
    limits: Limits | None = None,
    threads: int | None = None,
    coverage: float = 0.9,
) -> ScopeEstimator:
    """Return an installed estimator for one pool. Raises AssetError or UsageError: its files are damaged."""
    return ScopeEstimator(
        installed,
        TextSlices(pool, fingerprints),
        engine(installed, pool, threads),
        limits=limits or Limits(),
        calibration=calibration(installed),
        coverage=coverage,
    )


def engine(installed: Installed, pool: Sequence[ModelCard], threads: int | None = None) -> EstimatorEngine:
    """Return access to a worker beside the pool's device models. threads: the maximum number of cores; None = all."""

    def open_() -> LlamaClient:
        from scope_edge.providers.llama.client import LlamaClient
        from scope_edge.providers.llama.memory import NoRoom

        check_gguf(installed)
        plan = memory_plan(installed, pool)
        if isinstance(plan, NoRoom):
            raise WorkerError(plan.why)
        if threads is not None:
            plan = replace(plan, threads=min(threads, plan.threads))
        return LlamaClient(installed.gguf, installed.sha256, plan, cache_dir=assets.user_cache_dir())

    def known() -> SpeedRecord | None:
        from scope_edge.providers.llama.speed import remembered

        return remembered(installed.sha256, assets.user_cache_dir())

    return EstimatorEngine(open_, known)


def memory_plan(installed: Installed, pool: Sequence[ModelCard]) -> Plan | NoRoom:
    """Plan its memory beside the pool's largest device model, which answers when the choice is local."""
    from scope_edge.providers.llama.memory import available_memory, plan_estimator, usable_gpus

    resident = max((card.size_gb or 0.0 for card in pool if card.where == "device"), default=0.0)
    return plan_estimator(
        installed.shape, installed.size, available=available_memory(), gpus=usable_gpus(resident), resident_gb=resident
    )


def bytes_needed(settings: Settings, pool: Sequence[ModelCard]) -> int:
    """Return the memory the settings' estimator takes once it is loaded; 0 without a calibrated one, or without room."""
    from scope_edge.providers.llama.memory import Plan

    if settings.estimator == "prior":
        return 0
    try:
        installed = find_installed(settings.estimator_name)
        used = installed is not None and calibration(installed) is not None
    except AssetError:
        return 0
    plan = memory_plan(installed, pool) if installed is not None and used else None
    return plan.needs if isinstance(plan, Plan) else 0


def key(installed: Installed) -> Key:
    """Return the key of its calibration."""
    return Key(installed.sha256, installed.template_sha256, installed.mode)


def calibration(installed: Installed) -> EstimatorCalibration | None:
    """Read its calibration; None when missing for these weights, template and mode. Raises PackError: damaged."""
    return load_calibration(installed.folder, key(installed))
