"""The user's fingerprints and anchor sets: listed, and removed without leaving references to removed ones.

Every file is changed in one step. Outcomes go before their anchors, so that the rest stays readable after an interruption.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scope_edge.catalog.cards import nearest
from scope_edge.errors import AssetError, PackError, UsageError
from scope_edge.estimation.anchor_spec import load_core
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
    """An anchor set, or the fingerprints on a missing one.

    Attributes:
        anchors: how many; None = the set is missing, or its pack is damaged. own: whether it is the user's.
        with_text: whether it has its questions. measured: models of the user's fingerprints on it.
    """

    name: str
    anchors: int | None
    own: bool
    with_text: bool
    measured: tuple[str, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class RemovalSummary:
    """Removed fingerprints (model, anchor set); files deleted or rewritten; files of answers that are left."""

    fingerprints: tuple[tuple[str, str], ...]
    files: tuple[Path, ...]
    left: tuple[Path, ...] = ()


def list_sets() -> tuple[Listed, ...]:
    """Return every anchor set, the bundled ones first; missing sets that still have outcomes last. Raises AssetError."""
    measured: dict[str, list[str]] = {}
    for model, name, _ in _own_fingerprints():
        measured.setdefault(name, []).append(model)
    found = [
        Listed(one.name, len(one), one.own, bool(one.texts), tuple(measured.pop(one.name, ())))
        for one in usable_anchor_sets()
    ]
    if ASKED not in {one.name for one in found}:
        core = load_core().anchors
        found.append(Listed(core.name, len(core), False, True, tuple(measured.pop(ASKED, ()))))
    for name, problem in _damaged_sets().items():
        found.append(Listed(name, None, True, False, tuple(measured.pop(name, ())), problem))
    found += _feedback_set()
    missing = "is missing; outcomes on it are not used"
    found += [Listed(name, None, True, False, tuple(models), missing) for name, models in measured.items()]
    return tuple(found)


def remove_set(name: str) -> RemovalSummary:
    """Delete a user's anchor set and the fingerprints on it. Raises UsageError, AssetError."""
    known = {one.name: one for one in list_sets()}
    if name not in known:
        raise UsageError(f"no anchor set {name!r}{nearest(name, known)}; `scope-edge anchors list` shows them")
    if not known[name].own:
        raise UsageError(
            f"{name} is bundled and stays; `scope-edge anchors forget MODEL --on {name}` removes outcomes on it"
        )
    if name == FEEDBACK:
        return _remove_feedback(None)
    removed = _remove_fingerprints(None, name)
    files = [*removed.files]
    for path in own_packs(OWN_SETS):
        body = _body(path, _SETS)
        if body is None:
            if path.stem == name:
                _unlink(path)
                files.append(path)
            continue
        rows = [row for row in body["sets"] if row["name"] != name]
        if len(rows) < len(body["sets"]):
            _write_or_unlink(path, _SETS, {**body, "sets": rows})
            files.append(path)
    return RemovalSummary(removed.fingerprints, tuple(files))


def forget(model: str, anchor_set: str | None = None, *, answers: bool = False) -> RemovalSummary:
    """Delete the user's fingerprints of a model, on one set or all.

    answers: delete its answer logs, too, from which `scope-edge fingerprint` would restore the fingerprint without asking.
    Raises UsageError if there is nothing to delete, AssetError if a file cannot be deleted.
    """
    removed = _remove_fingerprints(model, anchor_set)
    feedback = _remove_feedback(model) if anchor_set in (None, FEEDBACK) else RemovalSummary((), ())
    logs = journals_of(model) if anchor_set in (None, ASKED) else ()
    deleted = logs if answers else ()
    for path in deleted:
        _unlink(path)
    files = (*removed.files, *feedback.files, *deleted)
    if not files:
        where = "" if anchor_set is None else f" on {anchor_set}"
        bundled = model in fingerprint_names()
        hint = "; bundled ones stay" if bundled else nearest(model, {one for one, _, _ in _own_fingerprints()})
        raise UsageError(f"{model} has no fingerprint of yours{where}{hint}")
    return RemovalSummary((*removed.fingerprints, *feedback.fingerprints), files, () if answers else logs)


