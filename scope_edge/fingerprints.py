"""Fingerprints: one model's outcomes on one core anchor set, and the slice of them nearest to a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge import assets
from scope_edge.anchors import CORE, AnchorSet, set_from_body
from scope_edge.errors import PackError
from scope_edge.packs import unpack
from scope_edge.records import Neighbor, Outcome, Slice

if TYPE_CHECKING:
    from scope_edge.records import Floats, Vector

FINGERPRINTS = "anchors/fingerprints.pack"


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """One model on one anchor set. correct in [0, 1], tokens (cl100k completion tokens): shape (n,), NaN = missing."""

    model: str
    anchors: AnchorSet
    correct: Floats
    tokens: Floats


def load_anchor_sets() -> tuple[AnchorSet, ...]:
    """The bundled core anchor sets. Raises AssetError when missing or damaged."""
    body = unpack(assets.read(CORE), "anchor-sets", CORE, verified=True)
    return tuple(set_from_body(one, CORE) for one in body.get("sets", ()))


def load_fingerprints() -> tuple[tuple[AnchorSet, ...], Mapping[str, tuple[Fingerprint, ...]]]:
    """The bundled core sets, and every bundled fingerprint by model. Raises AssetError when missing or damaged."""
    loaded = load_anchor_sets()
    sets = {anchors.name: anchors for anchors in loaded}
    body = unpack(assets.read(FINGERPRINTS), "fingerprints", FINGERPRINTS, verified=True)
    found: dict[str, list[Fingerprint]] = {}
    try:
        for name, part in body["sets"].items():
            correct, tokens = (part[field].astype(np.float64) for field in ("correct", "tokens"))
            if correct.shape != (len(part["models"]), len(sets[name])) or tokens.shape != correct.shape:
                raise PackError(f"{FINGERPRINTS}: does not fit anchor set {name!r}; reinstall scope-edge")
            for row, model in enumerate(part["models"]):
                found.setdefault(model, []).append(Fingerprint(model, sets[name], correct[row], tokens[row]))
    except (KeyError, TypeError, AttributeError) as error:
        raise PackError(f"{FINGERPRINTS}: cannot be used ({error!r}); reinstall scope-edge") from error
    return loaded, {model: tuple(parts) for model, parts in found.items()}


def fingerprint_names() -> Mapping[str, tuple[str, ...]]:
    """For every model with a bundled fingerprint, the names of the anchor sets it was measured on."""
    return {model: tuple(one.anchors.name for one in parts) for model, parts in load_fingerprints()[1].items()}


def fingerprints_body(parts: Mapping[str, Sequence[Fingerprint]]) -> dict[str, Any]:
    """Fingerprints by anchor set name as the body of a pack; correct at half precision."""
    return {
        "sets": {
            name: {
                "models": [one.model for one in rows],
                "correct": np.array([one.correct for one in rows], np.float16),
                "tokens": np.array([one.tokens for one in rows], np.float32),
            }
            for name, rows in parts.items()
        }
    }


def slice_of(model: str, parts: Sequence[Fingerprint], vector: Vector, k: int) -> Slice:
    """The model's outcomes on the k anchors nearest to a unit vector, among those it was measured on, nearest first."""
    rows: list[tuple[Neighbor, Outcome]] = []
    for one in parts:
        for i, neighbor in one.anchors.nearest(vector, one.correct, k):
            rows.append((neighbor, Outcome(correct=_known(one.correct[i]), completion_tokens=_known(one.tokens[i]))))
    rows.sort(key=lambda row: (-row[0].similarity, row[0].anchor))
    return Slice(model=model, neighbors=tuple(row[0] for row in rows[:k]), outcomes=tuple(row[1] for row in rows[:k]))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
