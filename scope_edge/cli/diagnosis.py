"""What is installed, what it was built with, what is damaged, what works: everything looked at, nothing changed.

`examine` never stops at the first problem. A problem says what, where and what to do; the worst one gives the exit code.
"""

from __future__ import annotations

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
from scope_edge.estimator.factory import calibration, memory_plan
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

# What `doctor` says of the installed estimators: weights and template, where they would go, how fast, how far trusted.

# A prompt of usual length, for saying how long one takes.
_USUAL_PROMPT = 1000.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One estimator looked at. problem: what is wrong and what to do, None when it can be used."""

    name: str
    found: str
    problem: str | None


def examine_estimators(pool: Sequence[ModelCard], name: str | None) -> tuple[Finding, ...]:
    """Look at every installed estimator, the one in use first. name: the setting `estimator_name`."""
    used = _used(name)
    found = [
        _examine(one, pool, used) if isinstance(one, Installed) else Finding(one.name, "damaged", one.problem)
        for one in entries()
    ]
    return tuple(sorted(found, key=lambda one: one.name != used))


def text_missing(pool: Sequence[ModelCard], name: str | None) -> str | None:
    """A sentence when an estimator is in use that has nothing to read; else None. Raises AssetError."""
    used = _used(name)
    if used is None or TextSlices(pool, load_fingerprints()[1]).models:
        return None
    return no_text(used)


def _used(name: str | None) -> str | None:
    try:
        found = find_installed(name)
    except AssetError:
        return None
    return None if found is None else found.name


def _examine(one: Installed, pool: Sequence[ModelCard], used: str | None) -> Finding:
    try:
        check_gguf(one)
        PromptTemplate.parse(one.template, one.name)
        facts = ", ".join(_facts(one, used))
        plan = memory_plan(one, pool)
    except (AssetError, UsageError) as error:
        return Finding(one.name, "damaged", str(error))
    if isinstance(plan, NoRoom):
        return Finding(one.name, facts, f"{plan.why}; these are the prior's estimates then")
    return Finding(one.name, f"{facts}; takes {plan.why}", None)


def _facts(one: Installed, used: str | None) -> Iterator[str]:
    if one.name == used:
        yield "in use"
    yield f"{one.shape.quantization} {in_words(one.size)}"
    yield f"mode {one.mode}"
    yield f"template {one.template_sha256[:12]} from {one.template_from}"
    fitted = calibration(one)
    yield "uncalibrated" if fitted is None else f"calibrated on {fitted.prompts} prompts"
    speed = remembered(one.sha256, assets.user_cache_dir())
    if speed is None:
        yield "speed not measured yet"
    else:
        seconds = SpeedEstimate(speed, one.mode, one.analysis_tokens).seconds(_USUAL_PROMPT, one.samples)
        yield f"a prompt takes about {seconds:.2g} seconds here ({speed.rung})"


# Distribution -> what it is for. Those of extras may be missing.
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


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. problem: what is wrong and what to do, None when nothing is."""

    name: str
    found: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything looked at.

    Attributes:
        versions: distribution -> version, None where it is not installed.
        built_with: native library -> what it was built with.
        gpus, llama: what is there, and what llama.cpp can do with it. gpu: that in one line, with what would mend it.
        assets, paths, routing: checks; `routing` has one, which routes a query.
        estimators: a check an installed estimator, the one in use first.
        settings: setting -> its value and where it came from. pool: the active pool's models and where each runs.
        degraded: what works less well than it could, and why.
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
        """The documented JSON object (docs/json.md)."""
        body = asdict(self)
        body["settings"] = {key: {"value": value, "from": source} for key, (value, source) in self.settings.items()}
        return body


@dataclass(slots=True)
class _Worst:
    """The exit code of the worst problem met: a damaged file before a bad setting."""

    code: int = 0

    def note(self, error: ScopeEdgeError) -> str:
        self.code = max(self.code, error.exit_code)
        return str(error)


def examine() -> Diagnosis:
    """Look at everything. Raises nothing on purpose; what cannot be read is a problem in the report."""
    worst = _Worst()
    llama, gpus = probe_llama(), find_gpus()
    built_with = _built_with(llama)
    files = _assets(worst)
    settings, table, pool = _settings(worst)
    routing = _routing(settings, worst)
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
    """Whether llama.cpp can use the GPU that is there, and the command that would make it so."""
    if not gpus:
        return Check("gpu", "none found; everything runs on the CPU")
    names = ", ".join(gpu.name for gpu in gpus)
    if llama.state == "missing":
        return Check("gpu", f"{names} found; llama.cpp is not installed", f"to use it: {mend(gpus[0].maker)}")
    if llama.state == "broken":
        return Check("gpu", f"{names} found; llama.cpp does not load", f"to use it: {mend(gpus[0].maker)}")
    for gpu in gpus:
        if llama.gpu_offload and set(llama.backends) & set(_BACKENDS[gpu.maker]):
            return Check("gpu", f"{gpu.name} found, and llama.cpp can use it")
    built = f"llama.cpp built without it (it has: {', '.join(llama.backends) or 'CPU'})"
    return Check("gpu", f"{names} found, {built}", f"to use it: {mend(gpus[0].maker)}")


