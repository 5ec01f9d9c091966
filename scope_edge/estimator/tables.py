"""Rows of outcomes out of Parquet, JSON lines or CSV. What a cell does not say is missing; what it cannot say is an error."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scope_edge.errors import AssetError, MissingExtraError

# In the order they are preferred in.
ENDINGS = (".parquet", ".jsonl", ".csv")
_COLUMNS = ("id", "prompt", "model_name", "is_correct", "category", "usage_completion_tokens")
_YES, _NO = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")


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
    tokens = _number(cells["usage_completion_tokens"], "usage_completion_tokens", where)
    correct = _correct(cells["is_correct"], where)
    if not tokens or tokens < 0:
        # An answer of no tokens was never given, so it is not a wrong one. A right one was, and was not counted.
        correct = (correct or None) if tokens == 0 else correct
        tokens = None
    return Row(
        id=_text(cells["id"], "id", where),
        prompt=_text(cells["prompt"], "prompt", where),
        model=_text(cells["model_name"], "model_name", where),
        correct=correct,
        category=str(cells["category"] or "unknown").strip(),
        tokens=tokens,
    )


def _text(value: object, column: str, where: str) -> str:
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not text.strip():
        raise AssetError(f"{where}: {column} is {str(value)[:60]!r}, expected text; give the dataset's own files")
    return text


def _correct(value: object, where: str) -> float | None:
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value.strip().lower() in (*_YES, *_NO):
        return float(value.strip().lower() in _YES)
    share = _number(value, "is_correct", where)
    if share is not None and not 0 <= share <= 1:
        raise AssetError(f"{where}: is_correct is {share:g}, expected true, false or a share from 0 to 1")
    return share


def _number(value: object, column: str, where: str) -> float | None:
    """A number; None for an empty cell or NaN."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "null", "none", "nan")):
        return None
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
            if not math.isinf(number):
                return None if math.isnan(number) else number
    raise AssetError(f"{where}: {column} is {str(value)[:60]!r}, expected a number or nothing")
