"""Fingerprints: one model's outcomes on one core anchor set, and the slice of them nearest to a query."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.errors import AssetError, PackError
from scope_edge.estimation.anchors import CORE, AnchorSet, set_from_body
from scope_edge.storage import assets
from scope_edge.storage.packs import read_pack, reading, unpack
from scope_edge.types import Neighbor, Outcome, Slice

if TYPE_CHECKING:
    from scope_edge.types import Floats, Vector

FINGERPRINTS = "anchors/fingerprints.pack"
# The user's own, in the user's data folder: one pack a file.
OWN_SETS, OWN_FINGERPRINTS = "anchors", "fingerprints"
# Bundled with its questions, and loaded only for a user with a model measured on it.
ASKED = "core-250"
_AGAIN = "make it again with `scope-edge fingerprint` or `scope-edge estimator anchors`, or remove the file"


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """One model on one anchor set. correct in [0, 1], tokens (cl100k completion tokens): shape (n,), NaN = missing.

    own: whether the user measured it; the bundled ones taught the bank.
    """

    model: str
    anchors: AnchorSet
    correct: Floats
    tokens: Floats
    own: bool = True


def load_anchor_sets() -> tuple[AnchorSet, ...]:
    """Load the core anchor sets, the bundled ones first. Raises AssetError when one is missing or damaged."""
    found = _bundled_sets()
    for path in own_packs(OWN_SETS):
        found += _own_sets(path, found)
    return found


def usable_anchor_sets() -> tuple[AnchorSet, ...]:
    """Load as `load_anchor_sets`, but leave out damaged packs of the user's: for a caller that replaces them."""
    found = _bundled_sets()
    for path in own_packs(OWN_SETS):
        with contextlib.suppress(PackError):
            found += _own_sets(path, found)
    return found


def set_digest(anchors: AnchorSet) -> str:
    """Return the sha256, hex, of a set's anchors and their texts: outcomes belong to these and no others."""
    return hashlib.sha256(json.dumps([anchors.ids, anchors.texts]).encode()).hexdigest()


def _bundled_sets() -> tuple[AnchorSet, ...]:
    body = unpack(assets.read(CORE), "anchor-sets", CORE, verified=True)
    return tuple(set_from_body(one, CORE) for one in body.get("sets", ()))


def load_fingerprints() -> tuple[tuple[AnchorSet, ...], Mapping[str, tuple[Fingerprint, ...]]]:
    """Load the core sets, and every fingerprint by model: the bundled ones and the user's.

    Outcomes of the user's on a bundled set replace the bundled ones of that model. Those on a set that no longer exists are
    left out (`scope-edge anchors list` shows them). Raises AssetError when a file is missing or damaged.
    """
    loaded = load_anchor_sets()
    own = [(path, _own_body(path, "fingerprints")) for path in own_packs(OWN_FINGERPRINTS)]
    if any(ASKED in body.get("sets", ()) for _, body in own) and ASKED not in {one.name for one in loaded}:
        from scope_edge.estimation.anchor_spec import load_core

        # As one of the user's: what alpha means must not depend on it.
        loaded = (*loaded, replace(load_core().anchors, own=True))
    sets = {anchors.name: anchors for anchors in loaded}
    body = unpack(assets.read(FINGERPRINTS), "fingerprints", FINGERPRINTS, verified=True)
    found: dict[str, dict[str, Fingerprint]] = {}
    _add(found, body, sets, FINGERPRINTS, own=False)
    for path, one in own:
        _add(found, one, sets, str(path), own=True)
    return loaded, {model: tuple(parts.values()) for model, parts in found.items()}


def fingerprint_names() -> Mapping[str, tuple[str, ...]]:
    """Return the names of the anchor sets that each model with a fingerprint was measured on."""
    return {model: tuple(one.anchors.name for one in parts) for model, parts in load_fingerprints()[1].items()}


def _add(
    found: dict[str, dict[str, Fingerprint]],
    body: Mapping[str, Any],
    sets: Mapping[str, AnchorSet],
    where: str,
    *,
    own: bool,
) -> None:
    """Put the fingerprints of a pack's body, by model and set, into `found`. Raises PackError when they do not fit."""
    with reading(where, "fingerprint", _AGAIN if own else "reinstall scope-edge"):
        for name, part in body["sets"].items():
            if name not in sets and own:
                continue
            if name not in sets:
                raise ValueError(f"measured on anchor set {name!r}, which is missing")
            digest = body.get("digests", {}).get(name)
            if digest is not None and digest != set_digest(sets[name]):
                raise ValueError(f"measured on another release's {name}")
            correct, tokens = (part[field].astype(np.float64) for field in ("correct", "tokens"))
            if correct.shape != (len(part["models"]), len(sets[name])) or tokens.shape != correct.shape:
                raise ValueError(f"does not fit anchor set {name!r}")
            for row, model in enumerate(part["models"]):
                found.setdefault(model, {})[name] = Fingerprint(model, sets[name], correct[row], tokens[row], own)


def own_packs(folder: str) -> list[Path]:
    """Return the user's packs of a kind, by name. Most users have none: looking costs one failed system call."""
    try:
        return sorted(path for path in (assets.user_data_dir() / folder).iterdir() if path.suffix == ".pack")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise AssetError(
            f"{assets.user_data_dir() / folder}: cannot be read ({error.strerror or error}); check its permissions"
        ) from error


def _own_body(path: Path, kind: str) -> dict[str, Any]:
    try:
        return read_pack(path, kind)
    except PackError as error:
        raise PackError(f"{error} ({_AGAIN})") from error


def _own_sets(path: Path, others: Sequence[AnchorSet]) -> tuple[AnchorSet, ...]:
    """Read the user's anchor sets from a pack. Raises PackError: damaged, another release's map, or a name that is taken."""
    taken = {one.name for one in others}
    found = tuple(set_from_body(row, str(path), own=True) for row in _own_body(path, "anchor-sets").get("sets", ()))
    for one in found:
        if one.name in taken:
            raise PackError(f"{path}: there is another anchor set {one.name!r}; remove one of the files")
        if widths(one) != widths(others[0]):
            raise PackError(f"{path}: made by a release with another encoder or map; {_AGAIN}")
        taken.add(one.name)
    return found


def widths(anchors: AnchorSet) -> tuple[tuple[int, ...], ...]:
    """Return the widths of a set's vectors, domains and traits, which an encoder and a map must agree on."""
    return tuple(column.shape[1:] for column in (anchors.vectors, anchors.domains, anchors.traits))


def fingerprints_body(parts: Mapping[str, Sequence[Fingerprint]]) -> dict[str, Any]:
    """Return fingerprints by anchor set name as the body of a pack; correct at half precision."""
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
    """Return the model's outcomes on the k anchors nearest to a unit vector, nearest first; missing outcomes are skipped."""
    rows: list[tuple[Neighbor, Outcome]] = []
    for one in parts:
        for i, neighbor in one.anchors.nearest(vector, one.correct, k):
            rows.append((neighbor, Outcome(correct=_known(one.correct[i]), completion_tokens=_known(one.tokens[i]))))
    rows.sort(key=lambda row: (-row[0].similarity, row[0].anchor))
    return Slice(model=model, neighbors=tuple(row[0] for row in rows[:k]), outcomes=tuple(row[1] for row in rows[:k]))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
