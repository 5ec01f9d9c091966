"""Rows of outcomes out of Parquet, JSON lines or CSV. What a cell does not say is missing; what it cannot say is an error."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scope_edge.errors import AssetError, MissingExtraError
from scope_edge.importing.cells import correct_of, given, number_of, text_of

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
