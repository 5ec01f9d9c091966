"""Labelled queries ("routing data"): read a folder of them, and import it as an anchor set with outcomes by model.

The folder holds `queries.jsonl.gz` (id, text, category, source, text_tokens) and `outcomes.csv.gz` (query_id, model, correct,
prompt_tokens, completion_tokens, cost_usd). Token counts are cl100k counts. An empty cell is unknown, never 0; all columns
but the first three of the outcomes are optional. Rows that are left out are counted, with the reason. The import ignores
costs, which follow from the card's prices.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scope_edge.encoding.unicode import load_json
from scope_edge.errors import AssetError
from scope_edge.estimation.refit import PlacedQuestion
from scope_edge.fingerprinting.importing.naming import Cards, check_model, set_name
from scope_edge.fingerprinting.importing.outcomes import (
    Material,
    Tally,
    keep,
    lines_of,
    number_of,
    outcome_of,
    text_of,
    unreadable,
)

if TYPE_CHECKING:
    from scope_edge.fingerprinting.importing.outcomes import Imported, Progress

QUERIES, OUTCOMES = "queries.jsonl.gz", "outcomes.csv.gz"
# Limits of a file, in characters: a small one may unpack to more than any memory holds.
MAX_QUERIES, MAX_OUTCOMES = 2**28, 2**31
_COLUMNS = ("query_id", "model", "correct")
_UNREADABLE = (EOFError, ValueError, RecursionError, csv.Error, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A query that models were measured on. text_tokens: cl100k tokens of the text; None = unknown."""

    id: str
    text: str
    category: str
    source: str
    text_tokens: float | None


@dataclass(frozen=True, slots=True)
class LabelledOutcome:
    """A model's outcome on one query; None = unknown. model: its name after `read_outcomes` mapped it."""

    query: str
    model: str
    correct: float | None
    prompt_tokens: float | None
    completion_tokens: float | None
    usd: float | None


def is_labelled(folder: Path) -> bool:
    """Return whether a folder looks like one of labelled queries."""
    return (folder / QUERIES).is_file()


def read_queries(folder: Path, dropped: Counter[str]) -> dict[str, LabelledQuery]:
    """Read the folder's queries by id, in order; blank ones are counted in `dropped`.

    Raises AssetError naming file and line, also when one id stands for two texts.
    """
    path = folder / QUERIES
    found: dict[str, LabelledQuery] = {}
    try:
        for number, line in enumerate(lines_of(path, MAX_QUERIES), 1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            row = load_json(line)
            if not isinstance(row, Mapping) or not {"id", "text"} <= row.keys():
                raise AssetError(f"{where}: expected an object with id and text; see docs/evaluation.md")
            if not isinstance(row["text"], str) or not row["text"].strip():
                dropped["blank questions"] += 1
                continue
            id = text_of(row["id"], "id", where)
            one = LabelledQuery(
                id=id,
                text=row["text"],
                category=str(row.get("category") or "unknown").strip(),
                source=str(row.get("source") or id).strip(),
                text_tokens=number_of(row.get("text_tokens"), "text_tokens", where),
            )
            if found.setdefault(one.id, one).text != one.text:
                raise AssetError(f"{where}: id {one.id[:60]!r} stands for two different texts; give each its own")
    except _UNREADABLE as error:
        raise unreadable(path, error) from error
    if not found:
        raise AssetError(f"{path}: has no question; is this the folder?")
    return found


def read_outcomes(folder: Path, name_of: Callable[[str, str], str]) -> Iterator[LabelledOutcome]:
    """Yield the folder's outcomes. name_of: (model as spelled, location for messages) -> its name.

    Raises AssetError naming file and row.
    """
    path = folder / OUTCOMES
    for where, cells in _rows(path):
        correct, tokens = outcome_of(cells, "correct", "completion_tokens", where)
        yield LabelledOutcome(
            query=str(cells["query_id"]),
            model=name_of(text_of(cells["model"], "model", where), where),
            correct=correct,
            prompt_tokens=number_of(cells.get("prompt_tokens"), "prompt_tokens", where),
            completion_tokens=tokens,
            usd=number_of(cells.get("cost_usd"), "cost_usd", where),
        )


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, str | None]]]:
    """Yield each row's location, for messages, and its cells. Raises AssetError."""
    try:
        reader = csv.DictReader(lines_of(path, MAX_OUTCOMES))
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise AssetError(f"{path}: has no column {missing[0]}; the columns needed are {', '.join(_COLUMNS)}")
        for number, cells in enumerate(reader, 1):
            if None in cells or None in cells.values():
                raise AssetError(f"{path}, row {number}: has more or fewer cells than the header; get a fresh copy")
            yield f"{path}, row {number}", cells
    except _UNREADABLE as error:
        raise unreadable(path, error) from error


def import_routing_data(
    folder: Path, cards: Cards, name: str | None = None, limit: int | None = None, progress: Progress | None = None
) -> Imported:
    """Import a folder as anchor set `name`, by default the folder's.

    Blank questions, and outcomes that are empty or of unknown questions, are dropped and counted; repeated measurements are
    averaged and counted. Raises AssetError naming file and row, and the errors of `keep`.
    """
    called = set_name(name or folder.resolve().name, "give --name")
    dropped: Counter[str] = Counter()
    questions = read_queries(folder, dropped)
    at = {id: i for i, id in enumerate(questions)}
    tally = Tally(len(questions))
    for one in read_outcomes(folder, lambda spelled, where: check_model(cards.known_as(spelled), where)):
        row = at.get(one.query)
        if row is None:
            dropped["outcomes of unknown or blank questions"] += 1
        elif one.correct is None and one.completion_tokens is None:
            dropped["outcomes that say nothing (missing)"] += 1
        else:
            tally.add(one.model, row, one.correct, one.completion_tokens)
    if not tally.models:
        raise AssetError(f"{folder / OUTCOMES}: has no outcome of these questions; is this the folder?")
    dropped["repeated outcomes, averaged"] = tally.repeated
    placed = tuple(PlacedQuestion(one.id, one.category, one.text) for one in questions.values())
    return keep(Material(str(folder), placed, tally, dropped), cards, called, limit, progress)
