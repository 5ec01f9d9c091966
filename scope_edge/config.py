"""Settings: defaults < the user's settings file < environment variables SCOPE_EDGE_* < arguments.

The file is TOML at `assets.user_config_file()` and may be absent. Besides the keys of `Settings` it may hold the user's own
model cards (`[models."id"]`) and pools (`[pools]`), which catalog.py reads. Anything it says that cannot be used is refused
in one line that names the file (or variable), the key, the value, what is allowed and, for a typo, the nearest key.
The checks are the CLI's too, so that an option and a line of the file are refused for the same reasons.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from scope_edge import assets
from scope_edge.errors import ConfigError, UsageError
from scope_edge.records import Budget, Fallback, PolicyName, Preference

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

IndexName = Literal["auto", "exact", "hnsw"]
EstimatorChoice = Literal["auto", "prior", "gguf"]
Provider = Literal["cpu", "cuda", "coreml", "directml", "openvino", "rocm", "tensorrt"]
PREFIX = "SCOPE_EDGE_"
# Variables of this prefix that other rooms read.
_OTHER_VARIABLES = ("ASSETS", "CACHE_DIR", "CONFIG", "DATA_DIR", "ROUTING_DATA")
MAX_FILE_BYTES = 1024 * 1024
_TABLES = ("models", "pools")
_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting with its value, checked.

    Attributes:
        alpha: 0 = cheapest, 1 = most accurate. pool: name of the active pool, or model ids joined by commas.
        index: "auto" searches exactly below 20,000 vectors and by HNSW above. top_k: neighbors shown.
        max_tokens, max_usd, max_seconds: limits for one query; None = no limit.
        value_of_time: US dollars a second of waiting is worth. coverage: of the upper bound on tokens.
        estimator: "prior" never runs a language model, "gguf" always, "auto" when one is installed and fast enough here.
        estimator_name: which installed one; None = the newest.
        estimate_seconds, estimate_tokens: what it may take for one query; None = no limit, except that "auto" takes 2 s.
        provider: where the encoder runs. threads: cores to use; None = all of them.
        offline: refuse to download, also what is asked for by name.
        models, pools: the user's own cards, as written, and pools, by name.
        file: the settings file these were read from, whether or not it exists.
        origin: key -> where its value came from (the file, a variable or "argument"); a key at its default is not in it.
    """

    alpha: float = 0.5
    pool: str = "default"
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
    provider: Provider = "cpu"
    threads: int | None = None
    offline: bool = False
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pools: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    file: Path = Path()
    origin: Mapping[str, str] = field(default_factory=dict)

    def preference(self, *, exclude: tuple[str, ...] = ()) -> Preference:
        """What these settings ask of one decision."""
        return Preference(
            alpha=self.alpha,
            budget=Budget(self.max_tokens, self.max_usd, self.max_seconds),
            local_only=self.local_only,
            exclude=exclude,
            fallback=self.fallback,
            policy=self.policy,
        )


def load_settings(overrides: Mapping[str, object] | None = None) -> Settings:
    """Read the settings that hold now. `overrides` are arguments: they win; None among them means "not given".

    Raises ConfigError (the file or a variable cannot be used) or UsageError (an argument cannot).
    """
    path = assets.user_config_file()
    written = read_file(path)
    models, pools = _own_models(path, written.pop("models", {})), _own_pools(path, written.pop("pools", {}))
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for key, value in written.items():
        values[key], origin[key] = _from_file(path, key, value), str(path)
    for variable, (key, text) in _environment().items():
        values[key], origin[key] = _from_variable(variable, key, text), variable
    for key, value in (overrides or {}).items():
        if key not in CHECKS:
            raise UsageError(f"{key} is not a setting{suggestion(key, CHECKS)}")
        if value is not None:
            values[key], origin[key] = CHECKS[key](key, value), "argument"
    return Settings(**values, models=models, pools=pools, file=path, origin=origin)


def read_file(path: Path) -> dict[str, Any]:
    """The settings file as TOML reads it; empty when there is none. Raises ConfigError naming the line where known."""
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
        return tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}, line {line}: not UTF-8 text (byte 0x{raw[error.start]:02x}); save it as UTF-8"
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}; mend the line or remove it") from error


def check_alpha(value: object, name: str = "alpha") -> float:
    """A number from 0 to 1. Raises UsageError."""
    number = _number(name, value, "a number from 0 (cheapest) to 1 (most accurate)")
    if not 0.0 <= number <= 1.0:
        raise UsageError(f"{name} must be a number from 0 (cheapest) to 1 (most accurate), not {_shown(value)}")
    return number


def check_amount(name: str, value: object) -> float:
    """A finite number of at least 0: dollars, seconds. 0 and 1e308 are valid. Raises UsageError."""
    allowed = "a finite number of at least 0"
    number = _number(name, value, allowed)
    if not (math.isfinite(number) and number >= 0):
        raise UsageError(f"{name} must be {allowed}, not {_shown(value)}")
    return number


def check_count(name: str, value: object, least: int = 0) -> int:
    """A whole number of at least `least`, finite as a float; 1e308 is one. Raises UsageError."""
    allowed = f"a finite whole number of at least {least}"
    number = _number(name, value, allowed)
    if not (math.isfinite(number) and number >= least and number == math.floor(number)):
        raise UsageError(f"{name} must be {allowed}, not {_shown(value)}")
    return value if isinstance(value, int) else int(number)


