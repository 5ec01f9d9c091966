"""The report of `doctor`: what is installed, how it was built, what is damaged, what works. Nothing is changed.

`examine` does not stop at the first problem. A problem says what is wrong, where, and what to do; the worst one gives the exit
code.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from scope_edge._version import __version__
from scope_edge.errors import AssetError, ScopeEdgeError, UsageError
from scope_edge.estimation.fingerprints import load_fingerprints
from scope_edge.estimator.factory import CALIBRATE, calibration, memory_plan
from scope_edge.estimator.prompt import PromptTemplate, TextSlices
from scope_edge.estimator.scope import SpeedEstimate, no_text
from scope_edge.estimator.store import Installed, check_gguf, entries, find_installed
from scope_edge.providers.llama.memory import Gpu, Maker, NoRoom, find_gpus
from scope_edge.providers.llama.probe import LlamaBuild, probe_llama
from scope_edge.providers.llama.speed import remembered
from scope_edge.storage import assets
from scope_edge.storage.files import in_words

if TYPE_CHECKING:
    from scope_edge.settings.config import Settings
    from scope_edge.types import ModelCard

# The distributions of the package; those of extras may be missing.
NEEDED = ("numpy", "onnxruntime", "tokenizers", "msgpack", "click", "platformdirs", "tomlkit")
OPTIONAL = (
    "hnswlib", "llama-cpp-python", "gguf", "safetensors", "huggingface-hub", "pyarrow", "httpx", "httpx-sse",
    "starlette", "uvicorn", "prometheus-client",
)  # fmt: skip
_BUILD_FLAGS: Mapping[Maker, str] = {"nvidia": "-DGGML_CUDA=on", "amd": "-DGGML_HIP=on", "apple": "-DGGML_METAL=on"}
_BACKENDS: Mapping[Maker, tuple[str, ...]] = {
    "nvidia": ("CUDA", "Vulkan"),
    "amd": ("HIP", "ROCm", "CUDA", "Vulkan"),
    "apple": ("Metal", "MTL"),
}
_BROKEN = "does not load"
_TEST_QUERY = "Is 91 a prime number?"
# Tokens of a usual prompt, to say how long an estimator takes for one.
_USUAL_PROMPT = 1000.0


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check. problem: what is wrong and what to do, or None."""

    name: str
    found: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The whole report.

    Attributes:
        versions: distribution -> version, None if it is not installed.
        built_with: native library -> how it was built.
        gpus, llama: the GPUs, and what llama.cpp can do with them. gpu: both in one line, with the remedy if they do not match.
        assets, paths: checks of files and folders. routing: the check that routes a query.
        estimators: a check for each installed estimator, the one in use first.
        settings: setting -> its value and its origin. pool: the active pool's models and where each runs.
        offline: what works without a network. degraded: what works less well than it could, and why.
        exit_code: 0 = routing works, else the worst problem's.
    """

    versions: Mapping[str, str | None]
    built_with: Mapping[str, str]
    gpus: tuple[Gpu, ...]
    llama: LlamaBuild
    gpu: Check
    assets: tuple[Check, ...]
    paths: tuple[Check, ...]
    settings: Mapping[str, tuple[str, str]]
    pool: Mapping[str, str]
    routing: Check
    offline: tuple[str, ...]
    degraded: tuple[str, ...]
    exit_code: int
    estimators: tuple[Check, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object (docs/json.md)."""
        body = asdict(self)
        body["settings"] = {key: {"value": value, "from": source} for key, (value, source) in self.settings.items()}
        return body


@dataclass(slots=True)
class _Worst:
    """The exit code of the worst problem so far: a damaged file counts more than an invalid setting."""

    code: int = 0

    def note(self, error: ScopeEdgeError) -> str:
        self.code = max(self.code, error.exit_code)
        return str(error)


def examine() -> Diagnosis:
    """Check everything. Files that cannot be read are problems in the report, not errors."""
    worst = _Worst()
    llama, gpus = probe_llama(), find_gpus()
    built_with = _built_with(llama)
    settings, table, pool = _settings(worst)
    files, routing = _assets(worst), _routing(settings, worst)
    estimators, without_text = _estimators(settings)
    return Diagnosis(
        versions=_versions(),
        built_with=built_with,
        gpus=gpus,
        llama=llama,
        gpu=judge_gpu(gpus, llama),
        assets=files,
        paths=_paths(),
        settings=table,
        pool=pool,
        routing=routing,
        offline=_offline(pool, routing),
        degraded=(*_degraded(built_with, llama), *without_text, *_ignored()),
        exit_code=worst.code,
        estimators=estimators,
    )


