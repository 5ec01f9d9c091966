"""The estimators a user has installed: where they are, what is known of them, and that their weights are what they were.

One folder each, `estimators/<name>/` in the user's data folder: model.gguf, prompt.txt (the prompt template, as the weights
were trained on it) and manifest.toml (where both come from, their hashes, and how to sample). What cannot be used is named
and leaves the others usable.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from scope_edge.errors import AssetError, UsageError
from scope_edge.providers.llama.messages import ModelShape, Sampling
from scope_edge.storage import assets
from scope_edge.storage.files import file_sha256, file_stamp, write_atomically

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
        sha256, size: of the GGUF, hex and bytes. shape: what the GGUF says of itself.
        mode: belongs to the weights: "cot" writes an analysis before its answer, "direct" does not.
        template_sha256: of the template's UTF-8 bytes. template_from: where it comes from, in words.
        source: a path or hub id, as given. revision: the hub commit; None = not from the hub.
        installed: UTC time, ISO format.
        sampling, samples: how each prompt is sampled. examples: anchors shown in it. analysis_tokens: limit of the analysis.
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
        blob = _read(path, MAX_PROMPT_BYTES)
        if hashlib.sha256(blob).hexdigest() != self.template_sha256:
            raise AssetError(f"{path}: was changed after it was installed; {_again(self.name)}")
        return blob.decode("utf-8")


@dataclass(frozen=True, slots=True)
class Damaged:
    """An entry that cannot be used. problem: one line that names the file and what to do."""

    name: str
    folder: Path
    problem: str


def store() -> Path:
    """The folder that holds all installed estimators (may not exist)."""
    return assets.user_data_dir() / "estimators"


def entries() -> tuple[Installed | Damaged, ...]:
    """Everything in the store, by name; what cannot be used is `Damaged`."""
    found: list[Installed | Damaged] = []
    for folder in _folders():
        try:
            found.append(_load(folder))
        except AssetError as error:
            found.append(Damaged(folder.name, folder, str(error)))
    return tuple(found)


def list_installed() -> tuple[Installed, ...]:
    """The usable estimators, newest first. A damaged entry is left out: see `entries`."""
    sound = [entry for entry in entries() if isinstance(entry, Installed)]
    return tuple(sorted(sound, key=lambda one: one.installed, reverse=True))


def find_installed(name: str | None = None) -> Installed | None:
    """The estimator of that name, or the newest one; None when there is none.

    Raises AssetError when the named one is damaged, or, with no name, when all there are are.
    """
    if name is not None:
        folder = store() / name
        return _load(folder) if _NAME.fullmatch(name) and folder.is_dir() else None
    found = entries()
    sound = [entry for entry in found if isinstance(entry, Installed)]
    if sound:
        return max(sound, key=lambda one: one.installed)
    for entry in found:
        if isinstance(entry, Damaged):
            raise AssetError(entry.problem)
    return None


def check_gguf(installed: Installed) -> None:
    """Check the weights against their sha256. Raises AssetError when they are missing or were changed.

    Native code is to see only bytes that were checked, and reading gigabytes takes seconds: what was checked is remembered
    by size, time of change and inode in the cache folder, so that a file is read once, and again when it was touched.
    """
    path = installed.gguf
    try:
        seen = file_stamp(path)
        if seen["size"] != installed.size:
            raise AssetError(
                f"{path}: {seen['size']} bytes where {installed.size} were installed; {_again(installed.name)}"
            )
        if _remembered(installed) == seen:
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
    """Remember that the weights' sha256 was checked just now. A cache that cannot be written costs time only."""
    with contextlib.suppress(AssetError, OSError):
        write_atomically(_memory(installed), json.dumps(file_stamp(installed.gguf)).encode())


def check_entry_name(name: str) -> str:
    """A name an estimator can have: lower-case letters, digits, dot, dash, underscore. Raises UsageError."""
    if _NAME.fullmatch(name):
        return name
    raise UsageError(
        f"an estimator's name is 1 to 64 of a-z, 0-9, dot, dash and underscore, not {name[:80]!r}; give another --name"
    )


def write_manifest(installed: Installed) -> None:
    """Write manifest.toml into the entry's folder. Raises AssetError when it cannot be written."""
    import tomlkit

    body = {name: value for name, value in asdict(installed).items() if value is not None}
    for name in ("name", "folder"):
        del body[name]
    text = tomlkit.dumps({"format": FORMAT, **body})
    write_atomically(installed.folder / MANIFEST, text.encode("utf-8"))


