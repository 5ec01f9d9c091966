"""Exchange a fingerprint: one pack with a model's outcomes on one anchor set, and the set where the receiver may lack it.

Questions are exported only on request. The pack identifies the set's questions by hash, with text and without: a receiver
of a set without text can take further fingerprints on it, and outcomes of other questions are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scope_edge.catalog.cards import nearest
from scope_edge.errors import AssetError, PackError, UsageError
from scope_edge.estimation.anchor_spec import load_core
from scope_edge.estimation.anchors import AnchorSet, set_body, set_from_body
from scope_edge.estimation.fingerprints import (
    ASKED,
    Fingerprint,
    fingerprints_body,
    load_anchor_sets,
    load_fingerprints,
    set_digest,
    widths,
)
from scope_edge.fingerprinting.importing.naming import Cards, check_model, is_set_name
from scope_edge.fingerprinting.importing.outcomes import Imported, save_anchor_set
from scope_edge.fingerprinting.run import fingerprint_file, save_fingerprint
from scope_edge.storage.files import read_whole, write_atomically
from scope_edge.storage.packs import MAGIC, pack, unpack

KIND = "shared-fingerprint"
# The largest pack that is read: 20,000 anchors with text fit.
MAX_BYTES = 128 * 2**20
# Why an import left a fingerprint out.
KNOWN = "fingerprint, which is here already"


@dataclass(frozen=True, slots=True)
class Exported:
    """A written pack.

    with_set, with_text: whether it holds the anchor set and the questions. sha256: of the file, hex.
    """

    model: str
    anchor_set: str
    outcomes: int
    with_set: bool
    with_text: bool
    sha256: str
    file: Path


def export_fingerprint(model: str, path: Path, anchors: str | None = None, *, with_text: bool = False) -> Exported:
    """Write a model's fingerprint on a set, by default the only one it was measured on, to `path`.

    A bundled set is not packed, since every installation has it.
    Raises UsageError (no such fingerprint, several sets and no name given, a set without text), AssetError (damaged files,
    a disk that cannot be written).
    """
    one = _chosen(model, anchors)
    own = one.anchors.name not in _bundled_names()
    if with_text and own and not one.anchors.texts:
        raise UsageError(f"{one.anchors.name} is here without its questions; leave out --with-text")
    bare = replace(one.anchors, texts=())
    body = {
        **fingerprints_body({one.anchors.name: [one]}),
        "digests": [set_digest(one.anchors), set_digest(bare)],
        **({"anchors": set_body(one.anchors if with_text else bare)} if own else {}),
    }
    blob = pack(KIND, body)
    write_atomically(path, blob)
    known = int(np.isfinite(one.correct).sum())
    sha256 = hashlib.sha256(blob).hexdigest()
    return Exported(one.model, one.anchors.name, known, own, own and with_text, sha256, path)


def import_pack(path: Path, cards: Cards, *, replace_own: bool = False) -> tuple[Imported, str]:
    """Import a fingerprint that was exported elsewhere; return the result and the sha256 of the file.

    Raises PackError (damaged, foreign, of other questions than the installed set's), UsageError (other outcomes of that
    model exist and may not be replaced), AssetError.
    """
    where = str(path)
    blob = _read(path)
    sha256 = hashlib.sha256(blob).hexdigest()
    body = unpack(blob, KIND, where)
    model, name = _names(body, where)
    installed = {one.name: one for one in load_anchor_sets()}
    if name == ASKED:
        installed[ASKED] = replace(load_core().anchors, own=True)
    joined = name in installed
    anchors = installed[name] if joined else _packed_set(body, name, where)
    if set_digest(anchors) not in body["digests"]:
        raise PackError(
            f"{where}: measured on other questions than the {name} that is here (sha256"
            f" {body['digests'][0][:12] if body['digests'] else 'missing'}…, here {set_digest(anchors)[:12]}…);"
            " nothing was imported"
        )
    one = _fingerprint(body["sets"][name], model, anchors, where)
    known = is_known(one, where, replace_own=replace_own)
    files: list[Path] = []
    if not joined:
        files.append(save_anchor_set(anchors, {"source": where}))
    if not known:
        files.append(save_fingerprint(one, {"source": path.name, "sha256": sha256}, "scope-edge import"))
    dropped = {KNOWN: int(known)}
    return Imported.of(where, [one], cards, anchors=anchors, joined=joined, files=files, dropped=dropped), sha256


def is_pack(path: Path) -> bool:
    """Return whether a file begins like a pack. Raises AssetError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def is_known(one: Fingerprint, where: str, *, replace_own: bool) -> bool:
    """Return whether exactly these outcomes exist already. Raises UsageError when others exist that must stay."""
    model, name = one.model, one.anchors.name
    before = next((part for part in load_fingerprints()[1].get(model, ()) if part.anchors.name == name), None)
    if before is None:
        return False
    columns = ((before.correct, one.correct), (before.tokens, one.tokens))
    # Outcomes are kept at half precision.
    if all(np.allclose(old, new, rtol=1e-3, equal_nan=True) for old, new in columns):
        return True
    if not replace_own:
        raise UsageError(f"{where}: other outcomes of {model} on {name} are here; --replace puts these in their place")
    if name not in _bundled_names() and not fingerprint_file(model, name).exists():
        raise UsageError(
            f"{where}: other outcomes of {model} on {name} came with other models'; remove that pack first"
        )
    return False