def judge_gpu(gpus: Sequence[Gpu], llama: LlamaBuild) -> Check:
    """Check whether llama.cpp can use the machine's GPU; if not, the problem is the command that would change that."""
    if not gpus:
        return Check("gpu", "none found; everything runs on the CPU")
    names = ", ".join(gpu.name for gpu in gpus)
    remedy = f"to use it: {mend(gpus[0].maker)}"
    if llama.state != "ok":
        state = "is not installed" if llama.state == "missing" else "does not load"
        return Check("gpu", f"{names} found; llama.cpp {state}", remedy)
    for gpu in gpus:
        if llama.gpu_offload and set(llama.backends) & set(_BACKENDS[gpu.maker]):
            return Check("gpu", f"{gpu.name} found, and llama.cpp can use it")
    built = f"llama.cpp built without it (it has: {', '.join(llama.backends) or 'CPU'})"
    return Check("gpu", f"{names} found, {built}", remedy)


def mend(maker: Maker, system: str = sys.platform) -> str:
    """Return the command that builds llama.cpp for a maker's GPUs, in the syntax of the system's shell."""
    install = 'pip install --upgrade --force-reinstall --no-cache-dir "llama-cpp-python>=0.3.36"'
    flags = f'CMAKE_ARGS="{_BUILD_FLAGS[maker]}"'
    return f"$env:{flags}; {install}" if system == "win32" else f"{flags} {install}"


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"scope-edge": __version__, "python": platform.python_version()}
    for name in (*NEEDED, *OPTIONAL):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _built_with(llama: LlamaBuild) -> dict[str, str]:
    """Return what each native library says of its build. If one does not load, `_routing` reports the problem."""
    from scope_edge.encoding.session import PROVIDERS, runtime, usable_cores

    found: dict[str, str] = {"machine": f"{platform.system()} {platform.machine()}, {usable_cores()} cores"}
    try:
        here = runtime().get_available_providers()
        found["onnxruntime"] = ", ".join(name for name, provider in PROVIDERS.items() if provider in here)
    except ImportError as error:
        found["onnxruntime"] = f"{_BROKEN} ({error})"
    try:
        import hnswlib

        found["hnswlib"] = f"loads ({Path(hnswlib.__file__).name})"
    except ImportError as error:
        found["hnswlib"] = f"{_BROKEN} ({error})"
    found["llama.cpp"] = llama.system_info or llama.problem or "unknown"
    return found


def _assets(worst: _Worst) -> tuple[Check, ...]:
    """Check every bundled file against its hash in the manifest."""
    try:
        listed = assets.manifest()
    except ScopeEdgeError as error:
        return (Check("manifest", "cannot be used", worst.note(error)),)
    checks: list[Check] = []
    for name, asset in listed.items():
        try:
            assets.read(name)
            checks.append(Check(name, f"{asset.size} bytes, sha256 {asset.sha256[:12]}"))
        except ScopeEdgeError as error:
            checks.append(Check(name, "damaged", worst.note(error)))
    return tuple(checks)


def _paths() -> tuple[Check, ...]:
    folders = {
        "settings file": assets.user_config_file(),
        "data folder": assets.user_data_dir(),
        "cache folder": assets.user_cache_dir(),
    }
    try:
        bundled = Check("bundled files", str(assets.bundled_root()))
    except ScopeEdgeError as error:
        bundled = Check("bundled files", "not found", str(error))
    return bundled, *(_path(name, path) for name, path in folders.items())


def _path(name: str, path: Path) -> Check:
    """Check whether a path exists and can be written. A missing one is not a problem."""
    there = next((one for one in (path, *path.parents) if _exists(one)), path)
    writable = os.access(there, os.W_OK)
    found = f"{path} ({'exists' if there == path else 'does not exist yet'}, {'writable' if writable else 'read-only'})"
    return Check(name, found, None if writable else f"{there} cannot be written, so nothing can be stored there")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _settings(worst: _Worst) -> tuple[Settings | None, dict[str, tuple[str, str]], dict[str, str]]:
    """Return the settings in force, their values with origins, and the active pool."""
    from scope_edge.catalog.cards import is_retired
    from scope_edge.factory import open_catalog
    from scope_edge.providers.llama.loadable import unloadable
    from scope_edge.settings.config import load_settings
    from scope_edge.settings.schema import CHECKS

    settings = None
    table: dict[str, tuple[str, str]] = {}
    try:
        settings = load_settings()
        table = {key: (_shown(getattr(settings, key)), settings.origin.get(key, "default")) for key in CHECKS}
        cards = open_catalog(settings).pool()
        stuck = unloadable(cards)
        pool = {}
        for card in cards:
            reason = f", cannot be loaded: {stuck[card.id]}" if card.id in stuck else ""
            pool[card.id] = card.where + (", retired" if is_retired(card) else "") + reason
        return settings, table, pool
    except ScopeEdgeError as error:
        worst.note(error)
        return settings, table, {}


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _routing(settings: Settings | None, worst: _Worst) -> Check:
    """Route a test query, as `scope-edge route` would."""
    from scope_edge.settings.config import load_settings
    from scope_edge.types import Query

    started = perf_counter()
    try:
        from scope_edge.factory import load_pipeline

        settings = settings or load_settings()
        flow = load_pipeline(settings)
        loaded = perf_counter()
        decision = flow.route(Query(_TEST_QUERY), settings.preference())
    except ScopeEdgeError as error:
        return Check("a test query", "does not work", worst.note(error))
    except ImportError as error:
        worst.code = max(worst.code, 1)
        return Check("a test query", "does not work", f"{error}; reinstall scope-edge")
    load, route = 1000 * (loaded - started), 1000 * (perf_counter() - loaded)
    return Check(
        "a test query", f"works: {decision.choice or 'no choice'} in {route:.0f} ms, after {load:.0f} ms of loading"
    )