def own_sets_of(model: str) -> tuple[str, ...]:
    """Return the anchor sets with the user's outcomes of a model. Raises AssetError."""
    feedback = [FEEDBACK] if any(model in one.measured for one in _feedback_set()) else []
    return (*(name for one, name, _ in _own_fingerprints() if one == model), *feedback)


def journals_of(model: str) -> tuple[Path, ...]:
    """Return the answer logs of a model."""
    try:
        near = sorted((assets.user_data_dir() / JOURNALS).glob(f"{file_name(model)}-*.jsonl"))
    except OSError:
        return ()
    return tuple(path for path in near if _asked_of(path) == model)


def _asked_of(path: Path) -> object:
    """Return the model of an answer log; another model's name may begin the same."""
    try:
        with path.open("rb") as file:
            head = json.loads(file.readline(65_536))
    except (OSError, ValueError, RecursionError):
        return None
    return head.get("model") if isinstance(head, dict) else None


def _own_fingerprints() -> Iterator[tuple[str, str, Path]]:
    """Yield (model, anchor set, file) of the user's undamaged packs."""
    for path in own_packs(OWN_FINGERPRINTS):
        body = _body(path, _FINGERPRINTS)
        for name, part in ({} if body is None else body["sets"]).items():
            yield from ((model, name, path) for model in part["models"])


def _remove_fingerprints(model: str | None, anchor_set: str | None) -> RemovalSummary:
    """Delete the user's outcomes of a model (None = of all) on a set (None = on all)."""
    gone: list[tuple[str, str]] = []
    files: list[Path] = []
    for path in own_packs(OWN_FINGERPRINTS):
        body = _body(path, _FINGERPRINTS)
        if body is None:
            continue
        kept: dict[str, Any] = {}
        before = len(gone)
        for name, part in body["sets"].items():
            meant = [model in (None, one) and anchor_set in (None, name) for one in part["models"]]
            rows = [i for i, out in enumerate(meant) if not out]
            gone += [(one, name) for one, out in zip(part["models"], meant, strict=True) if out]
            if rows:
                kept[name] = {column: part[column][rows] for column in ("correct", "tokens")}
                kept[name]["models"] = [part["models"][i] for i in rows]
        if len(gone) > before:
            _write_or_unlink(path, _FINGERPRINTS, {**body, "sets": kept})
            files.append(path)
    return RemovalSummary(tuple(gone), tuple(files))


def _feedback_set() -> list[Listed]:
    """Return the user's feedback as an anchor set; empty without feedback."""
    held = load_feedback()
    if not held.said and held.ignored is None:
        return []
    models = tuple(dict.fromkeys(one.model for one in held.said))
    return [Listed(FEEDBACK, None if held.ignored else len(held.said), True, False, models, held.ignored)]


def _remove_feedback(model: str | None) -> RemovalSummary:
    """Delete the feedback on a model (None = on all)."""
    listed = _feedback_set()
    with Journal() as journal:
        said = forget_feedback(journal, None if model is None else lambda one: one.model == model)
    models = dict.fromkeys(one.model for one in said)
    changed = bool(said) or (model is None and bool(listed))
    return RemovalSummary(tuple((one, FEEDBACK) for one in models), (held_file(),) if changed else ())


def _body(path: Path, kind: str) -> Mapping[str, Any] | None:
    """Return a pack's body, or None if it is damaged."""
    try:
        body = read_pack(path, kind)
    except PackError:
        return None
    sound = isinstance(body.get("sets"), list if kind == _SETS else dict)
    return body if sound else None


def _damaged_sets() -> dict[str, str]:
    """Return set name -> problem of damaged packs; a pack has the name of its set."""
    usable = {one.name for one in usable_anchor_sets()}
    damaged = [path for path in own_packs(OWN_SETS) if path.stem not in usable]
    if not damaged:
        return {}
    try:
        load_anchor_sets()
    except PackError as error:
        return {path.stem: f"{path}: damaged" if str(path) not in str(error) else str(error) for path in damaged}
    return {}


def _write_or_unlink(path: Path, kind: str, body: Mapping[str, Any]) -> None:
    if body["sets"]:
        write_pack(path, kind, body)
    else:
        _unlink(path)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise AssetError(f"{path}: cannot be removed ({error.strerror or error}); check its permissions") from error