def _chosen(model: str, anchors: str | None) -> Fingerprint:
    found = load_fingerprints()[1]
    parts = {one.anchors.name: one for one in found.get(model, ())}
    if not parts:
        raise UsageError(
            f"{model!r} has no fingerprint{nearest(model, found)}; `scope-edge models list` shows which models have one"
        )
    if anchors is None and len(parts) > 1:
        raise UsageError(f"{model} was measured on {', '.join(parts)}; name one by --anchors")
    name = anchors if anchors is not None else next(iter(parts))
    if name not in parts:
        raise UsageError(f"{model} was not measured on {name!r}, only on {', '.join(parts)}")
    return parts[name]


def _bundled_names() -> set[str]:
    """Return the names of the sets that every installation has."""
    return {ASKED, *(one.name for one in load_anchor_sets() if not one.own)}


def _read(path: Path) -> bytes:
    try:
        return read_whole(path, MAX_BYTES)
    except OSError as error:
        raise PackError(f"{path}: cannot be read ({error.strerror or error}); is this the right file?") from error


def _names(body: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Return the names of the model and the set, checked to be safe. Raises PackError."""
    try:
        ((name, part),) = body["sets"].items()
        (model,) = part["models"]
        check_model(model, where)
        digests = body["digests"]
        safe = is_set_name(name) and isinstance(digests, list) and all(isinstance(one, str) for one in digests)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise PackError(f"{where}: not one model on one anchor set ({error!r}); get a fresh copy") from error
    if not safe:
        raise PackError(f"{where}: an anchor set cannot be called {name!r}; get a fresh copy")
    return model, name


def _packed_set(body: Mapping[str, Any], name: str, where: str) -> AnchorSet:
    """Return the anchor set in the pack. Raises PackError unless it fits this release's encoder and map."""
    if "anchors" not in body:
        raise PackError(
            f"{where}: measured on anchor set {name!r}, which is neither here nor in the pack; ask for both"
        )
    anchors = set_from_body(body["anchors"], where, own=True)
    columns = (anchors.vectors, anchors.domains, anchors.traits, anchors.difficulty, anchors.discrimination)
    known = () if anchors.multilingual is None else (anchors.multilingual,)
    numbers = (*columns, *known, anchors.prompt_tokens, anchors.log_length, anchors.map_difficulty)
    if anchors.name != name or not len(anchors) or len(set(anchors.ids)) != len(anchors):
        raise PackError(f"{where}: its anchor set is not the one it was measured on; get a fresh copy")
    if not all(isinstance(one, str) for one in (*anchors.ids, *anchors.categories)):
        raise PackError(f"{where}: its anchors have names that are not text; get a fresh copy")
    if not all(np.isfinite(column).all() for column in numbers):
        raise PackError(f"{where}: its anchor set holds invalid numbers; get a fresh copy")
    if widths(anchors) != widths(load_anchor_sets()[0]):
        raise PackError(f"{where}: made by a release with another encoder or map; have it exported by this one")
    return anchors


def _fingerprint(part: Mapping[str, Any], model: str, anchors: AnchorSet, where: str) -> Fingerprint:
    """Read the outcomes. Raises PackError when they do not fit, or a value is impossible."""
    try:
        correct, tokens = (part[field].astype(np.float64) for field in ("correct", "tokens"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PackError(f"{where}: cannot be used ({error!r}); get a fresh copy") from error
    fits = correct.shape == tokens.shape == (1, len(anchors))
    if not fits or not ((correct >= 0) & (correct <= 1) | np.isnan(correct)).all():
        raise PackError(
            f"{where}: its outcomes do not fit the {len(anchors)} anchors of {anchors.name}, or are not 0 to 1"
        )
    if not ((tokens > 0) & np.isfinite(tokens) | np.isnan(tokens)).all():
        raise PackError(f"{where}: has an answer of less than a token; get a fresh copy")
    return Fingerprint(model, anchors, correct[0], tokens[0])