def _estimators(settings: Settings | None) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    """Return a check for each installed estimator, and a sentence if the one in use has no anchor text to read."""
    from scope_edge.factory import open_catalog

    if settings is None or not (assets.user_data_dir() / "estimators").is_dir():
        return (), ()
    used = _used_estimator(settings.estimator_name)
    try:
        pool = open_catalog(settings).pool()
        found = [
            _estimator(one, pool, used) if isinstance(one, Installed) else Check(one.name, "damaged", one.problem)
            for one in entries()
        ]
        readable = settings.estimator == "prior" or used is None or TextSlices(pool, load_fingerprints()[1]).models
    except ScopeEdgeError:
        # Problems with the pool or the bundled files are reported by their own checks.
        return (), ()
    missing = () if readable or used is None else (no_text(used),)
    return tuple(sorted(found, key=lambda one: one.name != used)), missing


def _used_estimator(name: str | None) -> str | None:
    try:
        found = find_installed(name)
    except AssetError:
        return None
    return None if found is None else found.name


def _estimator(one: Installed, pool: Sequence[ModelCard], used: str | None) -> Check:
    try:
        check_gguf(one)
        PromptTemplate.parse(one.template, one.name)
        facts = ", ".join(_estimator_facts(one, used))
        plan = memory_plan(one, pool)
    except (AssetError, UsageError) as error:
        return Check(one.name, "damaged", str(error))
    if isinstance(plan, NoRoom):
        return Check(one.name, facts, f"{plan.why}; so estimates are the prior's")
    return Check(one.name, f"{facts}; takes {plan.why}")


def _estimator_facts(one: Installed, used: str | None) -> Iterator[str]:
    if one.name == used:
        yield "in use"
    yield f"{one.shape.quantization} {in_words(one.size)}"
    yield f"mode {one.mode}"
    yield f"template {one.template_sha256[:12]} from {one.template_from}"
    fitted = calibration(one)
    yield (
        f"uncalibrated, so it has no weight: {CALIBRATE}"
        if fitted is None
        else f"calibrated on {fitted.prompts} prompts"
    )
    speed = remembered(one.sha256, assets.user_cache_dir())
    if speed is None:
        yield "speed not measured yet"
    else:
        seconds = SpeedEstimate(speed, one.mode, one.analysis_tokens).seconds(_USUAL_PROMPT, one.samples)
        yield f"a prompt takes about {seconds:.2g} seconds here ({speed.rung})"


def _ignored() -> Iterator[str]:
    """Say why the user's calibration or feedback is not used, if there is any."""
    from scope_edge.estimation.feedback_store import load_feedback
    from scope_edge.estimation.user_calibration import file, load_personal

    # A damaged calibration is reported by the routing check.
    with contextlib.suppress(ScopeEdgeError):
        ignored = load_personal(load_fingerprints()[1]).ignored if file().exists() else None
        if ignored is not None:
            yield f"your calibration is not used: {ignored}"
    feedback = load_feedback()
    if feedback.ignored is not None:
        yield f"your feedback is not used: {feedback.ignored}"
    if feedback.note is not None:
        yield f"part of your feedback is not used: {feedback.note}"


def _offline(pool: Mapping[str, str], routing: Check) -> tuple[str, ...]:
    if routing.problem is not None:
        return ()
    device = sum(where.startswith("device") for where in pool.values())
    return (
        "routing works without a network: only `scope-edge estimator` connects to one, for the downloads it is asked for",
        f"of the active pool's {len(pool)} models, {device} run on the device; the others need a network to answer",
    )


def _degraded(built_with: Mapping[str, str], llama: LlamaBuild) -> Iterator[str]:
    if built_with["hnswlib"].startswith(_BROKEN):
        yield 'hnswlib does not load: search is exact, slower only above 20,000 anchors; pip install "scope-edge[hnsw]"'
    if llama.state != "ok":
        yield f'llama.cpp: {llama.problem}: estimates are the prior\'s; pip install "scope-edge[llama]"'
    elif llama.problem:
        yield f"llama.cpp: {llama.problem}"
