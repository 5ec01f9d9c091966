"""All routing data as one table: every set's queries side by side, models merged by the alias table, texts embedded."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tomllib
from routing_data import read_set

from scope_edge.difficulty import text_features
from scope_edge.encoder import Encoder
from scope_edge.records import Query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ALIASES = Path(__file__).resolve().parent / "aliases.toml"


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """n queries of all sets, and what `models` did on them.

    Attributes:
        base: (models,) base models: they teach difficulty and are nobody's candidates.
        correct, tokens: (models, n), NaN = missing. sets: (n,) index into `set_names`.
        groups: (n,) what a split must not straddle. vectors: (n, d) float32; features: (n, FEATURES).
    """

    models: NDArray[np.str_]
    base: NDArray[np.bool_]
    correct: NDArray[np.float64]
    tokens: NDArray[np.float64]
    set_names: tuple[str, ...]
    sets: NDArray[np.int64]
    ids: NDArray[np.str_]
    groups: NDArray[np.str_]
    categories: NDArray[np.str_]
    text_tokens: NDArray[np.float64]
    vectors: NDArray[np.float32]
    features: NDArray[np.float64]

    def take(self, models: NDArray[np.bool_], queries: NDArray[np.bool_]) -> Pooled:
        """Only these models and queries."""
        by_model, by_both = ("models", "base"), ("correct", "tokens")
        parts = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in by_both:
                value = value[np.ix_(models, queries)]
            elif field.name != "set_names":
                value = value[models if field.name in by_model else queries]
            parts[field.name] = value
        return Pooled(**parts)


def read_pooled(folders: Sequence[Path], cache: Path | None = None) -> Pooled:
    """Read and embed; embeddings are kept in `cache` by hash of the text, since they take half an hour on two cores."""
    table = tomllib.loads(ALIASES.read_text("utf-8"))["models"]
    rename = {name: model for model, entry in table.items() for name in entry["names"]}
    parts = [read_set(folder, rename) for folder in folders]
    models = sorted({model for part in parts for model in part.models})
    row = {model: i for i, model in enumerate(models)}
    n = sum(len(part.ids) for part in parts)
    correct, tokens = np.full((2, len(models), n), np.nan)
    at = 0
    for part in parts:
        where = np.ix_([row[model] for model in part.models], range(at, at + len(part.ids)))
        correct[where], tokens[where] = part.correct, part.tokens
        at += len(part.ids)
    texts = [text for part in parts for text in part.texts]
    return Pooled(
        models=np.array(models),
        base=np.array([bool(table.get(model, {}).get("base")) for model in models]),
        correct=correct,
        tokens=tokens,
        set_names=tuple(part.name for part in parts),
        sets=np.repeat(np.arange(len(parts)), [len(part.ids) for part in parts]),
        ids=np.array([i for part in parts for i in part.ids]),
        groups=np.array([f"{part.name}:{group}" for part in parts for group in part.groups]),
        categories=np.array([f"{part.name}/{category}" for part in parts for category in part.categories]),
        text_tokens=np.concatenate([part.text_tokens for part in parts]),
        vectors=embed(texts, cache),
        features=np.array([text_features(text) for text in texts]),
    )


def embed(texts: Sequence[str], cache: Path | None) -> NDArray[np.float32]:
    """Unit vectors (n, d) of texts, from the cache (.npz: keys, vectors) where they are there."""
    encoder = Encoder.load()
    keys = [hashlib.sha256(f"{encoder.identity}:{text}".encode("utf-8", "surrogatepass")).hexdigest() for text in texts]
    known: dict[str, NDArray[np.float32]] = {}
    if cache is not None and cache.exists():
        with np.load(cache) as stored:
            known = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))
    missing = [i for i, key in enumerate(keys) if key not in known]
    for done, encoded in enumerate(encoder.encode_many(Query(texts[i]) for i in missing)):
        known[keys[missing[done]]] = encoded.vector
        if done % 1000 == 0:
            print(f"embedded {done} of {len(missing)}", file=sys.stderr, flush=True)
    vectors = np.array([known[key] for key in keys], np.float32)
    if cache is not None and missing:
        np.savez(cache, keys=np.array(keys), vectors=vectors)
    return vectors
