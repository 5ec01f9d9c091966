"""Record a file in models/manifest.toml or anchors/manifest.toml: what it is, where it comes from, its hash and size.

python build_scripts/manifest.py models cards.toml     # hash a file again after editing it by hand
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from scope_edge.storage.files import file_sha256

ROOT = Path(__file__).resolve().parent.parent


def record(folder: Path, name: str, *, source: str, licence: str, facts: Mapping[str, Any] | None = None) -> None:
    """Write or replace the manifest entry of `folder/name`. `facts` are what the build measured or chose."""
    path = folder / "manifest.toml"
    document = tomlkit.parse(path.read_text("utf-8")) if path.exists() else tomlkit.document()
    rows = [dict(row) for row in document.get("file", []) if row["name"] != name]
    entry = {
        "name": name,
        "source": source,
        "licence": licence,
        "sha256": file_sha256(folder / name),
        "size": (folder / name).stat().st_size,
        **(facts or {}),
    }
    document["file"] = sorted([*rows, entry], key=lambda row: str(row["name"]))
    path.write_text(tomlkit.dumps(document), "utf-8")


def main() -> None:
    """Hash a file again, keeping what its entry says of it."""
    folder, name = ROOT / sys.argv[1], sys.argv[2]
    rows = tomlkit.parse((folder / "manifest.toml").read_text("utf-8")).unwrap()["file"]
    (row,) = [row for row in rows if row["name"] == name]
    facts = {key: value for key, value in row.items() if key not in ("name", "source", "licence", "sha256", "size")}
    record(folder, name, source=row["source"], licence=row["licence"], facts=facts)


if __name__ == "__main__":
    main()
