"""Settings: defaults < the user's settings file < a profile in it < environment variables SCOPE_EDGE_* < arguments.

The file is TOML at `assets.user_config_file()` and may be missing. Besides the keys of `Settings` it may hold the user's own
model cards (`[models."id"]`) and pools (`[pools]`), which catalog/cards.py reads, and profiles (`[profiles.NAME]`): named
groups of settings. An invalid entry raises a one-line error that names the file (or variable), the key, the value, what is
allowed and, for a typo, the nearest key.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scope_edge.errors import ConfigError, UsageError
from scope_edge.settings.schema import (
    CHECKS,
    PROFILED,
    TEXTS,
    EstimatorChoice,
    IndexName,
    JournalChoice,
    KeepEmbedding,
    Privacy,
    Provider,
    check_embedding,
)
from scope_edge.settings.validation import check_flag, label, near, shown, suggestion
from scope_edge.storage import assets
from scope_edge.types import Budget, Fallback, PolicyName, Preference

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "SCOPE_EDGE_"
# Variables of this prefix that other packages read.
_OTHER_VARIABLES = ("ASSETS", "CACHE_DIR", "CONFIG", "DATA_DIR", "ROUTING_DATA")
MAX_FILE_BYTES = 1024 * 1024
DEFAULT_POOL = "default"
_TABLES = ("models", "pools", "profiles")
_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting with its checked value.

    Attributes:
        profile: name of the active profile of the file; None = no profile.
        alpha: 0 = cheapest, 1 = most accurate. pool: name of the active pool, or model ids joined by commas.
        index: "auto" searches exactly below 20,000 vectors and by HNSW above. top_k: neighbors shown.
        max_tokens, max_usd, max_seconds: limits for one query; None = no limit.
        value_of_time: the value of a second of waiting, in US dollars. coverage: of the upper bound on tokens.
        estimator: "prior" never runs a language model, "gguf" always, "auto" when one is installed and fast enough here.
        estimator_name: which installed estimator; None = the newest.
        estimate_seconds, estimate_tokens: its limits for one query; None = no limit, except 2 s for "auto".
        keep_alive: seconds a device model stays loaded after its last use; -1 = for ever.
        provider: where the encoder runs. threads: cores to use; None = all of them.
        offline: no connection leaves the machine: nothing is downloaded, and only models on the device may be chosen.
        privacy: "patterns" keeps queries with an e-mail address or a likely key on the device.
        silence_seconds: how long a model's server may be silent before the call is given up.
        first_token_seconds: how long it may take to the first token. least_pace: tokens per second from then on; 0 = any.
        max_answer_tokens: the most tokens of an answer, whatever the model; None = its server's own limit, 4,096 on the device.
        verify: 2 = a model on the device answers twice, and another model is asked if the answers differ; 0 = off.
        journal: record no decision, those that are run, or all. journal_text: with the query's text.
        journal_embedding: with the query's embedding; "recent" = only the latest entries keep it, for feedback.
        journal_days, journal_mb: older entries are deleted, and the oldest beyond that size.
        max_usd_day, max_usd_month: caps on the total spent on cloud models; None = no cap.
        stick: the gain in utility at which a running conversation moves to another model (server).
        use_server: `route` and `ask` use the user's own server if it runs.
        models, pools, profiles: the user's own cards, as written, pools, and profiles with checked values; by name.
        file: the settings file, whether or not it exists.
        origin: key -> where its value came from (the file, "profile NAME", a variable or "argument"); keys at their default
            are missing.
    """

    profile: str | None = None
    alpha: float = 0.5
    pool: str = DEFAULT_POOL
    policy: PolicyName = "scope-edge"
    index: IndexName = "auto"
    top_k: int = 10
    fallback: Fallback = "none"
    local_only: bool = False
    max_tokens: int | None = None
    max_usd: float | None = None
    max_seconds: float | None = None
    value_of_time: float = 0.0
    coverage: float = 0.9
    estimator: EstimatorChoice = "auto"
    estimator_name: str | None = None
    estimate_seconds: float | None = None
    estimate_tokens: int | None = None
    keep_alive: float = 300.0
    provider: Provider = "cpu"
    threads: int | None = None
    offline: bool = False
    privacy: Privacy = "off"
    silence_seconds: float = 120.0
    first_token_seconds: float = 600.0
    least_pace: float = 0.05
    max_answer_tokens: int | None = None
    verify: int = 0
    journal: JournalChoice = "run"
    journal_text: bool = False
    journal_embedding: KeepEmbedding = "recent"
    journal_days: int = 90
    journal_mb: int = 200
    max_usd_day: float | None = None
    max_usd_month: float | None = None
    stick: float = 0.1
    use_server: bool = True
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pools: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    file: Path = Path()
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def offline_by(self) -> str | None:
        """The origin of `offline`, None if it is not set."""
        return self.origin.get("offline", "the caller") if self.offline else None

    def preference(self, *, exclude: tuple[str, ...] = ()) -> Preference:
        """Return the preference of these settings for one decision."""
        return Preference(
            alpha=self.alpha,
            budget=Budget(self.max_tokens, self.max_usd, self.max_seconds),
            local_only=self.local_only or self.offline,
            exclude=exclude,
            fallback=self.fallback,
            policy=self.policy,
        )


