"""Anchors with text, and what models did on them, out of the datasets that the SCOPE paper published.

A dataset is a table with a row per question and model. Of its splits only `anchor` is read: the others are what routers are
scored on. Questions are placed on our map, so that a model measured on them is known to the prior as well, and their text
lets an estimator be shown them. Outcomes that are not known stay missing.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scope_edge.errors import AssetError, MissingExtraError, UsageError
from scope_edge.estimation.anchors import AnchorSet, set_body
from scope_edge.estimation.fingerprints import (
    OWN_FINGERPRINTS,
    OWN_SETS,
    Fingerprint,
    fingerprints_body,
    usable_anchor_sets,
)
from scope_edge.estimation.refit import PlacedQuestion, place
from scope_edge.fingerprinting.importing.naming import Cards, model_name, set_name
from scope_edge.fingerprinting.importing.outcomes import Imported, Tally
from scope_edge.fingerprinting.importing.table import correct_of, given, number_of, text_of
from scope_edge.storage import assets
from scope_edge.storage.hub import HubRepo, Progress, discard, fetch, is_hub_id, look_up
from scope_edge.storage.packs import write_pack

# Rows of outcomes out of Parquet, JSON lines or CSV. What a cell does not say is missing; what it cannot say is an error.

# In the order they are preferred in.
ENDINGS = (".parquet", ".jsonl", ".csv")
_COLUMNS = ("id", "prompt", "model_name", "is_correct", "category", "usage_completion_tokens")


@dataclass(frozen=True, slots=True)
class Row:
    """What one model did on one question. correct in [0, 1], tokens > 0 of the model's own; None = not known."""

    id: str
    prompt: str
    model: str
    correct: float | None
    category: str
    tokens: float | None


def read_rows(folder: Path, paths: Iterable[str]) -> list[Row]:
    """The rows of tables in a folder, in order. Raises AssetError naming file and row, MissingExtraError (pyarrow)."""
    rows: list[Row] = []
    for name in paths:
        path = folder / name
        try:
            for number, cells in enumerate(_cells(path), 1):
                rows.append(_row(cells, f"{path}, row {number}"))
        except OSError as error:
            raise AssetError(f"{path}: cannot be read ({error.strerror or error}); get a fresh copy") from error
        except (ValueError, RecursionError, csv.Error) as error:
            reason = " ".join(str(error).split())[:200]
            raise AssetError(f"{path}: not a readable table ({reason}); get a fresh copy") from error
    return rows


def _cells(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())
    else:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(f'Parquet needs pyarrow ({error}); pip install "scope-edge[hub]"') from error
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            columns = [name for name in _COLUMNS if name in table.schema_arrow.names]
            for batch in table.iter_batches(columns=columns):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def _row(cells: object, where: str) -> Row:
    """Check a row's cells. Raises AssetError naming the first that cannot be."""
    if not isinstance(cells, Mapping):
        raise AssetError(f"{where}: not a row with named columns; give the dataset's own files")
    missing = [name for name in _COLUMNS if name not in cells]
    if missing:
        raise AssetError(f"{where}: has no column {missing[0]}; the columns read are {', '.join(_COLUMNS)}")
    tokens = number_of(cells["usage_completion_tokens"], "usage_completion_tokens", where)
    correct, tokens = given(correct_of(cells["is_correct"], "is_correct", where), tokens)
    return Row(
        id=text_of(cells["id"], "id", where),
        prompt=text_of(cells["prompt"], "prompt", where),
        model=text_of(cells["model_name"], "model_name", where),
        correct=correct,
        category=str(cells["category"] or "unknown").strip(),
        tokens=tokens,
    )


# The paper's: 13 models, and 5 more that its estimator had not seen.
DATASETS = ("Cooolder/SCOPE-60K-final", "Cooolder/SCOPE-60K-OOD-final")
PAPER_MODELS = "Cooolder/SCOPE"
_SPLIT = re.compile(r"(?:^|[/_.-])anchors?(?:[/_.-]|$)", re.IGNORECASE)


def is_paper_model(source: str) -> bool:
    """Whether a source is one of the hub ids of the paper's estimators, SCOPE and its siblings."""
    return is_hub_id(source) and source.partition("@")[0].startswith(PAPER_MODELS)


