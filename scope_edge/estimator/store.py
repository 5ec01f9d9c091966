"""The store of installed estimators: list, find, verify and remove them.

Each has a folder `estimators/<name>/` in the user's data folder: model.gguf, prompt.txt (the prompt template the weights were
trained with) and manifest.toml (the origin of both, their hashes, and how to sample). A damaged entry is reported and leaves
the others usable.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from scope_edge.errors import AssetError, UsageError
from scope_edge.providers.llama.messages import ModelShape, Sampling
from scope_edge.storage import assets
from scope_edge.storage.files import file_sha256, file_stamp, read_whole, write_atomically

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Mode = Literal["cot", "direct"]
MODES: tuple[Mode, ...] = ("cot", "direct")
GGUF, PROMPT, MANIFEST = "model.gguf", "prompt.txt", "manifest.toml"
FORMAT = 1
MAX_MANIFEST_BYTES = 64 * 1024
MAX_PROMPT_BYTES = 256 * 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Installed:
    """One installed estimator.

    Attributes:
        sha256, size: of the GGUF, hex and bytes. shape: the GGUF's own description.
        mode: belongs to the weights: "cot" writes an analysis before its answer, "direct" does not.
        template_sha256: of the template's UTF-8 bytes. template_from: its origin, in words.
        source: a path or hub id, as given. revision: the hub commit; None = not from the hub.
        installed: UTC time, ISO format.
        sampling, samples: how each prompt is sampled. examples: anchors shown in it. analysis_tokens: their limit.
    """

    name: str
    folder: Path
    sha256: str
    size: int
    shape: ModelShape
    mode: Mode
    template_sha256: str
    template_from: str
    source: str
    revision: str | None
    licence: str | None
    installed: str
    sampling: Sampling = field(default_factory=Sampling)
    samples: int = 8
    examples: int = 5
    analysis_tokens: int = 384

    @property
    def gguf(self) -> Path:
        """The weights; see `check_gguf`."""
        return self.folder / GGUF

    @property
    def template(self) -> str:
        """The prompt template. Raises AssetError when it is missing or was changed."""
        path = self.folder / PROMPT
        blob = read_small(path, MAX_PROMPT_BYTES, _again(self.name))
        if hashlib.sha256(blob).hexdigest() != self.template_sha256:
            raise AssetError(f"{path}: was changed after it was installed; {_again(self.name)}")
        return blob.decode("utf-8")


@dataclass(frozen=True, slots=True)
class Damaged:
    """An unusable entry. problem: one line that names the file and what to do."""

    name: str
    folder: Path
    problem: str


def store() -> Path:
    """Return the folder of all installed estimators (may not exist)."""
    return assets.user_data_dir() / "estimators"


def entries() -> tuple[Installed | Damaged, ...]:
    """List all entries by name; an unusable one is `Damaged`."""
    found: list[Installed | Damaged] = []
    for folder in _folders():
        try:
            found.append(_load(folder))
        except AssetError as error:
            found.append(Damaged(folder.name, folder, str(error)))
    return tuple(found)


def list_installed() -> tuple[Installed, ...]:
    """List the usable estimators, newest first; see `entries` for damaged ones."""
    usable = [entry for entry in entries() if isinstance(entry, Installed)]
    return tuple(sorted(usable, key=lambda one: one.installed, reverse=True))


def find_installed(name: str | None = None) -> Installed | None:
    """Return the estimator of that name, or the newest one; None when missing.

    Raises AssetError when the named one is damaged, or, without a name, when all are damaged.
    """
    if name is not None:
        folder = store() / name
        return _load(folder) if _NAME.fullmatch(name) and folder.is_dir() else None
    newest = next(iter(list_installed()), None)
    if newest is not None:
        return newest
    for entry in entries():
        if isinstance(entry, Damaged):
            raise AssetError(entry.problem)
    return None


def check_gguf(installed: Installed) -> None:
    """Check the weights against their sha256. Raises AssetError when they are missing or were changed.

    Native code may see only checked bytes, but hashing gigabytes takes seconds: a checked file's size, time of change and
    inode are remembered in the cache folder, so that it is hashed again only after a change.
    """
    path = installed.gguf
    try:
        seen = file_stamp(path)
        if seen["size"] != installed.size:
            raise AssetError(
                f"{path}: {seen['size']} bytes where {installed.size} were installed; {_again(installed.name)}"
            )
        with contextlib.suppress(OSError, ValueError):
            if json.loads(_memory(installed).read_bytes()) == seen:
                return
        digest = file_sha256(path)
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); {_again(installed.name)}") from error
    if digest != installed.sha256:
        raise AssetError(
            f"{path}: damaged (expected sha256 {installed.sha256[:12]}…, found {digest[:12]}…); {_again(installed.name)}"
        )
    remember_gguf(installed)


def remember_gguf(installed: Installed) -> None:
    """Remember that the weights' sha256 was just checked. A cache that cannot be written only costs time."""
    with contextlib.suppress(AssetError, OSError):
        write_atomically(_memory(installed), json.dumps(file_stamp(installed.gguf)).encode())


def check_entry_name(name: str) -> str:
    """Return a valid name: lower-case letters, digits, dot, dash, underscore. Raises UsageError for others."""
    if _NAME.fullmatch(name):
        return name
    raise UsageError(
        f"an estimator's name is 1 to 64 of a-z, 0-9, dot, dash and underscore, not {name[:80]!r}; give another --name"
    )