def load_settings(overrides: Mapping[str, object] | None = None) -> Settings:
    """Read the current settings. `overrides` are arguments: they win; None among them means "not given".

    Raises ConfigError (the file or a variable is invalid) or UsageError (an argument is).
    """
    path = assets.user_config_file()
    written = read_file(path)
    models, pools = _own_models(path, written.pop("models", {})), _own_pools(path, written.pop("pools", {}))
    profiles = _own_profiles(path, written.pop("profiles", {}))
    arguments = {key: value for key, value in (overrides or {}).items() if value is not None}
    # The last layer wins. The profile that they name goes between the file and the other two.
    layers = [
        {key: (_from_file(path, key, value), str(path)) for key, value in written.items()},
        {key: (_from_variable(name, key, text), name) for name, (key, text) in _environment().items()},
        {key: (_from_argument(key, value), "argument") for key, value in arguments.items()},
    ]
    name, asked = next((layer["profile"] for layer in reversed(layers) if "profile" in layer), (None, ""))
    if name is not None:
        chosen = _chosen_profile(profiles, str(name), asked, path)
        layers.insert(1, {key: (value, f"profile {name}") for key, value in chosen.items()})
    merged = {key: one for layer in layers for key, one in layer.items()}
    values: dict[str, Any] = {key: value for key, (value, _) in merged.items()}
    origin = {key: source for key, (_, source) in merged.items()}
    return Settings(**values, models=models, pools=pools, profiles=profiles, file=path, origin=origin)