def import_anchors(
    source: str, cards: Cards, progress: Progress | None = None, *, offline: str | None = None
) -> Imported:
    """Import the anchors of a dataset: a folder, or a hub id (OWNER/NAME or OWNER/NAME@REVISION).

    offline: what forbids a download; None = nothing does. Imported again, it replaces what it brought before.

    Raises UsageError (no such source), AssetError (no anchor split, a table that cannot be read or lacks a column, a disk
    that cannot be written), and what `look_up` and `fetch` raise.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _imported(_local_rows(folder), set_name(folder.resolve().name), str(folder), None, cards, progress)
    if not is_hub_id(source):
        raise UsageError(f"{source}: no such folder, and not a hub id (OWNER/NAME, or OWNER/NAME@REVISION)")
    repo = look_up(source, "dataset", offline=offline)
    paths = _anchor_files([file.path for file in repo.files], repo.id)
    rows = read_rows(fetch(repo, paths, progress), paths)
    imported = _imported(rows, set_name(repo.id.partition("/")[2]), repo.id, repo, cards, progress)
    discard(repo)
    return imported


def _local_rows(folder: Path) -> list[Row]:
    try:
        found = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    except OSError as error:
        raise AssetError(f"{folder}: cannot be read ({error.strerror or error}); check its permissions") from error
    return read_rows(folder, _anchor_files(found, str(folder)))


def _anchor_files(paths: Iterable[str], where: str) -> list[str]:
    """The tables of the anchor split, all of the first kind there is. Raises AssetError."""
    named = sorted(path for path in paths if _SPLIT.search(path))
    for ending in ENDINGS:
        chosen = [path for path in named if path.endswith(ending)]
        if chosen:
            return chosen
    raise AssetError(
        f"{where}: has no split `anchor` (a file anchor*{', anchor*'.join(ENDINGS)}); is this the dataset?"
    )


def _imported(
    rows: list[Row], name: str, source: str, repo: HubRepo | None, cards: Cards, progress: Progress | None
) -> Imported:
    """Place the questions, write the set unless it is there, and the outcomes."""
    if not rows:
        raise AssetError(f"{source}: its anchor split is empty; is this the dataset?")
    questions = _questions(rows, source)
    anchors = _same_questions(questions, name)
    joined = anchors is not None
    about = {"source": source, "revision": repo.commit if repo else "", "licence": (repo.licence or "") if repo else ""}
    files: list[Path] = []
    if anchors is None:
        wanted = [PlacedQuestion(id, row.category, row.prompt) for id, row in questions.items()]
        anchors = place(name, wanted, progress, own=True)
        files.append(assets.user_data_dir() / OWN_SETS / f"{name}.pack")
        write_pack(files[-1], "anchor-sets", {"sets": [set_body(anchors)], **about})
    prints = _fingerprints(rows, anchors, cards)
    files.append(assets.user_data_dir() / OWN_FINGERPRINTS / f"{name}.pack")
    write_pack(files[-1], "fingerprints", {**fingerprints_body({anchors.name: prints}), **about})
    known = sum(int(np.isfinite(one.correct).sum()) for one in prints)
    return Imported(
        source=source,
        anchor_set=anchors.name,
        joined=joined,
        anchors=len(anchors),
        models=tuple(one.model for one in prints if one.model in cards),
        strangers=tuple(one.model for one in prints if one.model not in cards),
        outcomes=known,
        missing=len(prints) * len(anchors) - known,
        files=tuple(files),
    )


def _questions(rows: Sequence[Row], source: str) -> dict[str, Row]:
    """A row of each question, by id. Raises AssetError when one id stands for two texts."""
    found: dict[str, Row] = {}
    for row in rows:
        if found.setdefault(row.id, row).prompt != row.prompt:
            raise AssetError(f"{source}: id {row.id!r} stands for two different prompts; the table is not usable")
    return found


def _same_questions(questions: Mapping[str, Row], name: str) -> AnchorSet | None:
    """The user's other set that holds these very questions: models measured on one set can be compared."""
    for one in usable_anchor_sets():
        if one.own and one.name != name and len(one.texts) == len(one):
            texts = dict(zip((id.partition("/")[2] for id in one.ids), one.texts, strict=True))
            if all(texts.get(id) == row.prompt for id, row in questions.items()):
                return one
    return None


def _fingerprints(rows: Sequence[Row], anchors: AnchorSet, cards: Cards) -> list[Fingerprint]:
    """One a model, in the table's order. Repeated measurements of a pair are averaged."""
    at = {id.partition("/")[2]: i for i, id in enumerate(anchors.ids)}
    tally = Tally(len(anchors))
    for row in rows:
        tally.add(cards.known_as(model_name(row.model)), at[row.id], row.correct, row.tokens)
    found: list[Fingerprint] = []
    for model in tally.models:
        correct, tokens = tally.of(model)
        # Counted in the model's own tokens; fingerprints count cl100k, and a card says how many its own are worth.
        found.append(Fingerprint(model, anchors, correct, tokens / cards.token_factor(model)))
    return found
