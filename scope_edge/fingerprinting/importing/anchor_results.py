"""`anchor_results.json` of the SCOPE paper's reference implementation: what one model did on anchors that are here already.

A list of objects with id, is_correct and usage.completion_tokens. The folder it lies in is called after the model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.errors import AssetError, UsageError
from scope_edge.estimation.fingerprints import Fingerprint, usable_anchor_sets
from scope_edge.fingerprinting.importing.naming import Cards, check_model
from scope_edge.fingerprinting.importing.outcomes import Imported, Tally
from scope_edge.fingerprinting.importing.share import is_here
from scope_edge.fingerprinting.importing.table import correct_of, given, number_of, text_of
from scope_edge.fingerprinting.run import save_fingerprint

if TYPE_CHECKING:
    from scope_edge.estimation.anchors import AnchorSet

FILE = "anchor_results.json"
MAX_BYTES = 2**28


def import_anchor_results(
    path: Path, cards: Cards, model: str | None = None, name: str | None = None, *, replace_own: bool = False
) -> Imported:
    """Import one model's results: the file, or the folder it lies in.

    model: by default as the folder is called. name: of the user's anchor set they were measured on, by default the only one
    that has one of their ids. Raises UsageError (no such set, several; other outcomes are here), AssetError naming the row.
    """
    file = path / FILE if path.is_dir() else path
    rows = _rows(file)
    known_as = _model(model, file, cards)
    anchors = _measured_on({str(row["id"]) for row in rows}, name, file)
    dropped: Counter[str] = Counter()
    tally = Tally(len(anchors))
    at = {id.partition("/")[2]: i for i, id in enumerate(anchors.ids)}
    for number, row in enumerate(rows, 1):
        where = f"{file}, row {number}"
        correct, tokens = _outcome(row, where)
        question = at.get(text_of(row["id"], "id", where))
        asked = row.get("prompt")
        if question is None:
            dropped["outcomes of unknown anchors"] += 1
        elif isinstance(asked, str) and anchors.texts and asked != anchors.texts[question]:
            dropped["outcomes of anchors with another text"] += 1
        else:
            dropped["outcomes that say nothing (missing)"] += correct is None
            tally.add(known_as, question, correct, tokens)
    if known_as not in tally.models or np.isnan(tally.of(known_as)[0]).all():
        raise AssetError(f"{file}: has no outcome on the anchors of {anchors.name}; is this the file?")
    dropped["repeated outcomes, averaged"] = tally.repeated
    correct_ones, own_tokens = tally.of(known_as)
    one = Fingerprint(known_as, anchors, correct_ones, own_tokens / cards.token_factor(known_as))
    return _kept(one, file, dropped, replace_own=replace_own, has_card=known_as in cards)


def looks_like_results(path: Path) -> bool:
    """Whether it is such a file, or a folder with one: by its name, which the reference implementation fixes."""
    return (path.is_file() and path.name == FILE) or (path / FILE).is_file()


def _model(model: str | None, file: Path, cards: Cards) -> str:
    """The model as it is known here: as named, else as the folder is called, in which a / is written _."""
    folder = cards.known_as(file.resolve().parent.name)
    named = cards.known_as(model or (folder if folder in cards else folder.replace("_", "/", 1)))
    return check_model(named, f"{file}, --model or the folder's name")


def _outcome(row: Mapping[str, Any], where: str) -> tuple[float | None, float | None]:
    """Correct and own tokens; None where they are not told. Raises AssetError."""
    usage = row.get("usage")
    counted = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    correct = correct_of(row.get("is_correct"), "is_correct", where)
    return given(correct, number_of(counted, "completion_tokens", where))


def _kept(one: Fingerprint, file: Path, dropped: Counter[str], *, replace_own: bool, has_card: bool) -> Imported:
    files: tuple[Path, ...] = ()
    if is_here(one, str(file), replace_own=replace_own):
        dropped["fingerprint, which is here already"] = 1
    else:
        files = (save_fingerprint(one, {"source": str(file)}, "scope-edge import"),)
    known = int(np.isfinite(one.correct).sum())
    return Imported(
        source=str(file),
        anchor_set=one.anchors.name,
        joined=True,
        anchors=len(one.anchors),
        models=(one.model,) if has_card else (),
        strangers=() if has_card else (one.model,),
        outcomes=known,
        missing=len(one.anchors) - known,
        files=files,
        dropped={reason: n for reason, n in dropped.items() if n},
    )


def _rows(file: Path) -> list[Mapping[str, Any]]:
    try:
        with file.open("rb") as opened:
            blob = opened.read(MAX_BYTES + 1)
        rows = json.loads(blob) if len(blob) <= MAX_BYTES else None
    except OSError as error:
        raise AssetError(f"{file}: cannot be read ({error.strerror or error}); is this the file?") from error
    except (ValueError, RecursionError) as error:
        raise AssetError(f"{file}: cannot be read ({' '.join(str(error).split())[:200]}); get a fresh copy") from error
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) and "id" in row for row in rows):
        raise AssetError(f"{file}: expected a list of objects with id, of {MAX_BYTES} bytes at most; is this the file?")
    return rows


def _measured_on(ids: set[str], name: str | None, file: Path) -> AnchorSet:
    """The user's set that has these anchors. Raises UsageError: none has, or several and none is named."""
    own = [one for one in usable_anchor_sets() if one.own and name in (None, one.name)]
    found = [one for one in own if ids & {id.partition("/")[2] for id in one.ids}]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{file}: {', '.join(one.name for one in found)} have such anchors; --name says which are meant"
        )
    raise UsageError(
        f"{file}: its anchors are not here{'' if name is None else f' in {name!r}'};"
        " `scope-edge estimator anchors Cooolder/SCOPE-60K-final` gets the paper's"
    )
