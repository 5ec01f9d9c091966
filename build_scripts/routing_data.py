"""Read labelled queries in the routing data format: one folder a set, outcomes as a models x queries matrix.

Empty fields are missing (NaN), never zero. Question texts are read to be embedded and are never written anywhere.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

# Sets whose rows come in families (a rule, a task) with near-identical texts: these are split by family, never by row.
GROUPED = frozenset({"kor_bench", "reasoning_gym"})


@dataclass(frozen=True, slots=True)
class RoutingSet:
    """One set of labelled queries.

    Attributes:
        correct, tokens: shape (models, queries), float64, NaN = missing; tokens are cl100k completion tokens.
        groups: what a split must not straddle: the query's `source` in grouped sets, else its id.
    """

    name: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    categories: tuple[str, ...]
    sources: tuple[str, ...]
    text_tokens: NDArray[np.float64]
    models: tuple[str, ...]
    correct: NDArray[np.float64]
    tokens: NDArray[np.float64]

    @property
    def groups(self) -> tuple[str, ...]:
        return self.sources if self.name in GROUPED else self.ids


def read_set(folder: Path, rename: Mapping[str, str] | None = None) -> RoutingSet:
    """Read one folder; `rename` maps "set:model as spelled" to a canonical id, merging what it maps to the same id."""
    with gzip.open(folder / "queries.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    column = {row["id"]: i for i, row in enumerate(rows)}
    with gzip.open(folder / "outcomes.csv.gz", "rt", encoding="utf-8", newline="") as file:
        outcomes = list(csv.DictReader(file))
    names = {
        spelled: (rename or {}).get(f"{folder.name}:{spelled}", spelled) for spelled in {o["model"] for o in outcomes}
    }
    models = tuple(sorted(set(names.values())))
    row_of = {model: i for i, model in enumerate(models)}
    shape = (len(models), len(rows))
    # Several spellings of one model are averaged over what each of them measured.
    sums, counts = np.zeros((2, *shape)), np.zeros((2, *shape))
    for outcome in outcomes:
        at = row_of[names[outcome["model"]]], column[outcome["query_id"]]
        for k, field in enumerate(("correct", "completion_tokens")):
            if outcome[field] != "":
                sums[(k, *at)] += float(outcome[field])
                counts[(k, *at)] += 1
    with np.errstate(invalid="ignore"):
        correct, tokens = np.where(counts > 0, sums / counts, np.nan)
    return RoutingSet(
        name=folder.name,
        ids=tuple(row["id"] for row in rows),
        texts=tuple(row["text"] for row in rows),
        categories=tuple(row["category"] for row in rows),
        sources=tuple(row["source"] for row in rows),
        text_tokens=np.array([row["text_tokens"] for row in rows], dtype=np.float64),
        models=models,
        correct=correct,
        tokens=tokens,
    )


def held_out(name: str, keys: Sequence[str], seed: int, share: float) -> NDArray[np.bool_]:
    """Which keys a seed holds out: sha256 of "seed:set:key" below `share`. A fixed rule, not a draw."""
    digests = (hashlib.sha256(f"{seed}:{name}:{key}".encode()).digest()[:8] for key in keys)
    return np.array([int.from_bytes(d, "big") < share * 2.0**64 for d in digests])
