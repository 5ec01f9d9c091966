"""Where bundled and user files live. Bundled files are handed out as bytes whose sha256 was checked against a manifest.

Bundled names are relative to the bundled root, for instance `models/encoder/encoder.onnx`. The root is inside the
package when installed from a wheel and the repository's top when run from a checkout.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from scope_edge.errors import AssetError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PACKAGE = Path(__file__).resolve().parents[1]
_MANIFESTS = ("models/manifest.toml", "anchors/manifest.toml")
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Asset:
    """One manifest entry: where a bundled file comes from and what it must be. `facts` holds what the build recorded."""

    name: str
    sha256: str
    size: int
    source: str
    licence: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def bundled_root() -> Path:
    """The folder that holds models/ and anchors/. SCOPE_EDGE_ASSETS overrides it. Raises AssetError when there is none."""
    override = os.environ.get("SCOPE_EDGE_ASSETS")
    for root in (Path(override),) if override else (_PACKAGE / "data", _PACKAGE.parent):
        if (root / _MANIFESTS[0]).is_file():
            return root
    raise AssetError(
        f"bundled files not found (looked for {_MANIFESTS[0]} in {override or _PACKAGE / 'data'}); reinstall scope-edge"
    )


def manifest() -> Mapping[str, Asset]:
    """Every bundled file by name. Raises AssetError when a manifest is missing or malformed."""
    root = bundled_root()
    return {name: asset for path in _MANIFESTS for name, asset in _entries(root, path).items()}


@cache
def _entries(root: Path, path: str) -> Mapping[str, Asset]:
    """The files of one manifest: models/ can be used before anchors/ has been built from it."""
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
    """What a bundled file must be. Raises AssetError: no manifest lists it."""
    listed = f"{name.split('/')[0]}/manifest.toml"
    found = _entries(bundled_root(), listed).get(name) if listed in _MANIFESTS else None
    if found is None:
        raise AssetError(f"{name}: not a bundled file; no manifest lists it")
    return found


def read(name: str) -> bytes:
    """The bytes of a bundled file, checked. Raises AssetError: unknown name, missing file, wrong size or hash."""
    path, entry = bundled_root() / name, asset(name)
    try:
        # One byte more than promised is enough to know that a file grew, however large it is.
        with path.open("rb") as file:
            blob = file.read(entry.size + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    _verify(path, entry, len(blob), hashlib.sha256(blob).hexdigest())
    return blob


def check(name: str) -> None:
    """Raise AssetError where `read` would; nothing is kept."""
    path, entry = bundled_root() / name, asset(name)
    seen, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while size <= entry.size and (block := file.read(_BLOCK)):
                seen.update(block)
                size += len(block)
    except OSError as error:
        raise _unreadable(path, error) from error
    _verify(path, entry, size, seen.hexdigest())


def _unreadable(path: Path, error: OSError) -> AssetError:
    return AssetError(f"{path}: cannot be read ({error.strerror or error}); reinstall scope-edge")


def _verify(path: Path, entry: Asset, size: int, digest: str) -> None:
    if size != entry.size:
        found = "more" if size > entry.size else str(size)
        raise AssetError(f"{path}: expected {entry.size} bytes, found {found}; reinstall scope-edge")
    if digest != entry.sha256:
        raise AssetError(f"{path}: expected sha256 {entry.sha256[:12]}…, found {digest[:12]}…; reinstall scope-edge")


def user_config_file() -> Path:
    """The user's settings file (may not exist). SCOPE_EDGE_CONFIG overrides it."""
    override = os.environ.get("SCOPE_EDGE_CONFIG")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_config_dir("scope-edge", appauthor=False)) / "config.toml"


def user_data_dir() -> Path:
    """Where the user's own fingerprints live (may not exist). SCOPE_EDGE_DATA_DIR overrides it."""
    override = os.environ.get("SCOPE_EDGE_DATA_DIR")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_data_dir("scope-edge", appauthor=False))


def user_cache_dir() -> Path:
    """Where files that can be rebuilt live (may not exist). SCOPE_EDGE_CACHE_DIR overrides it."""
    override = os.environ.get("SCOPE_EDGE_CACHE_DIR")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_cache_dir("scope-edge", appauthor=False))
