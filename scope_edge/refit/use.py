"""The refit as the rest of the package meets it: fingerprints in, the same with better anchors out; remembered on the disk."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.errors import AssetError, PackError
from scope_edge.packs import read_pack, write_pack
from scope_edge.refit.rounds import seen_by, told_by_all
from scope_edge.refit.told import Placed, Told

if TYPE_CHECKING:
    from pathlib import Path

    from scope_edge.ability import Population
    from scope_edge.anchors import AnchorSet
    from scope_edge.fingerprints import Fingerprint
    from scope_edge.prior import Basis

    Fingerprints = Mapping[str, tuple[Fingerprint, ...]]

_KIND = "refit-cache"
# Of the way it is computed: other numbers are not read.
_VERSION = 1


def refitted(
    fingerprints: Fingerprints, basis: Basis, models: Iterable[str], *, cache_dir: Path | None = None
) -> Fingerprints:
    """The fingerprints, those of `models` with their anchors as hard as the other models on them found them.

    Only anchors that the map placed are learned about: bundled sets stay as they are, and what one model alone was measured
    on. cache_dir: where to keep what was learned; a folder that cannot be written is no error.
    """
    placed = _placed(fingerprints, basis.population, least=2)
    if not placed:
        return fingerprints
    told = _remembered(fingerprints, placed, basis, cache_dir)
    return {**fingerprints, **{m: seen_by(m, fingerprints[m], told, placed) for m in models if m in fingerprints}}


def anchors_for(model: str, anchors: AnchorSet, fingerprints: Fingerprints, basis: Basis) -> AnchorSet:
    """The anchors as hard as all models but this one, which is about to answer them, found them."""
    others = {
        name: tuple(part for part in parts if name != model or part.anchors.name != anchors.name)
        for name, parts in fingerprints.items()
    }
    placed = _placed(others, basis.population, least=1)
    if anchors.name not in placed:
        return anchors
    return told_by_all(others, placed, basis)[anchors.name].by_others(model, placed[anchors.name])


def _placed(fingerprints: Fingerprints, population: Population, least: int) -> dict[str, Placed]:
    """The sets that the map placed and that so many models were measured on."""
    parts = [part for one in fingerprints.values() for part in one if is_placed(part.anchors)]
    names = [part.anchors.name for part in parts]
    sets = {part.anchors.name: part.anchors for part in parts if names.count(part.anchors.name) >= least}
    return {name: Placed.of(anchors, population) for name, anchors in sets.items()}


def is_placed(anchors: AnchorSet) -> bool:
    """Whether the map alone says how hard it is."""
    return np.array_equal(anchors.difficulty, anchors.map_difficulty)


def _remembered(
    fingerprints: Fingerprints, placed: Mapping[str, Placed], basis: Basis, cache_dir: Path | None
) -> Mapping[str, Told]:
    """What was told, out of the cache if it was told by the same outcomes."""
    if cache_dir is None:
        return told_by_all(fingerprints, placed, basis)
    path, identity = cache_dir / "refit.pack", _identity(fingerprints, placed, basis)
    with contextlib.suppress(PackError):
        body = read_pack(path, _KIND)
        if body.get("identity") == identity:
            return {name: _told(body, name, len(one.anchors)) for name, one in placed.items()}
    told = told_by_all(fingerprints, placed, basis)
    rows = {name: {field.name: getattr(one, field.name) for field in fields(one)} for name, one in told.items()}
    with contextlib.suppress(AssetError):
        write_pack(path, _KIND, {"identity": identity, "told": rows})
    return told


def _told(body: Mapping[str, Any], name: str, anchors: int) -> Told:
    """What the cache says of a set of so many anchors. Raises PackError."""
    try:
        told = Told(**body["told"][name])
        shapes = {told.pulls.shape, told.shares.shape, (len(told.models), *told.difficulty.shape)}
    except (KeyError, TypeError, AttributeError) as error:
        raise PackError(f"not a usable cache ({error!r})") from error
    if shapes != {(len(told.models), anchors)} or told.information.shape != (anchors,):
        raise PackError(f"a cache of other anchors than {name}")
    return told


def _identity(fingerprints: Fingerprints, placed: Mapping[str, Placed], basis: Basis) -> str:
    """A hash of all that the refit looks at, whatever the order of models and sets."""
    found = hashlib.sha256(f"{_VERSION}".encode())

    def add(*values: Any) -> None:
        for value in values:
            found.update(value.encode() if isinstance(value, str) else np.ascontiguousarray(value).tobytes())

    population = basis.population
    add(population.mean, population.covariance, population.discrimination, population.unexplained)
    for name in sorted(placed):
        add(name, placed[name].anchors.map_difficulty, placed[name].rows)
    for model in sorted(fingerprints):
        parts = sorted(fingerprints[model], key=lambda part: part.anchors.name)
        if any(part.anchors.name in placed for part in parts):
            add(model)
            if (taught := basis.abilities.get(model)) is not None:
                add(taught.mean, taught.covariance)
            for part in parts:
                add(part.anchors.name, part.anchors.difficulty, part.anchors.discrimination, part.correct)
    return found.hexdigest()