def read_file(path: Path) -> dict[str, Any]:
    """Read the settings file as TOML; a missing file is empty. Raises ConfigError naming the line where known."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            f"{path}: settings cannot be read ({reason}); mend it or point SCOPE_EDGE_CONFIG at another file"
        ) from error
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(
            f"{path}: more than {MAX_FILE_BYTES} bytes; a settings file is a page of text, is this the right file?"
        )
    return parse(raw, path)


def parse(raw: bytes, path: Path) -> dict[str, Any]:
    """Decode the bytes of a settings file; `path` is named in errors. Raises ConfigError."""
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}, line {line}: not UTF-8 text (byte 0x{raw[error.start]:02x}); save it as UTF-8"
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}; mend the line or remove it") from error


def _from_file(path: Path, key: str, value: object, profile: str | None = None) -> object:
    """Return a checked value of the file, or of a profile in it. Raises ConfigError."""
    place, known = _place(path, key, profile), (*CHECKS, *_TABLES) if profile is None else PROFILED
    if key not in known or key not in CHECKS:
        what = "is not a setting" if profile is None else f"cannot be set in profile {label(profile)}"
        raise ConfigError(f"{place}: {label(key)} {what}{suggestion(key, known)}; the settings are {', '.join(known)}")
    try:
        return CHECKS[key](key, value)
    except UsageError as error:
        raise ConfigError(f"{place}: {error}") from error


def _from_argument(key: str, value: object) -> object:
    if key not in CHECKS:
        raise UsageError(f"{key} is not a setting{suggestion(key, CHECKS)}")
    return CHECKS[key](key, value)


def _environment() -> dict[str, tuple[str, str]]:
    """Return variable -> (setting, text). Raises ConfigError for a near miss; other SCOPE_EDGE_* variables are ignored."""
    settings = {PREFIX + key.upper(): key for key in CHECKS}
    found: dict[str, tuple[str, str]] = {}
    for variable, text in os.environ.items():
        if variable in settings:
            if text.strip():
                found[variable] = (settings[variable], text.strip())
        elif variable.startswith(PREFIX) and variable.removeprefix(PREFIX) not in _OTHER_VARIABLES:
            meant = near(variable, settings, cutoff=0.9)
            if meant is not None:
                raise ConfigError(f"{variable}: not a setting; did you mean {meant}?")
    return found


def _from_variable(variable: str, key: str, text: str) -> object:
    value: object = text
    if CHECKS[key] in (check_flag, check_embedding):
        value = _FLAGS.get(text.lower(), text)
    elif key not in TEXTS:
        with contextlib.suppress(ValueError):
            value = int(text) if text.lstrip("+-").isdigit() else float(text)
    try:
        return CHECKS[key](key, value)
    except UsageError as error:
        raise ConfigError(f"{variable}: {error}") from error


def _own_models(path: Path, table: object) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(table, dict) or not all(isinstance(card, dict) for card in table.values()):
        raise ConfigError(
            f'{_place(path, "models")}: models must be tables, one a model: [models."the-id"] and its fields'
        )
    return table


def _own_pools(path: Path, table: object) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(table, dict):
        raise ConfigError(f'{_place(path, "pools")}: pools must be a table of lists: [pools] and mine = ["id", "id"]')
    pools: dict[str, tuple[str, ...]] = {}
    for name, ids in table.items():
        if not isinstance(ids, list) or not all(isinstance(one, str) and one.strip() for one in ids):
            raise ConfigError(f"{_place(path, name)}: pool {label(name)} must be a list of model ids, not {shown(ids)}")
        twice = next((one for one in ids if ids.count(one) > 1), None)
        if twice is not None:
            raise ConfigError(f"{_place(path, name)}: pool {label(name)} lists {label(twice)} twice; remove one")
        pools[name] = tuple(ids)
    return pools


def _own_profiles(path: Path, table: object) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(table, dict):
        raise ConfigError(
            f"{_place(path, 'profiles')}: profiles must be tables of settings: [profiles.cheap] and alpha = 0.2"
        )
    profiles: dict[str, Mapping[str, Any]] = {}
    for name, values in table.items():
        if not isinstance(values, dict):
            raise ConfigError(
                f"{_place(path, name)}: profile {label(name)} must be a table of settings, not {shown(values)}"
            )
        profiles[name] = {key: _from_file(path, key, value, name) for key, value in values.items()}
    return profiles


def _chosen_profile(profiles: Mapping[str, Mapping[str, Any]], name: str, asked: str, path: Path) -> Mapping[str, Any]:
    """Return the profile that `asked` (the file, a variable, "argument") names. Raises UsageError or ConfigError."""
    if name in profiles:
        return profiles[name]
    known = f"; the profiles are {', '.join(map(label, profiles))}" if profiles else ""
    missing = f"unknown profile {name!r}{suggestion(name, profiles)}{known or f'; {path} has none'}"
    if asked == "argument":
        raise UsageError(missing)
    raise ConfigError(f"{_place(path, 'profile') if asked == str(path) else asked}: {missing}")


def _place(path: Path, key: str, profile: str | None = None) -> str:
    """Return the file, with the line if exactly one line (of the profile's table) begins with `key`."""
    with contextlib.suppress(OSError):
        lines = path.read_text("utf-8-sig", errors="replace").splitlines()
        inside = lines if profile is None else _table_lines(lines, profile)
        pattern = re.compile(rf"""\s*\[*["']?{re.escape(key)}["']?\s*[\].=]""")
        hits = [number for number, line in enumerate(inside, 1) if pattern.match(line)]
        if len(hits) == 1:
            return f"{path}, line {hits[0]}"
    return str(path)


def _table_lines(lines: list[str], profile: str) -> list[str]:
    """Return the lines, those outside a profile's table emptied."""
    head = re.compile(rf"""\s*\[\s*profiles\s*\.\s*["']?{re.escape(profile)}["']?\s*\]""")
    within, found = False, []
    for line in lines:
        if line.lstrip().startswith("["):
            within = head.match(line) is not None
        found.append(line if within else "")
    return found
