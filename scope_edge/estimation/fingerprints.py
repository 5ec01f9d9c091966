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
from scope_edge.storage.packs import read_pack, unpack
from scope_edge.types import Neighbor, Outcome, Slice

if TYPE_CHECKING:
    from scope_edge.types import Floats, Vector

FINGERPRINTS = "anchors/fingerprints.pack"
# The user's own, in the user's data folder: one pack a file.
OWN_SETS, OWN_FINGERPRINTS = "anchors", "fingerprints"
# Bundled with its questions, and loaded only for a user who has had a model asked.
ASKED = "core-250"
_AGAIN = "make it again with `scope-edge fingerprint` or `scope-edge estimator anchors`, or remove the file"


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """One model on one anchor set. correct in [0, 1], tokens (cl100k completion tokens): shape (n,), NaN = missing.

    own: whether the user measured it; the bundled ones are part of what the bank was taught by.
    """

    model: str
    anchors: AnchorSet
    correct: Floats
    tokens: Floats
    own: bool = True


def load_anchor_sets() -> tuple[AnchorSet, ...]:
    """The core anchor sets, the bundled ones first, then the user's. Raises AssetError when one is missing or damaged."""
    bundled = _bundled_sets()
    paths = own_packs(OWN_SETS)
    return (*bundled, *_own_sets(paths, bundled)) if paths else bundled


def usable_anchor_sets() -> tuple[AnchorSet, ...]:
    """As `load_anchor_sets`, without packs of the user's that are damaged: for who is about to replace them."""
    found = _bundled_sets()
    for path in own_packs(OWN_SETS):
        with contextlib.suppress(PackError):
            found += tuple(_own_sets([path], found))
    return found


def set_digest(anchors: AnchorSet) -> str:
    """sha256 of which anchors a set holds and what they say, hex: outcomes belong to these and no others."""
    return hashlib.sha256(json.dumps([anchors.ids, anchors.texts]).encode()).hexdigest()


def _asked_set() -> AnchorSet:
    """The bundled set that models are asked, as one of the user's: what alpha means does not depend on it."""
    from scope_edge.estimation.core_set import load_core

    return replace(load_core().anchors, own=True)


def _bundled_sets() -> tuple[AnchorSet, ...]:
    body = unpack(assets.read(CORE), "anchor-sets", CORE, verified=True)
    return tuple(set_from_body(one, CORE) for one in body.get("sets", ()))


def load_fingerprints() -> tuple[tuple[AnchorSet, ...], Mapping[str, tuple[Fingerprint, ...]]]:
    """The core sets, and every fingerprint by model: the bundled ones and the user's.

    A model that the user measured on a bundled set again is known by the user's outcomes there, not by both. Outcomes of
    the user's on a set that is not there any more tell nothing and are left out (`scope-edge anchors list` shows them).
    Raises AssetError when a file is missing or damaged.
    """
    loaded = load_anchor_sets()
    own = [(path, _own_body(path, "fingerprints")) for path in own_packs(OWN_FINGERPRINTS)]
    if any(ASKED in body.get("sets", ()) for _, body in own) and ASKED not in {one.name for one in loaded}:
        loaded = (*loaded, _asked_set())
    sets = {anchors.name: anchors for anchors in loaded}
    body = unpack(assets.read(FINGERPRINTS), "fingerprints", FINGERPRINTS, verified=True)
    found: dict[str, dict[str, Fingerprint]] = {}
    _add(found, body, sets, FINGERPRINTS, "reinstall scope-edge", own=False)
    for path, one in own:
        _add(found, _on(sets, one), sets, str(path), _AGAIN, own=True)
    return loaded, {model: tuple(parts.values()) for model, parts in found.items()}


def fingerprint_names() -> Mapping[str, tuple[str, ...]]:
    """For every model with a fingerprint, the names of the anchor sets it was measured on."""
    return {model: tuple(one.anchors.name for one in parts) for model, parts in load_fingerprints()[1].items()}


def _add(
    found: dict[str, dict[str, Fingerprint]],
    body: Mapping[str, Any],
    sets: Mapping[str, AnchorSet],
    where: str,
    mend: str,
    *,
    own: bool,
) -> None:
    """Put the fingerprints of a pack's body, by model and set, into `found`. Raises PackError when they do not fit."""
    try:
        for name, part in body["sets"].items():
            if name not in sets:
                raise PackError(f"{where}: measured on anchor set {name!r}, which is not there; {mend}")
            digest = body.get("digests", {}).get(name)
            if digest is not None and digest != set_digest(sets[name]):
                raise PackError(f"{where}: measured on another release's {name}; {mend}")
            correct, tokens = (part[field].astype(np.float64) for field in ("correct", "tokens"))
            if correct.shape != (len(part["models"]), len(sets[name])) or tokens.shape != correct.shape:
                raise PackError(f"{where}: does not fit anchor set {name!r}; {mend}")
            for row, model in enumerate(part["models"]):
                found.setdefault(model, {})[name] = Fingerprint(model, sets[name], correct[row], tokens[row], own)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PackError(f"{where}: cannot be used ({error!r}); {mend}") from error


def _on(sets: Mapping[str, AnchorSet], body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A pack's body without outcomes on sets that are not there."""
    parts = body.get("sets")
    if not isinstance(parts, dict) or parts.keys() <= sets.keys():
        return body
    return {**body, "sets": {name: part for name, part in parts.items() if name in sets}}


def own_packs(folder: str) -> list[Path]:
    """The user's packs of a kind, by name. Most users have none: looking costs one failed system call."""
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


def _own_sets(paths: Sequence[Path], others: Sequence[AnchorSet]) -> list[AnchorSet]:
    """The user's anchor sets. Raises PackError: damaged, made for another release's map, or a name that is taken."""
    taken = {one.name for one in others}
    found: list[AnchorSet] = []
    for path in paths:
        rows = _own_body(path, "anchor-sets").get("sets", ())
        for one in (set_from_body(row, str(path), own=True) for row in rows):
            if one.name in taken:
                raise PackError(f"{path}: there is another anchor set {one.name!r}; remove one of the files")
            if widths(one) != widths(others[0]):
                raise PackError(f"{path}: made by a release with another encoder or map; {_AGAIN}")
            taken.add(one.name)
            found.append(one)
    return found


def widths(anchors: AnchorSet) -> tuple[tuple[int, ...], ...]:
    """How wide a set's vectors, domains and traits are: what an encoder and a map must agree on."""
    return tuple(column.shape[1:] for column in (anchors.vectors, anchors.domains, anchors.traits))


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
