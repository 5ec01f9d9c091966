"""What a user has measured and imported, listed; and taken away so that nothing is left that points to what is gone.

Every file is changed in one step. Outcomes go before the anchors they are on: whatever interrupts, the rest can be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scope_edge.catalog.cards import nearest
from scope_edge.errors import AssetError, PackError, UsageError
from scope_edge.estimation.feedback_store import FEEDBACK, load_feedback
from scope_edge.estimation.feedback_store import file as held_file
from scope_edge.estimation.fingerprints import (
    ASKED,
    OWN_FINGERPRINTS,
    OWN_SETS,
    fingerprint_names,
    load_anchor_sets,
    own_packs,
    usable_anchor_sets,
)
from scope_edge.fingerprinting.answer_log import FOLDER as JOURNALS
from scope_edge.fingerprinting.answer_log import file_name
from scope_edge.history import Journal
from scope_edge.history.feedback import forget_feedback
from scope_edge.storage import assets
from scope_edge.storage.packs import read_pack, write_pack

_SETS, _FINGERPRINTS = "anchor-sets", "fingerprints"


@dataclass(frozen=True, slots=True)
class Listed:
    """An anchor set, or what is left of one.

    Attributes:
        anchors: how many; None = the set is not there, or its pack is damaged. own: whether it is the user's.
        with_text: whether its questions are there. measured: models of the user's fingerprints on it.
        problem: what is wrong; None = nothing.
    """

    name: str
    anchors: int | None
    own: bool
    with_text: bool
    measured: tuple[str, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class RemovalSummary:
    """What was taken away. fingerprints: (model, anchor set). files: deleted or written anew. left: files of answers that stay."""

    fingerprints: tuple[tuple[str, str], ...]
    files: tuple[Path, ...]
    left: tuple[Path, ...] = ()


def list_sets() -> tuple[Listed, ...]:
    """Every anchor set, the bundled ones first; last, sets that are gone and whose outcomes are not. Raises AssetError."""
    measured: dict[str, list[str]] = {}
    for model, name, _ in _own_fingerprints():
        measured.setdefault(name, []).append(model)
    found = [
        Listed(one.name, len(one), one.own, bool(one.texts), tuple(measured.pop(one.name, ())))
        for one in usable_anchor_sets()
    ]
    if ASKED not in {one.name for one in found}:
        found.append(_asked(tuple(measured.pop(ASKED, ()))))
    for name, problem in _damaged_sets().items():
        found.append(Listed(name, None, True, False, tuple(measured.pop(name, ())), problem))
    found += _said()
    gone = "is not there; outcomes on it are not used"
    found += [Listed(name, None, True, False, tuple(models), gone) for name, models in measured.items()]
    return tuple(found)


def remove_set(name: str) -> RemovalSummary:
    """Delete an anchor set of the user's, and the fingerprints on it, which nothing could use. Raises UsageError, AssetError."""
    known = {one.name: one for one in list_sets()}
    if name not in known:
        raise UsageError(f"no anchor set {name!r}{nearest(name, known)}; `scope-edge anchors list` shows them")
    if not known[name].own:
        raise UsageError(
            f"{name} is bundled and stays; `scope-edge anchors forget MODEL --on {name}` removes outcomes on it"
        )
    if name == FEEDBACK:
        return _take_feedback(None)
    gone = _take_fingerprints(None, name)
    files = [*gone.files]
    for path in own_packs(OWN_SETS):
        body = _body(path, _SETS)
        if body is None:
            if path.stem == name:
                _unlink(path)
                files.append(path)
            continue
        rows = [row for row in body["sets"] if row["name"] != name]
        if len(rows) < len(body["sets"]):
            _write_or_unlink(path, _SETS, {**body, "sets": rows}, bool(rows))
            files.append(path)
    return RemovalSummary(gone.fingerprints, tuple(files))


def forget(model: str, anchor_set: str | None = None, *, answers: bool = False) -> RemovalSummary:
    """Delete the user's fingerprints of a model, on one set or all.

    answers: its journals, too, from which `scope-edge fingerprint` would make the fingerprint again without asking.
    Raises UsageError when there is nothing to delete, AssetError when it cannot be.
    """
    gone = _take_fingerprints(model, anchor_set)
    said = _take_feedback(model) if anchor_set in (None, FEEDBACK) else RemovalSummary((), ())
    gone = RemovalSummary((*gone.fingerprints, *said.fingerprints), (*gone.files, *said.files))
    journals = journals_of(model) if anchor_set in (None, ASKED) else ()
    if answers:
        for path in journals:
            _unlink(path)
    if not gone.files and not (answers and journals):
        where = "" if anchor_set is None else f" on {anchor_set}"
        bundled = model in fingerprint_names()
        raise UsageError(
            f"{model} has no fingerprint of yours{where}"
            + ("; bundled ones stay" if bundled else nearest(model, {one for one, _, _ in _own_fingerprints()}))
        )
    files = (*gone.files, *(journals if answers else ()))
    return RemovalSummary(gone.fingerprints, files, () if answers else journals)


