"""An anchor set of the user's own, and fingerprints on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from scope_edge.estimation.anchors import AnchorSet, set_body
from scope_edge.estimation.fingerprints import Fingerprint, fingerprints_body, load_anchor_sets
from scope_edge.storage.packs import write_pack

MODEL = "qwen2.5-7b-instruct"


def own_set(name: str = "mine", rows: int = 40) -> AnchorSet:
    """A user's set: rows of a bundled one under ids and texts of its own."""
    one = next(found for found in load_anchor_sets() if len(found) == 250)
    cut = {
        field: getattr(one, field)[:rows]
        for field in AnchorSet.__dataclass_fields__
        if field not in ("name", "linked", "own", "texts", "multilingual")
    }
    texts = tuple(f"What is {i} plus {i}?" for i in range(rows))
    return replace(
        one, **{**cut, "name": name, "ids": tuple(f"{name}/{i}" for i in range(rows)), "texts": texts, "own": True}
    )


def save(data: Path, anchors: AnchorSet, models: dict[str, float]) -> None:
    write_pack(data / "anchors" / f"{anchors.name}.pack", "anchor-sets", {"sets": [set_body(anchors)]})
    n = len(anchors)
    rows = [Fingerprint(m, anchors, np.full(n, p), np.full(n, 100.0)) for m, p in models.items()]
    write_pack(data / "fingerprints" / f"{anchors.name}.pack", "fingerprints", fingerprints_body({anchors.name: rows}))
