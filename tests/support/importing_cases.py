"""A folder of outcomes as `scope-edge import` reads it, and what is known after it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from scope_edge.estimation.fingerprints import load_fingerprints

LLAMA, CLAUDE = "llama-3.1-8b-instruct", "claude-3-haiku-20240307"
HEADER = "query_id,model,correct,prompt_tokens,completion_tokens,cost_usd"


def question(i: int) -> dict[str, Any]:
    kind = ("sums", "words")[i % 2]
    return {
        "id": f"q{i}",
        "text": f"Question {i}: what are {i + 2} plus {3 * i + 1}?",
        "category": kind,
        "source": "us",
    }


def folder(path: Path, rows: list[str], questions: list[dict[str, Any]] | None = None) -> Path:
    path.mkdir(exist_ok=True)
    lines = [json.dumps(one) for one in (questions or [question(i) for i in range(8)])]
    (path / "queries.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (path / "outcomes.csv.gz").write_bytes(gzip.compress("\n".join([HEADER, *rows, ""]).encode()))
    return path


def known(model: str, name: str = "mine") -> dict[str, tuple[float | None, float | None]]:
    """What is now known of a model on a set: anchor -> correct and tokens, None where missing."""
    one = next(part for part in load_fingerprints()[1][model] if part.anchors.name == name)
    plain = [[None if np.isnan(v) else round(float(v), 3) for v in row] for row in (one.correct, one.tokens)]
    return dict(zip(one.anchors.ids, zip(*plain, strict=True), strict=True))
