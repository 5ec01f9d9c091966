"""Imported questions become an anchor set of the user's, imported outcomes fingerprints on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from scope_edge import assets
from scope_edge.anchors import set_body
from scope_edge.errors import UsageError
from scope_edge.fingerprinting.store import save_fingerprint
from scope_edge.fingerprints import OWN_SETS, Fingerprint, usable_anchor_sets
from scope_edge.importing.naming import Cards
from scope_edge.importing.outcomes import Imported, Material, most_telling
from scope_edge.packs import write_pack
from scope_edge.placing import place

if TYPE_CHECKING:
    from scope_edge.anchors import AnchorSet

# Anchors in one set: each takes about 2 kB on the disk, and a few milliseconds to be placed.
MAX_ANCHORS = 20_000
Progress = Callable[[str, int, int], None]


def keep(
    material: Material, cards: Cards, name: str, limit: int | None = None, progress: Progress | None = None
) -> Imported:
    """Write the questions as anchor set `name`, the most telling first, and a fingerprint for every model.

    limit: anchors at most. Imported again it replaces the outcomes; the questions must be the same ones.
    Raises UsageError (too many questions, another set of that name), AssetError (nothing usable, a full disk).
    """
    there = next((one for one in usable_anchor_sets() if one.name == name), None)
    if there is not None:
        chosen = _same_questions(there, material, limit)
    else:
        chosen = most_telling([one.category for one in material.questions], material.tally.pairs())[:limit]
    if len(chosen) > MAX_ANCHORS:
        raise UsageError(f"{material.source}: {len(chosen)} questions; `--limit {MAX_ANCHORS}` takes as many as can be")
    questions = [material.questions[i] for i in chosen]
    anchors, files = there, []
    if anchors is None:
        anchors = place(name, questions, progress, own=True)
        files.append(assets.user_data_dir() / OWN_SETS / f"{name}.pack")
        write_pack(files[-1], "anchor-sets", {"sets": [set_body(anchors)], "source": material.source})
    known: dict[str, int] = {}
    dropped = material.dropped.copy()
    dropped["questions beyond --limit"] = len(material.questions) - len(chosen)
    for model in material.tally.models:
        correct, tokens = (column[chosen] for column in material.tally.of(model))
        count = int(np.isfinite(correct).sum())
        if not count:
            dropped["models without an outcome on the anchors"] += 1
            continue
        known[model] = count
        one = Fingerprint(model, anchors, correct, tokens)
        files.append(save_fingerprint(one, {"source": material.source}, "scope-edge import"))
    return Imported(
        source=material.source,
        anchor_set=name,
        joined=there is not None,
        anchors=len(anchors),
        models=tuple(model for model in known if model in cards),
        strangers=tuple(model for model in known if model not in cards),
        outcomes=sum(known.values()),
        missing=len(known) * len(anchors) - sum(known.values()),
        files=tuple(files),
        dropped={reason: n for reason, n in dropped.items() if n},
    )


def _same_questions(there: AnchorSet, material: Material, limit: int | None) -> list[int]:
    """The rows of the set's questions, in its order: new outcomes do not choose anew. Raises UsageError when they differ."""
    at = {(f"{there.name}/{one.id}", one.text): row for row, one in enumerate(material.questions)}
    rows = [at.get(pair) for pair in zip(there.ids, there.texts, strict=False)]
    found = [row for row in rows if row is not None]
    wanted = len(material.questions) if limit is None else min(limit, len(material.questions))
    if not len(found) == len(there) == wanted:
        raise UsageError(
            f"{material.source}: there is another anchor set {there.name!r}, of other questions; give another --name"
        )
    return found
