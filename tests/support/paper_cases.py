"""Tables of the paper's form: a row for each question and model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

COLUMNS = (
    "id",
    "prompt",
    "model_name",
    "is_correct",
    "category",
    "gt",
    "usage_prompt_tokens",
    "usage_completion_tokens",
)
SUBJECTS = (
    "apples",
    "pears",
    "plums",
    "cherries",
    "grapes",
    "figs",
    "dates",
    "limes",
    "melons",
    "quinces",
    "kiwis",
    "nuts",
)
Cells = dict[str, Any]


def question(i: int) -> str:
    return f"A farmer has {i + 3} baskets with {2 * i + 5} {SUBJECTS[i]} each. How many {SUBJECTS[i]} are there in all?"


def table(*models: str, questions: int = 12, **cells: object) -> list[Cells]:
    """A row a question and model, all right in 100 tokens but for what `cells` says."""
    return [
        {
            "id": i,
            "prompt": question(i),
            "model_name": model,
            "is_correct": True,
            "category": "sums",
            "gt": str((i + 3) * (2 * i + 5)),
            "usage_prompt_tokens": 30,
            "usage_completion_tokens": 100,
            **cells,
        }
        for model in models
        for i in range(questions)
    ]


def parquet(path: Path, rows: list[Cells]) -> None:
    pa = pytest.importorskip("pyarrow")
    path.parent.mkdir(parents=True, exist_ok=True)
    pytest.importorskip("pyarrow.parquet").write_table(pa.Table.from_pylist(rows), path)


def jsonl(path: Path, rows: list[Cells]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def as_csv(path: Path, rows: list[Cells]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
