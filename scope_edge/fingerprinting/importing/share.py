"""A fingerprint to hand on: one pack with a model's outcomes on one anchor set, and the set where a receiver may lack it.

Questions stay behind unless asked for. The pack says by hash which questions the outcomes belong to: with text and without,
so that whoever got the set without its text can take further fingerprints on it, and nobody takes those of other questions.
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
    OWN_SETS,
    Fingerprint,
    fingerprints_body,
    load_anchor_sets,
    load_fingerprints,
    set_digest,
    widths,
)
from scope_edge.fingerprinting.importing.naming import Cards, check_model, is_set_name
from scope_edge.fingerprinting.importing.outcomes import Imported
from scope_edge.fingerprinting.run import fingerprint_file, save_fingerprint
from scope_edge.storage import assets
from scope_edge.storage.files import write_atomically
from scope_edge.storage.packs import MAGIC, pack, unpack, write_pack

KIND = "shared-fingerprint"
# Of a file that somebody sends: 20,000 anchors with text fit.
MAX_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True)
class Exported:
    """A pack that was written.

    with_set, with_text: whether anchor set and questions are in it. sha256: of the file, hex.
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

    A bundled set is in every installation, so is not packed.
    Raises UsageError (no such fingerprint, several sets and none named, a set without text), AssetError (damaged files, a
    disk that cannot be written).
    """
    one = _chosen(model, anchors)
    own = one.anchors.name not in _everywhere()
    if with_text and own and not one.anchors.texts:
        raise UsageError(f"{one.anchors.name} is here without its questions; leave out --with-text")
    packed = {"anchors": set_body(one.anchors if with_text else _bare(one.anchors))} if own else {}
    body = {
        **fingerprints_body({one.anchors.name: [one]}),
        "digests": [set_digest(one.anchors), set_digest(_bare(one.anchors))],
        **packed,
    }
    blob = pack(KIND, body)
    write_atomically(path, blob)
    known = int(np.isfinite(one.correct).sum())
    return Exported(one.model, one.anchors.name, known, own, own and with_text, _sha256(blob), path)


def import_pack(path: Path, cards: Cards, *, replace_own: bool = False) -> tuple[Imported, str]:
    """Take a fingerprint that was exported elsewhere; return what came of it, and the sha256 of the file.

    Raises PackError (damaged, foreign, of questions other than those of the set that is here), UsageError (other outcomes of
    that model are here and are not to be replaced), AssetError.
    """
    blob = _read(path)
    model, name, body = _checked(unpack(blob, KIND, str(path)), str(path))
    there = {**{one.name: one for one in load_anchor_sets()}, **_asked(name)}.get(name)
    anchors = there if there is not None else _packed(body, name, str(path))
    _check_questions(body, anchors, str(path))
    one = _fingerprint(body, model, anchors, str(path))
    same = is_here(one, str(path), replace_own=replace_own)
    files: list[Path] = []
    if there is None:
        files.append(assets.user_data_dir() / OWN_SETS / f"{name}.pack")
        write_pack(files[-1], "anchor-sets", {"sets": [set_body(anchors)], "source": str(path)})
    if not same:
        about = {"source": path.name, "sha256": _sha256(blob)}
        files.append(save_fingerprint(one, about, "scope-edge import"))
    known = int(np.isfinite(one.correct).sum())
    has_card = model in cards
    done = Imported(
        source=str(path),
        anchor_set=name,
        joined=there is not None,
        anchors=len(anchors),
        models=(model,) if has_card else (),
        strangers=() if has_card else (model,),
        outcomes=known,
        missing=len(anchors) - known,
        files=tuple(files),
        dropped={"fingerprint, which is here already": 1} if same else {},
    )
    return done, _sha256(blob)


def is_pack(path: Path) -> bool:
    """Whether a file begins like a pack. Raises AssetError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def _chosen(model: str, anchors: str | None) -> Fingerprint:
    found = load_fingerprints()[1]
    parts = {one.anchors.name: one for one in found.get(model, ())}
    if not parts:
        raise UsageError(f"{model!r} has no fingerprint{nearest(model, found)}; `scope-edge models list` shows who has")
    if anchors is None and len(parts) > 1:
        raise UsageError(f"{model} was measured on {', '.join(parts)}; name one by --anchors")
    name = anchors if anchors is not None else next(iter(parts))
    if name not in parts:
        raise UsageError(f"{model} was not measured on {name!r}, only on {', '.join(parts)}")
    return parts[name]


