"""Small labelled data whose truth is known: questions of five kinds, harder from kind to kind, and models of every ability."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Kind -> (difficulty in logits, a question with a blank for a number, typical tokens of an answer).
KINDS: Mapping[str, tuple[float, str, int]] = {
    "sums": (-2.0, "What is {a} plus {b}?", 20),
    "spelling": (
        -1.0,
        "How many letters has the word that stands for the number {a}, and which is letter {b} of it?",
        40,
    ),
    "history": (0.0, "Which ruler reigned in the year {a} after the siege of the city on the river, {b} years on?", 90),
    "code": (1.0, "def f(n):\n    return n * {a} if n % {b} else f(n // 2)\nWhat does f({a}) return?", 160),
    "proofs": (2.0, "Prove that no prime above {a} divides the sum of the first {b} cubes plus one.", 400),
}
# Model -> ability in logits. The first four are cards of the default pool, with their prices.
ABILITIES: Mapping[str, float] = {
    "gemma-2-2b-it": -1.5,
    "llama-3.1-8b-instruct": -0.2,
    "llama-3.1-70b-instruct": 1.0,
    "llama-3.1-405b-instruct": 2.0,
    **{f"other-{i}": -2.0 + 0.4 * i for i in range(11)},
}


@dataclass(frozen=True, slots=True)
class Labelled:
    """Queries (rows of queries.jsonl) and outcomes (rows of outcomes.csv)."""

    queries: tuple[Mapping[str, object], ...]
    outcomes: tuple[Mapping[str, object], ...]

    def write(self, folder: Path) -> Path:
        """The folder, written."""
        folder.mkdir(parents=True, exist_ok=True)
        with gzip.open(folder / "queries.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in self.queries)
        with gzip.open(folder / "outcomes.csv.gz", "wt", encoding="utf-8", newline="") as file:
            names = ["query_id", "model", "correct", "prompt_tokens", "completion_tokens", "cost_usd"]
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.outcomes)
        return folder

    def only(self, *, queries: Iterable[str] | None = None, models: Iterable[str] | None = None) -> Labelled:
        """Only these queries, and outcomes of these models on them."""
        ids = {str(row["id"]) for row in self.queries} if queries is None else set(queries)
        kept = None if models is None else set(models)
        return Labelled(
            tuple(row for row in self.queries if row["id"] in ids),
            tuple(row for row in self.outcomes if row["query_id"] in ids and (kept is None or row["model"] in kept)),
        )


def labelled(queries: int = 200, *, models: Sequence[str] = tuple(ABILITIES), seed: int = 0) -> Labelled:
    """So many queries, evenly of every kind; each model right with the probability its ability and the kind give."""
    rng = np.random.default_rng(seed)
    rows, outcomes = [], []
    for i in range(queries):
        kind = list(KINDS)[i % len(KINDS)]
        difficulty, form, length = KINDS[kind]
        text = form.format(a=int(rng.integers(11, 9999)), b=int(rng.integers(3, 97)))
        rows.append({"id": f"q{i}", "text": f"{text} ({i})", "category": kind, "source": f"made/{kind}"})
        for model in models:
            p = 1 / (1 + np.exp(-1.7 * (ABILITIES[model] - difficulty + 0.3 * rng.normal())))
            outcomes.append(
                {
                    "query_id": f"q{i}",
                    "model": model,
                    "correct": int(rng.random() < p),
                    "completion_tokens": int(length * np.exp(0.3 * rng.normal())) + 1,
                }
            )
    return Labelled(tuple(rows), tuple(outcomes))