def mend(maker: Maker, system: str = sys.platform) -> str:
    """The command that builds llama.cpp for a maker's GPUs, for this system's shell."""
    install = 'pip install --upgrade --force-reinstall --no-cache-dir "llama-cpp-python>=0.3.16"'
    if system == "win32":
        return f'$env:CMAKE_ARGS="{_BUILD_FLAGS[maker]}"; {install}'
    return f'CMAKE_ARGS="{_BUILD_FLAGS[maker]}" {install}'


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"scope-edge": __version__, "python": platform.python_version()}
    for name in (*NEEDED, *OPTIONAL):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _built_with(llama: LlamaBuild) -> dict[str, str]:
    """What each native library says of its build. One that does not load is a problem `routing` reports."""
    found: dict[str, str] = {"machine": f"{platform.system()} {platform.machine()}, {_cores()} cores"}
    try:
        from scope_edge.encoding.encoder import PROVIDERS, runtime

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


def _cores() -> int:
    from scope_edge.encoding.encoder import usable_cores

    return usable_cores()


def _assets(worst: _Worst) -> tuple[Check, ...]:
    """Every bundled file against its manifest's hash."""
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
    checks = [_path(name, path) for name, path in folders.items()]
    try:
        checks.insert(0, Check("bundled files", str(assets.bundled_root())))
    except ScopeEdgeError as error:
        checks.insert(0, Check("bundled files", "not found", str(error)))
    return tuple(checks)


def _path(name: str, path: Path) -> Check:
    """Whether a path is there and could be written, were it needed. Not being there is no problem."""
    there = next((one for one in (path, *path.parents) if _exists(one)), path)
    writable = os.access(there, os.W_OK)
    found = f"{path} ({'exists' if there == path else 'not there yet'}, {'writable' if writable else 'read-only'})"
    return Check(name, found, None if writable else f"{there} cannot be written; nothing can be kept there")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _settings(worst: _Worst) -> tuple[Settings | None, dict[str, tuple[str, str]], dict[str, str]]:
    """The settings in force, each with where it came from, and the active pool."""
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
        return settings, table, {card.id: card.where + _remark(card, stuck.get(card.id)) for card in cards}
    except ScopeEdgeError as error:
        worst.note(error)
        return settings, table, {}


def _remark(card: ModelCard, stuck: str | None) -> str:
    """What else to know of a model of the pool. stuck: why it cannot be loaded."""
    from scope_edge.catalog.cards import is_retired

    return (", retired" if is_retired(card) else "") + (f", cannot be loaded: {stuck}" if stuck else "")


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _routing(settings: Settings | None, worst: _Worst) -> Check:
    """Route a query as `scope-edge route` would."""
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
    """A check an installed estimator, and what keeps the one in use from being of use. A damaged one ends no run."""
    from scope_edge.factory import open_catalog

    if settings is None or not (assets.user_data_dir() / "estimators").is_dir():
        return (), ()

    try:
        pool = open_catalog(settings).pool()
        found = tuple(
            Check(one.name, one.found, one.problem) for one in examine_estimators(pool, settings.estimator_name)
        )
        missing = None if settings.estimator == "prior" else text_missing(pool, settings.estimator_name)
    except ScopeEdgeError:
        # What is wrong with the pool or the bundled files is said where they are looked at.
        return (), ()
    return found, () if missing is None else (missing,)


def _ignored() -> tuple[str, ...]:
    """Why the user's calibration or feedback is not used, where there is some and it is not."""
    from scope_edge.estimation.feedback_store import load_feedback

    held = load_feedback()
    said = () if held.ignored is None else (f"your feedback is not used: {held.ignored}",)
    return (*_ignored_calibration(), *said)


def _ignored_calibration() -> tuple[str, ...]:
    from scope_edge.estimation.fingerprints import load_fingerprints
    from scope_edge.estimation.user_calibration import file, load_personal

    if not file().exists():
        return ()
    try:
        ignored = load_personal(load_fingerprints()[1]).ignored
    except ScopeEdgeError:
        # A damaged file is told of where files are looked at, and routing does not work without.
        return ()
    return () if ignored is None else (f"your calibration is not used: {ignored}",)


def _offline(pool: Mapping[str, str], routing: Check) -> tuple[str, ...]:
    works = "routing works with no network: only `scope-edge estimator` opens a connection, to download what it is asked for"
    device = sum(where.startswith("device") for where in pool.values())
    models = (
        f"of the active pool's {len(pool)} models {device} run on the device; the others need the network to answer"
    )
    return (works, models) if routing.problem is None else ()


def _degraded(built_with: Mapping[str, str], llama: LlamaBuild) -> tuple[str, ...]:
    found: list[str] = []
    if built_with["hnswlib"].startswith(_BROKEN):
        found.append(
            'hnswlib does not load: search is exact, slower only above 20,000 anchors; pip install "scope-edge[hnsw]"'
        )
    if llama.state != "ok":
        found.append(f'llama.cpp: {llama.problem}: estimates are the prior\'s; pip install "scope-edge[llama]"')
    elif llama.problem:
        found.append(f"llama.cpp: {llama.problem}")
    return tuple(found)
