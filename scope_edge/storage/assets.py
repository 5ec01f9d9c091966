"""Locations of bundled and user files. Bundled files are returned as bytes whose sha256 was checked against a manifest.

Bundled names are relative to the bundled root, for instance `models/encoder/encoder.onnx`. The root is inside the
package when installed from a wheel and the repository's top when run from a checkout.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from scope_edge.errors import AssetError, ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PACKAGE = Path(__file__).resolve().parents[1]
_MANIFESTS = ("models/manifest.toml", "anchors/manifest.toml")
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Asset:
    """One manifest entry: a bundled file's origin, size and hash. `facts` holds what the build recorded."""

    name: str
    sha256: str
    size: int
    source: str
    licence: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def bundled_root() -> Path:
    """Return the folder with models/ and anchors/. SCOPE_EDGE_ASSETS overrides it. Raises AssetError when missing."""
    override = os.environ.get("SCOPE_EDGE_ASSETS")
    for root in (Path(override),) if override else (_PACKAGE / "data", _PACKAGE.parent):
        if (root / _MANIFESTS[0]).is_file():
            return root
    raise AssetError(
        f"bundled files not found (looked for {_MANIFESTS[0]} in {override or _PACKAGE / 'data'}); reinstall scope-edge"
    )


def manifest() -> Mapping[str, Asset]:
    """Return every bundled file by name. Raises AssetError when a manifest is missing or malformed."""
    root = bundled_root()
    return {name: asset for path in _MANIFESTS for name, asset in _entries(root, path).items()}


@cache
def _entries(root: Path, path: str) -> Mapping[str, Asset]:
    """Read one manifest: models/ can be used before anchors/ has been built from it."""
    folder = path.split("/")[0]
    entries: dict[str, Asset] = {}
    try:
        for row in tomllib.loads((root / path).read_text("utf-8"))["file"]:
            name, size = f"{folder}/{row.pop('name')}", int(row.pop("size"))
            known = {key: str(row.pop(key)) for key in ("sha256", "source", "licence")}
            entries[name] = Asset(name=name, size=size, **known, facts=row)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise AssetError(f"{root / path}: manifest cannot be used ({error!r}); reinstall scope-edge") from error
    return entries


def asset(name: str) -> Asset:
    """Return the manifest entry of a bundled file. Raises AssetError: no manifest lists it."""
    listed = f"{name.split('/')[0]}/manifest.toml"
    found = _entries(bundled_root(), listed).get(name) if listed in _MANIFESTS else None
    if found is None:
        raise AssetError(f"{name}: not a bundled file; no manifest lists it")
    return found


def read(name: str) -> bytes:
    """Return the checked bytes of a bundled file. Raises AssetError: unknown name, missing file, wrong size or hash."""
    # One byte more than promised is enough to know that a file grew, however large it is.
    return b"".join(_checked(name, asset(name).size + 1))


def check(name: str) -> None:
    """Raise AssetError where `read` would; nothing is kept."""
    for _ in _checked(name, _BLOCK):
        pass


def _checked(name: str, block: int) -> Iterator[bytes]:
    """Yield a bundled file in blocks. Raises AssetError at its end when size or hash are wrong."""
    path, entry = bundled_root() / name, asset(name)
    seen, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while size <= entry.size and (piece := file.read(block)):
                seen.update(piece)
                size += len(piece)
                yield piece
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); reinstall scope-edge") from error
    if size != entry.size:
        found = "more" if size > entry.size else str(size)
        raise AssetError(f"{path}: expected {entry.size} bytes, found {found}; reinstall scope-edge")
    if (digest := seen.hexdigest()) != entry.sha256:
        raise AssetError(f"{path}: expected sha256 {entry.sha256[:12]}…, found {digest[:12]}…; reinstall scope-edge")


def user_config_file() -> Path:
    """Return the user's settings file (may not exist). SCOPE_EDGE_CONFIG overrides it. Raises ConfigError."""
    override = os.environ.get("SCOPE_EDGE_CONFIG")
    return Path(override) if override else _platform_dir("config") / "config.toml"


def user_data_dir() -> Path:
    """Return the folder of the user's own fingerprints (may not exist). SCOPE_EDGE_DATA_DIR overrides it. Raises ConfigError."""
    override = os.environ.get("SCOPE_EDGE_DATA_DIR")
    return Path(override) if override else _platform_dir("data")


def user_cache_dir() -> Path:
    """Return the folder of files that can be rebuilt (may not exist). SCOPE_EDGE_CACHE_DIR overrides it. Raises ConfigError."""
    override = os.environ.get("SCOPE_EDGE_CACHE_DIR")
    return Path(override) if override else _platform_dir("cache")


def _platform_dir(kind: str) -> Path:
    import platformdirs

    try:
        folder = str(getattr(platformdirs, f"user_{kind}_dir")("scope-edge", appauthor=False))
    except RuntimeError:
        folder = "~"  # older releases return a path that begins so
    if folder.startswith("~"):
        other = "SCOPE_EDGE_CONFIG to a file" if kind == "config" else f"SCOPE_EDGE_{kind.upper()}_DIR to a folder"
        raise ConfigError(f"no home directory is known; set HOME to it, or {other}")
    return Path(folder)