def own_sets_of(model: str) -> tuple[str, ...]:
    """The anchor sets the user has measured or imported a model on. Raises AssetError."""
    said = (FEEDBACK,) if any(model in one.measured for one in _said()) else ()
    return (*(name for one, name, _ in _own_fingerprints() if one == model), *said)


def journals_of(model: str) -> tuple[Path, ...]:
    """The files that hold a model's answers."""
    try:
        near = sorted((assets.user_data_dir() / JOURNALS).glob(f"{file_name(model)}-*.jsonl"))
    except OSError:
        return ()
    return tuple(path for path in near if _asked_of(path) == model)


def _asked_of(path: Path) -> object:
    """The model a journal is of: another model's name may begin alike."""
    try:
        with path.open("rb") as file:
            head = json.loads(file.readline(65_536))
    except (OSError, ValueError, RecursionError):
        return None
    return head.get("model") if isinstance(head, dict) else None


def _own_fingerprints() -> Iterable[tuple[str, str, Path]]:
    """(model, anchor set, file) of the user's packs, damaged ones left out."""
    for path in own_packs(OWN_FINGERPRINTS):
        body = _body(path, _FINGERPRINTS)
        for name, part in ({} if body is None else body["sets"]).items():
            yield from ((model, name, path) for model in part["models"])


def _take_fingerprints(model: str | None, anchor_set: str | None) -> RemovalSummary:
    """Delete the user's outcomes of a model (None = of every one) on a set (None = on all)."""
    gone: list[tuple[str, str]] = []
    files: list[Path] = []
    for path in own_packs(OWN_FINGERPRINTS):
        body = _body(path, _FINGERPRINTS)
        if body is None:
            continue
        kept: dict[str, Any] = {}
        before = len(gone)
        for name, part in body["sets"].items():
            rows = [i for i, one in enumerate(part["models"]) if not _meant(one, name, model, anchor_set)]
            gone += [(one, name) for one in part["models"] if _meant(one, name, model, anchor_set)]
            if rows:
                kept[name] = {
                    "models": [part["models"][i] for i in rows],
                    **{column: part[column][rows] for column in ("correct", "tokens")},
                }
        if len(gone) > before:
            _write_or_unlink(path, _FINGERPRINTS, {**body, "sets": kept}, bool(kept))
            files.append(path)
    return RemovalSummary(tuple(gone), tuple(files))


def _said() -> list[Listed]:
    """What the user's feedback has made, as an anchor set."""
    held = load_feedback()
    if not held.said and held.ignored is None:
        return []
    models = tuple(dict.fromkeys(one.model for one in held.said))
    return [Listed(FEEDBACK, None if held.ignored else len(held.said), True, False, models, held.ignored)]


def _take_feedback(model: str | None) -> RemovalSummary:
    """Take back what was said of a model (None = of every one)."""
    listed = _said()
    with Journal() as journal:
        said = forget_feedback(journal, None if model is None else lambda one: one.model == model)
    models = dict.fromkeys(one.model for one in said)
    changed = bool(said) or (model is None and bool(listed))
    return RemovalSummary(tuple((one, FEEDBACK) for one in models), (held_file(),) if changed else ())


def _meant(one: str, name: str, model: str | None, anchor_set: str | None) -> bool:
    return model in (None, one) and anchor_set in (None, name)


def _body(path: Path, kind: str) -> Mapping[str, Any] | None:
    """A pack's body; None where it is damaged."""
    try:
        body = read_pack(path, kind)
    except PackError:
        return None
    sound = isinstance(body.get("sets"), list if kind == _SETS else dict)
    return body if sound else None


def _damaged_sets() -> dict[str, str]:
    """Name -> what is wrong, of packs of sets that cannot be used. They are called after their set."""
    usable = {one.name for one in usable_anchor_sets()}
    damaged = [path for path in own_packs(OWN_SETS) if path.stem not in usable]
    if not damaged:
        return {}
    try:
        load_anchor_sets()
    except PackError as error:
        return {path.stem: f"{path}: damaged" if str(path) not in str(error) else str(error) for path in damaged}
    return {}


def _asked(measured: tuple[str, ...]) -> Listed:
    from scope_edge.estimation.anchor_spec import load_core

    core = load_core().anchors
    return Listed(core.name, len(core), False, True, measured)


def _write_or_unlink(path: Path, kind: str, body: Mapping[str, Any], anything_left: bool) -> None:
    if anything_left:
        write_pack(path, kind, body)
    else:
        _unlink(path)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise AssetError(f"{path}: cannot be removed ({error.strerror or error}); check its permissions") from error
