"""Where a fingerprint goes: a pack of the user's, found from then on by whatever reads fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from scope_edge import assets
from scope_edge.fingerprinting.journal import file_name
from scope_edge.fingerprints import OWN_FINGERPRINTS, Fingerprint, fingerprints_body, set_digest
from scope_edge.packs import write_pack


def fingerprint_file(model: str, anchor_set: str) -> Path:
    """Where a model's outcomes on a set go."""
    return assets.user_data_dir() / OWN_FINGERPRINTS / f"{file_name(model)}.{anchor_set}.pack"


def save_fingerprint(one: Fingerprint, about: Mapping[str, Any], source: str = "scope-edge fingerprint") -> Path:
    """Write a model's outcomes on a set in one step, in place of earlier ones; give the file. Raises AssetError.

    about: how they came about, for whoever opens the pack; plain types. source: the command.
    """
    path = fingerprint_file(one.model, one.anchors.name)
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    body = {
        **fingerprints_body({one.anchors.name: [one]}),
        "digests": {one.anchors.name: set_digest(one.anchors)},
        "source": source,
        "written": when,
        "about": dict(about),
    }
    write_pack(path, "fingerprints", body)
    return path
