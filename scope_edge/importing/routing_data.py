"""A folder of labelled queries: `queries.jsonl.gz` (id, text, category) and `outcomes.csv.gz` (query_id, model, correct,
completion_tokens as cl100k counts; empty = unknown). Further fields are left alone: cost follows from the card's prices.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scope_edge.catalog import load_catalog
from scope_edge.config import load_settings
from scope_edge.errors import AssetError
from scope_edge.importing.cells import correct_of, given, number_of, text_of
from scope_edge.importing.lines import lines_of, unreadable
from scope_edge.importing.naming import Cards, check_model, set_name
from scope_edge.importing.outcomes import Material, Tally
from scope_edge.placing import Question

if TYPE_CHECKING:
    from scope_edge.importing.keeping import Progress
    from scope_edge.importing.outcomes import Imported

QUERIES, OUTCOMES = "queries.jsonl.gz", "outcomes.csv.gz"
# Characters of a file: a small one may unpack to more than any memory holds.
MAX_QUERIES, MAX_OUTCOMES = 2**28, 2**31
_COLUMNS = ("query_id", "model", "correct", "completion_tokens")
_UNREADABLE = (EOFError, ValueError, RecursionError, csv.Error, zlib.error, gzip.BadGzipFile)


def import_routing_data(
    folder: Path, name: str | None = None, limit: int | None = None, progress: Progress | None = None
) -> Imported:
    """Import a folder as anchor set `name`, by default the folder's. Raises as `read_routing_data` and `keep`."""
    from scope_edge.importing.keeping import keep

    called = set_name(name or folder.resolve().name, "give --name")
    return keep(read_routing_data(folder), called, limit, progress)


def read_routing_data(folder: Path) -> Material:
    """The folder's questions and outcomes.

    Dropped and counted: blank questions, outcomes of questions that are not there or whose `correct` is not known;
    repeated measurements are averaged, and counted too. Raises AssetError naming file and row.
    """
    dropped: Counter[str] = Counter()
    questions = _questions(folder / QUERIES, dropped)
    if not questions:
        raise AssetError(f"{folder / QUERIES}: has no question; is this the folder?")
    at = {id: i for i, id in enumerate(questions)}
    tally = Tally(len(questions))
    cards = Cards(load_catalog(load_settings()))
    path = folder / OUTCOMES
    for where, cells in _rows(path):
        name = check_model(cards.known_as(text_of(cells["model"], "model", where)), where)
        tokens = number_of(cells["completion_tokens"], "completion_tokens", where)
        correct, tokens = given(correct_of(cells["correct"], "correct", where), tokens)
        row = at.get(str(cells["query_id"]))
        if row is None:
            dropped["outcomes of unknown or blank questions"] += 1
        elif correct is None and tokens is None:
            dropped["outcomes that say nothing (missing)"] += 1
        else:
            tally.add(name, row, correct, tokens)
    if not tally.models:
        raise AssetError(f"{path}: has no outcome of these questions; is this the folder?")
    dropped["repeated outcomes, averaged"] = tally.repeated
    return Material(str(folder), tuple(questions.values()), tally, dropped)


def _questions(path: Path, dropped: Counter[str]) -> dict[str, Question]:
    """The questions by id, in order. Raises AssetError, also when one id stands for two texts."""
    found: dict[str, Question] = {}
    try:
        for number, line in enumerate(lines_of(path, MAX_QUERIES), 1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, Mapping) or not {"id", "text"} <= row.keys():
                raise AssetError(f"{where}: expected an object with id and text; see docs/fingerprints.md")
            if not isinstance(row["text"], str) or not row["text"].strip():
                dropped["blank questions"] += 1
                continue
            category = str(row.get("category") or "unknown").strip()
            one = Question(text_of(row["id"], "id", where), category, row["text"])
            if found.setdefault(one.id, one).text != one.text:
                raise AssetError(f"{where}: id {one.id[:60]!r} stands for two different texts; give each its own")
    except _UNREADABLE as error:
        raise unreadable(path, error) from error
    return found


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, str | None]]]:
    """Where a row stands, and its cells. Raises AssetError."""
    try:
        reader = csv.DictReader(lines_of(path, MAX_OUTCOMES))
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise AssetError(f"{path}: has no column {missing[0]}; the columns read are {', '.join(_COLUMNS)}")
        for number, cells in enumerate(reader, 1):
            if None in cells or None in cells.values():
                raise AssetError(f"{path}, row {number}: has more or fewer cells than the header; get a fresh copy")
            yield f"{path}, row {number}", cells
    except _UNREADABLE as error:
        raise unreadable(path, error) from error