def write_manifest(installed: Installed) -> None:
    """Write manifest.toml into the entry's folder. Raises AssetError when it cannot be written."""
    import tomlkit

    body = {
        name: value for name, value in asdict(installed).items() if value is not None and name not in ("name", "folder")
    }
    text = tomlkit.dumps({"format": FORMAT, **body})
    write_atomically(installed.folder / MANIFEST, text.encode("utf-8"))


def remove_installed(name: str) -> Path:
    """Delete an entry, damaged or not; return its folder. Raises UsageError (no such entry), AssetError (not deleted)."""
    folder = store() / name
    if not _NAME.fullmatch(name) or not folder.is_dir():
        names = ", ".join(one.name for one in _folders()) or "none"
        raise UsageError(f"no estimator {name!r} is installed; installed are: {names}")
    with contextlib.suppress(AssetError, OSError):
        _memory(_load(folder)).unlink(missing_ok=True)
    # Renamed first: an interrupted removal leaves no partial entry.
    aside = folder.with_name(f".removed-{os.getpid()}-{name}")
    try:
        folder.replace(aside)
        shutil.rmtree(aside)
    except OSError as error:
        raise AssetError(f"{folder}: cannot be removed ({error.strerror or error}); check its permissions") from error
    return folder


def _folders() -> list[Path]:
    """List the entries' folders by name. Names with a leading dot are being installed or removed."""
    try:
        return sorted(one for one in store().iterdir() if one.is_dir() and _NAME.fullmatch(one.name))
    except OSError:
        return []


def _load(folder: Path) -> Installed:
    """Read an entry from its manifest. Raises AssetError naming the file, the field and what to do."""
    path = folder / MANIFEST
    again = _again(folder.name)
    try:
        body = tomllib.loads(read_small(path, MAX_MANIFEST_BYTES, again).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise AssetError(f"{path}: not valid TOML ({error}); {again}") from error
    if body.pop("format", None) != FORMAT:
        raise AssetError(f"{path}: not a manifest this release reads (format {FORMAT}); {again}, or update scope-edge")
    try:
        entry: Installed = _build(Installed, {**body, "name": folder.name, "folder": folder})
        _check_ranges(entry)
        size = entry.gguf.stat().st_size
    except (TypeError, ValueError) as error:
        raise AssetError(f"{path}: {error}; {again}") from error
    except OSError as error:
        raise AssetError(f"{folder / GGUF}: cannot be read ({error.strerror or error}); {again}") from error
    if size != entry.size:
        raise AssetError(f"{entry.gguf}: {size} bytes where {entry.size} were installed; {again}")
    return entry


def _check_ranges(entry: Installed) -> None:
    """Raise ValueError naming a number out of range."""
    sampling, shape = entry.sampling, entry.shape
    ranges = {
        "samples": (entry.samples, 1, 256),
        "examples": (entry.examples, 1, 50),
        "analysis_tokens": (entry.analysis_tokens, 1, 32_768),
        "temperature": (sampling.temperature, 0, 10),
        "top_p": (sampling.top_p, 0, 1),
        "top_k": (sampling.top_k, 1, 1000),
        "seed": (sampling.seed, 0, 2**63),
        "kv_bytes": (shape.kv_bytes, 1, 2**30),
        "context": (shape.context, 1, 2**31),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise ValueError(f"{name} cannot be {value}, only {low} to {high}")


def _build(kind: type[Any], body: object) -> Any:
    """Build a dataclass, nested ones included. Raises ValueError naming a field that is missing, unknown or wrong."""
    if not isinstance(body, dict):
        raise ValueError(f"{kind.__name__.lower()} is not a table")
    types = get_type_hints(kind)
    values: dict[str, Any] = {name: None for name in types if _fits(None, types[name])}
    for name, value in body.items():
        if name not in types:
            raise ValueError(f"{name} is an unknown field")
        if is_dataclass(types[name]):
            values[name] = _build(types[name], value)
        elif _fits(value, types[name]):
            values[name] = value
        else:
            raise ValueError(f"{name} cannot be {value!r}")
    for one in fields(kind):
        if one.name not in values and one.default is one.default_factory is MISSING:
            raise ValueError(f"{one.name} is missing")
    return kind(**values)


def _fits(value: object, type_: Any) -> bool:
    if type_ is Mode:
        return value in MODES
    kinds = getattr(type_, "__args__", (type_,))
    if float in kinds and type(value) is int:
        return True
    return isinstance(value, kinds) and (type(value) is not bool or bool in kinds)


def read_small(path: Path, most: int, advice: str) -> bytes:
    """Read a file of at most `most` bytes. Raises AssetError, which ends with `advice`."""
    try:
        return read_whole(path, most)
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); {advice}") from error


def _again(name: str) -> str:
    return f"`scope-edge estimator remove {name}` and install it again"


def _memory(installed: Installed) -> Path:
    # The same weights in another folder are another file with its own stamp and check.
    folder = hashlib.sha256(str(installed.folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return assets.user_cache_dir() / "checked" / f"{installed.sha256[:32]}-{folder[:16]}.json"