def check_limit(name: str, value: object) -> float:
    """A per-query limit by its setting's name: max_tokens (whole), max_usd or max_seconds. Raises UsageError."""
    return check_count(name, value) if name == "max_tokens" else check_amount(name, value)


def check_coverage(name: str, value: object) -> float:
    """A share strictly between 0 and 1. Raises UsageError."""
    number = _number(name, value, "a number between 0 and 1")
    if not 0.0 < number < 1.0:
        raise UsageError(f"{name} must be a number between 0 and 1, neither included, not {_shown(value)}")
    return number


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """One of `choices`. Raises UsageError naming them and the nearest."""
    allowed = tuple(choices)
    if isinstance(value, str) and value in allowed:
        return value
    hint = suggestion(value, allowed) if isinstance(value, str) else ""
    raise UsageError(f"{name} must be one of {', '.join(allowed)}, not {_shown(value)}{hint}")


def check_name(name: str, value: object) -> str:
    """Text that is not blank, on one line. Raises UsageError."""
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value.strip()
    raise UsageError(f"{name} must be text on one line, not blank, not {_shown(value)}")


def check_flag(name: str, value: object) -> bool:
    """True or false. Raises UsageError."""
    if isinstance(value, bool):
        return value
    raise UsageError(f"{name} must be true or false, not {_shown(value)}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """The words "; did you mean X?" when one of `known` is near to `word`, else nothing."""
    near = _near(word.lower(), known, cutoff=0.6)
    return f"; did you mean {near}?" if near else ""


def label(name: str) -> str:
    """A name fit for a one-line message: as it is, or quoted where it would break the line."""
    return name if name.isprintable() else repr(name)


def _from_file(path: Path, key: str, value: object) -> object:
    if key not in CHECKS:
        known = (*CHECKS, *_TABLES)
        raise ConfigError(
            f"{_place(path, key)}: {label(key)} is not a setting{suggestion(key, known)};"
            f" the settings are {', '.join(known)}"
        )
    try:
        return CHECKS[key](key, value)
    except UsageError as error:
        raise ConfigError(f"{_place(path, key)}: {error}") from error


def _environment() -> dict[str, tuple[str, str]]:
    """Variable -> (setting, text). Other SCOPE_EDGE_* variables have other readers; a near miss of a setting has none."""
    settings = {PREFIX + key.upper(): key for key in CHECKS}
    found: dict[str, tuple[str, str]] = {}
    for variable, text in os.environ.items():
        if variable in settings:
            if text.strip():
                found[variable] = (settings[variable], text.strip())
        elif variable.startswith(PREFIX) and variable.removeprefix(PREFIX) not in _OTHER_VARIABLES:
            near = _near(variable, settings, cutoff=0.9)
            if near is not None:
                raise ConfigError(f"{variable}: not a setting; did you mean {near}?")
    return found


def _from_variable(variable: str, key: str, text: str) -> object:
    value: object = text
    if CHECKS[key] is check_flag:
        value = _FLAGS.get(text.lower(), text)
    elif key not in _TEXTS:
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
            raise ConfigError(
                f"{_place(path, name)}: pool {label(name)} must be a list of model ids, not {_shown(ids)}"
            )
        twice = next((one for one in ids if ids.count(one) > 1), None)
        if twice is not None:
            raise ConfigError(f"{_place(path, name)}: pool {label(name)} lists {label(twice)} twice; remove one")
        pools[name] = tuple(ids)
    return pools


def _place(path: Path, key: str) -> str:
    """The file, and the line where exactly one line begins with `key`."""
    with contextlib.suppress(OSError):
        lines = path.read_text("utf-8", errors="replace").splitlines()
        pattern = re.compile(rf"""\s*\[*["']?{re.escape(key)}["']?\s*[\].=]""")
        hits = [number for number, line in enumerate(lines, 1) if pattern.match(line)]
        if len(hits) == 1:
            return f"{path}, line {hits[0]}"
    return str(path)


def _number(name: str, value: object, allowed: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    raise UsageError(f"{name} must be {allowed}, not {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _near(word: str, known: Iterable[str], cutoff: float) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)


def _choice(type_: Any) -> Callable[[str, object], str]:
    return lambda name, value: check_choice(name, value, get_args(type_))


def _at_least_one(name: str, value: object) -> int:
    return check_count(name, value, least=1)


# Setting -> its check: (name, value) -> the value as stored. Each raises UsageError.
CHECKS: Mapping[str, Callable[[str, object], object]] = {
    "alpha": lambda name, value: check_alpha(value, name),
    "pool": check_name,
    "policy": _choice(PolicyName),
    "index": _choice(IndexName),
    "top_k": _at_least_one,
    "fallback": _choice(Fallback),
    "local_only": check_flag,
    "max_tokens": check_count,
    "max_usd": check_amount,
    "max_seconds": check_amount,
    "value_of_time": check_amount,
    "coverage": check_coverage,
    "estimator": _choice(EstimatorChoice),
    "estimator_name": check_name,
    "estimate_seconds": check_amount,
    "estimate_tokens": check_count,
    "provider": _choice(Provider),
    "threads": _at_least_one,
    "offline": check_flag,
}
_TEXTS = ("pool", "policy", "index", "fallback", "estimator", "estimator_name", "provider")