def _everywhere() -> set[str]:
    """The sets that every installation has."""
    return {ASKED, *(one.name for one in load_anchor_sets() if not one.own)}


def _asked(name: str) -> Mapping[str, AnchorSet]:
    return {ASKED: replace(load_core().anchors, own=True)} if name == ASKED else {}


def is_here(one: Fingerprint, where: str, *, replace_own: bool) -> bool:
    """Whether these very outcomes are here already. Raises UsageError when others are, that must stay."""
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
    if name not in _everywhere() and not fingerprint_file(model, name).exists():
        raise UsageError(
            f"{where}: other outcomes of {model} on {name} came with other models'; remove that pack first"
        )
    return False


def _bare(anchors: AnchorSet) -> AnchorSet:
    return replace(anchors, texts=())


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            blob = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PackError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    if len(blob) > MAX_BYTES:
        raise PackError(f"{path}: more than the {MAX_BYTES} bytes a {KIND} pack may have; get a fresh copy")
    return blob


def _checked(body: dict[str, Any], where: str) -> tuple[str, str, dict[str, Any]]:
    """The model, the set's name, and the body, whose names are safe now. Raises PackError."""
    try:
        ((name, part),) = body["sets"].items()
        (model,) = part["models"]
        check_model(model, where)
        safe = is_set_name(name) and all(isinstance(one, str) for one in body["digests"])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise PackError(f"{where}: not one model on one anchor set ({error!r}); get a fresh copy") from error
    if not safe:
        raise PackError(f"{where}: an anchor set cannot be called {name!r}; get a fresh copy")
    return model, name, {**body, "part": part}


def _packed(body: Mapping[str, Any], name: str, where: str) -> AnchorSet:
    """The anchor set in the pack, which fits this release's encoder and map. Raises PackError."""
    if "anchors" not in body:
        raise PackError(
            f"{where}: measured on anchor set {name!r}, which is neither here nor in the pack; ask for both"
        )
    anchors = set_from_body(body["anchors"], where, own=True)
    columns = (anchors.vectors, anchors.domains, anchors.traits, anchors.difficulty, anchors.discrimination)
    numbers = (*columns, anchors.prompt_tokens, anchors.log_length, anchors.map_difficulty)
    if anchors.name != name or not len(anchors) or len(set(anchors.ids)) != len(anchors):
        raise PackError(f"{where}: its anchor set is not the one it was measured on; get a fresh copy")
    if not all(isinstance(one, str) for one in (*anchors.ids, *anchors.categories)):
        raise PackError(f"{where}: its anchors have names that are no text; get a fresh copy")
    if not all(np.isfinite(column).all() for column in numbers):
        raise PackError(f"{where}: its anchor set holds what is no number; get a fresh copy")
    if widths(anchors) != widths(load_anchor_sets()[0]):
        raise PackError(f"{where}: made by a release with another encoder or map; have it exported by this one")
    return anchors


def _check_questions(body: Mapping[str, Any], anchors: AnchorSet, where: str) -> None:
    """Raises PackError unless the outcomes belong to these anchors."""
    if set_digest(anchors) not in body["digests"]:
        raise PackError(
            f"{where}: measured on other questions than the {anchors.name} that is here (sha256"
            f" {body['digests'][0][:12] if body['digests'] else 'missing'}…, here {set_digest(anchors)[:12]}…);"
            " nothing was imported"
        )


def _fingerprint(body: Mapping[str, Any], model: str, anchors: AnchorSet, where: str) -> Fingerprint:
    """Raises PackError when the outcomes do not fit, or cannot be."""
    try:
        correct, tokens = (body["part"][field].astype(np.float64) for field in ("correct", "tokens"))
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


def _sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()