def remove_installed(name: str) -> Path:
    """Delete an entry, damaged or not; give the folder it was in. Raises UsageError (no such), AssetError (cannot)."""
    folder = store() / name
    if not _NAME.fullmatch(name) or not folder.is_dir():
        names = ", ".join(one.name for one in _folders()) or "none"
        raise UsageError(f"no estimator {name!r} is installed; installed are: {names}")
    with contextlib.suppress(AssetError, OSError):
        _memory(_load(folder)).unlink(missing_ok=True)
    # Gone in one step: an interrupted removal leaves no entry that is half there.
    aside = folder.with_name(f".removed-{os.getpid()}-{name}")
    try:
        folder.replace(aside)
        shutil.rmtree(aside)
    except OSError as error:
        raise AssetError(f"{folder}: cannot be removed ({error.strerror or error}); check its permissions") from error
    return folder


def _folders() -> list[Path]:
    """The entries' folders by name. What begins with a dot is being made or removed."""
    try:
        return sorted(one for one in store().iterdir() if one.is_dir() and _NAME.fullmatch(one.name))
    except OSError:
        return []


def _load(folder: Path) -> Installed:
    """One entry out of its manifest. Raises AssetError naming the file, the field and what to do."""
    path = folder / MANIFEST
    again = _again(folder.name)
    try:
        body = tomllib.loads(_read(path, MAX_MANIFEST_BYTES).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise AssetError(f"{path}: not valid TOML ({error}); {again}") from error
    if body.pop("format", None) != FORMAT:
        raise AssetError(f"{path}: not a manifest this release reads (format {FORMAT}); {again}, or update scope-edge")
    try:
        shape = _record(ModelShape, body.pop("shape", {}))
        sampling = _record(Sampling, body.pop("sampling", {}))
        own = {"name": folder.name, "folder": folder, "shape": shape, "sampling": sampling}
        facts = _checked(Installed, {**body, **own})
        entry = Installed(**facts)
        _sensible(entry)
        size = entry.gguf.stat().st_size
    except (TypeError, ValueError) as error:
        raise AssetError(f"{path}: {error}; {again}") from error
    except OSError as error:
        raise AssetError(f"{folder / GGUF}: cannot be read ({error.strerror or error}); {again}") from error
    if size != entry.size:
        raise AssetError(f"{entry.gguf}: {size} bytes where {entry.size} were installed; {again}")
    return entry


def _sensible(entry: Installed) -> None:
    """Raises ValueError naming a number that cannot be."""
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


def _record(kind: type[Any], body: object) -> Any:
    if not isinstance(body, dict):
        raise ValueError(f"{kind.__name__.lower()} is not a table")
    return kind(**_checked(kind, body))


def _checked(kind: type[Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """The body's fields, each of the type the record says. Raises ValueError naming the first that is not."""
    types = get_type_hints(kind)
    values: dict[str, Any] = {name: None for name in types if _fits(None, types[name])}
    for one in fields(kind):
        if one.name not in {**values, **body} and one.default is one.default_factory is MISSING:
            raise ValueError(f"says nothing of {one.name}")
    for name, value in body.items():
        if name not in types:
            raise ValueError(f"{name} is not a field of it")
        if not _fits(value, types[name]):
            raise ValueError(f"{name} cannot be {value!r}")
        values[name] = value
    return values


def _fits(value: object, type_: Any) -> bool:
    if type_ is Mode:
        return value in MODES
    kinds = getattr(type_, "__args__", (type_,))
    if float in kinds and type(value) is int:
        return True
    return isinstance(value, kinds) and (type(value) is not bool or bool in kinds)


def _read(path: Path, most: int) -> bytes:
    """The bytes of a small file. Raises AssetError."""
    again = _again(path.parent.name)
    try:
        with path.open("rb") as file:
            blob = file.read(most + 1)
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); {again}") from error
    if len(blob) > most:
        raise AssetError(f"{path}: more than {most} bytes, which no {path.name} has; {again}")
    return blob


def _again(name: str) -> str:
    return f"`scope-edge estimator remove {name}` and install it again"


def _memory(installed: Installed) -> Path:
    # A file of the same weights in another folder is another file: its own stamp, its own check.
    place = hashlib.sha256(str(installed.folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return assets.user_cache_dir() / "checked" / f"{installed.sha256[:32]}-{place[:16]}.json"


def _remembered(installed: Installed) -> object:
    try:
        return json.loads(_memory(installed).read_bytes())
    except (OSError, ValueError):
        return None
