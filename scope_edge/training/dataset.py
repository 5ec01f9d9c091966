"""Labelled queries of one or more sets as one table: models under one name, texts as vectors, near copies in groups."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.encoding.multilingual import DIMENSION
from scope_edge.encoding.token_count import estimate_prompt_tokens
from scope_edge.errors import AssetError, PackError, UsageError
from scope_edge.estimation.difficulty import text_features
from scope_edge.fingerprinting.importing.naming import Cards, check_model
from scope_edge.fingerprinting.importing.routing_data import LabelledOutcome, LabelledQuery, read_outcomes, read_queries
from scope_edge.storage.packs import read_pack, write_pack
from scope_edge.training.known_sets import known_sets
from scope_edge.types import Query

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.catalog.cards import Catalog
    from scope_edge.encoding.encoder import Encoder
    from scope_edge.policy.costs import Bools
    from scope_edge.types import Floats, Vector

    Ints = NDArray[np.int64]
    Progress = Callable[[str, int, int], None]

# A reviewed table of the spellings of models in sets of labelled queries.
_TABLE = Path(__file__).resolve().parent / "aliases.toml"
# A cosine that near copies of a query reach and paraphrases do not.
_COPY = 0.9
# How names of no real models begin: a set's own labels, written like outcomes.
PSEUDO = "*"
_BY_MODEL = ("models", "base")
_BY_BOTH = ("correct", "tokens", "prompt_tokens", "usd")


@cache
def _aliases() -> tuple[dict[str, str], frozenset[str]]:
    """Return ("set:spelling" -> id, ids of base models), from aliases.toml."""
    table = tomllib.loads(_TABLE.read_text("utf-8"))["models"]
    spelled = {name: model for model, entry in table.items() for name in entry["names"]}
    return spelled, frozenset(model for model, entry in table.items() if entry.get("base"))


def is_base(model: str) -> bool:
    """Return whether a model is a base model: it teaches difficulty, but no query is routed to it."""
    return model in _aliases()[1] or model.lower().endswith(("-base", "-base-3shot"))


def naming(set_name: str, catalog: Catalog) -> Callable[[str, str], str]:
    """Return a function (spelling in the set, place for errors) -> id, which raises AssetError for an impossible name."""
    spelled, cards = _aliases()[0], Cards(catalog)

    def name_of(model: str, where: str) -> str:
        return check_model(spelled.get(f"{set_name}:{model}") or cards.known_as(model), where)

    return name_of


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """n queries of all sets, and the models' outcomes on them.

    Attributes:
        base: (models,) base models: they teach difficulty and are not candidates.
        correct, tokens, prompt_tokens, usd: (models, n), NaN = missing; tokens are cl100k counts, usd the cost of a call.
        sets: (n,) index into `set_names`. domains: (n,) index into `domain_names`. ids: (n,) within the set. texts: (n,).
        task: (n,) index into TASKS, -1 = unlabelled. expected: (n, 2) difficulty and log-length that an expert expects, NaN = unset.
        groups: (n,) families that a split keeps together. text_tokens: (n,) cl100k tokens, estimated if not counted.
        vectors, states: (n, d) float32; multilingual: (n, 512) float32, unit vectors; features: (n, FEATURES).
    """

    models: NDArray[np.str_]
    base: Bools
    correct: Floats
    tokens: Floats
    prompt_tokens: Floats
    usd: Floats
    set_names: tuple[str, ...]
    sets: Ints
    domain_names: tuple[str, ...]
    domains: Ints
    ids: NDArray[np.str_]
    texts: NDArray[np.object_]
    groups: NDArray[np.object_]
    categories: NDArray[np.str_]
    task: Ints
    expected: Floats
    text_tokens: Floats
    vectors: Vector
    states: Vector
    multilingual: Vector
    features: Floats

    def take(self, models: Bools, queries: Bools | NDArray[np.intp]) -> Pooled:
        """Return only these models, by mask, and queries, by mask or index."""
        parts = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _BY_BOTH:
                value = value[np.ix_(models, queries)]
            elif field.name not in ("set_names", "domain_names"):
                value = value[models if field.name in _BY_MODEL else queries]
            parts[field.name] = value
        return Pooled(**parts)

    def __len__(self) -> int:
        return len(self.ids)

    def encoded(self, queries: slice | NDArray[np.intp]) -> tuple[Vector, Vector, Vector, Floats]:
        """Return what the map reads of these queries: vectors, states, multilingual vectors, features."""
        return self.vectors[queries], self.states[queries], self.multilingual[queries], self.features[queries]


@dataclass(frozen=True, slots=True)
class Source:
    """A set's name and folders; later folders add queries and outcomes to the first."""

    name: str
    folders: tuple[Path, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PooledReading:
    """The result of reading sets.

    Attributes:
        first: (n,) queries of a source's first folder. first_models: models with an outcome there.
        dropped: reason -> number of left-out entries.
    """

    data: Pooled
    first: Bools
    first_models: frozenset[str]
    dropped: Counter[str]


def read_pooled(
    sources: Sequence[Source],
    catalog: Catalog,
    encoder: Encoder,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> PooledReading:
    """Read and encode sets of labelled queries. Raises AssetError (unreadable files), UsageError (no outcome left)."""
    dropped: Counter[str] = Counter()
    queries: list[tuple[int, int, LabelledQuery]] = []
    rows: list[tuple[int, int, LabelledOutcome]] = []
    for number, source in enumerate(sources):
        at: dict[str, int] = {}
        name_of = naming(source.name, catalog)
        for turn, folder in enumerate(source.folders):
            for one in read_queries(folder, dropped).values():
                if at.setdefault(one.id, len(queries)) == len(queries):
                    queries.append((number, turn, one))
                elif queries[at[one.id]][2].text != one.text:
                    raise UsageError(f"{folder}: query {one.id!r} has another text in {source.folders[0]}; rename it")
            for row in read_outcomes(folder, name_of):
                if row.model.startswith(PSEUDO):
                    dropped["outcomes of pseudo-models"] += 1
                elif row.query in at:
                    rows.append((at[row.query], turn, row))
                else:
                    dropped["outcomes of unknown or blank questions"] += 1
    if not rows:
        raise UsageError(f"{sources[0].folders[0]}: has no outcome of its queries; is this the folder?")
    return PooledReading(
        data=_table(sources, queries, rows, embed([one.text for *_, one in queries], encoder, cache, progress)),
        first=np.array([turn == 0 for _, turn, _ in queries], bool),
        first_models=frozenset(row.model for _, turn, row in rows if turn == 0),
        dropped=dropped,
    )


def _table(
    sources: Sequence[Source],
    queries: Sequence[tuple[int, int, LabelledQuery]],
    rows: Sequence[tuple[int, int, LabelledOutcome]],
    encoded: tuple[Vector, Vector, Vector],
) -> Pooled:
    """Return the table of queries (set, turn, query) and outcomes (column, turn, outcome)."""
    models, known = sorted({row.model for *_, row in rows}), known_sets()
    domains = [known.domain.get(source.name, source.name) for source in sources]
    named = [(sources[number].name, one) for number, _, one in queries]
    all_queries = [one for *_, one in queries]
    data = Pooled(
        models=np.array(models),
        base=np.array([is_base(model) for model in models]),
        **_averaged(models, len(queries), rows),
        set_names=tuple(source.name for source in sources),
        sets=np.array([number for number, *_ in queries]),
        domain_names=tuple(dict.fromkeys(domains)),
        domains=np.array([list(dict.fromkeys(domains)).index(domains[number]) for number, *_ in queries]),
        ids=np.array([one.id for one in all_queries]),
        texts=np.array([one.text for one in all_queries], object),
        groups=np.array([f"{name}:{one.id}" for name, one in named], object),
        categories=np.array([f"{name}/{one.category}" for name, one in named]),
        task=np.array([known.task.get(one.category, -1) for one in all_queries]),
        expected=np.full((len(all_queries), 2), np.nan),
        text_tokens=np.array(
            [one.text_tokens or estimate_prompt_tokens(one.text).expected for one in all_queries], float
        ),
        vectors=encoded[0],
        states=encoded[1],
        multilingual=encoded[2],
        features=np.array([text_features(one.text) for one in all_queries]),
    )
    ungraded = np.isin([name for name, _ in named], sorted(known.left_out))
    data = replace(data, correct=np.where(ungraded, np.nan, data.correct))
    return replace(data, groups=_grouped(data, np.array([f"{name}:{one.source}" for name, one in named], object)))


def _averaged(
    models: Sequence[str], queries: int, rows: Sequence[tuple[int, int, LabelledOutcome]]
) -> dict[str, Floats]:
    """Return the tables of `_BY_BOTH`, (models, queries), NaN = missing; repeated measurements are averaged."""
    row_of = {model: i for i, model in enumerate(models)}
    at = np.array([row_of[row.model] for *_, row in rows]) * queries + np.array([column for column, *_ in rows])
    tables = {}
    for name, column in zip(_BY_BOTH, ("correct", "completion_tokens", "prompt_tokens", "usd"), strict=True):
        values = np.array([getattr(row, column) for *_, row in rows], np.float64)
        known = ~np.isnan(values)
        counts = np.bincount(at[known], minlength=len(models) * queries)
        sums = np.bincount(at[known], values[known], len(models) * queries)
        with np.errstate(invalid="ignore"):
            tables[name] = np.where(counts > 0, sums / counts, np.nan).reshape(len(models), queries)
    return tables


def _grouped(data: Pooled, sources: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return groups that keep near copies together: equal texts, and sources if a set's sources are families."""
    groups = data.groups.copy()
    for s in range(len(data.set_names)):
        here = np.flatnonzero(data.sets == s)
        if in_families(data.vectors[here], sources[here]):
            groups[here] = sources[here]
    return _joined(groups, data.texts)


def _joined(groups: NDArray[np.object_], texts: NDArray[np.object_]) -> NDArray[np.object_]:
    """Merge groups that have a text in common."""
    above: dict[str, str] = {}

    def root(group: str) -> str:
        while group in above:
            group = above[group]
        return group

    first: dict[str, str] = {}
    for group, text in zip(groups.tolist(), texts.tolist(), strict=True):
        one, other = root(first.setdefault(text, group)), root(group)
        if one != other:
            above[other] = one
    return np.array([root(group) for group in groups.tolist()], object)


def in_families(vectors: Vector, sources: NDArray[np.object_]) -> bool:
    """Return whether a set's sources are families of near copies, such as one task in many versions, not mere provenance.

    They are if most queries have another one of the same source at a cosine of at least `_COPY`.
    """
    near = 0
    for source in np.unique(sources):
        mine = vectors[sources == source]
        if len(mine) > 1:
            cosines = mine @ mine.T
            np.fill_diagonal(cosines, -1.0)
            near += int((cosines.max(axis=1) >= _COPY).sum())
    return near > len(vectors) / 2


def held_out(keys: Sequence[str], seed: int, share: float) -> Bools:
    """Return which keys ("set:key") a seed holds out: a fixed rule, sha256 of "seed:set:key" below `share`."""
    digests = (hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8] for key in keys)
    return np.array([int.from_bytes(d, "big") < share * 2.0**64 for d in digests], bool)


# Vectors are cached between runs, since encoding takes most of an evaluation's time. They reveal something of their texts;
# `scope-edge eval --no-cache` keeps none.
_KIND = "embeddings"
# The most texts in the cache; beyond it only those of the last run are kept.
_MOST = 100_000
_SAVED_EVERY = 4_000


def embed(
    texts: Sequence[str], encoder: Encoder, folder: Path | None = None, progress: Progress | None = None
) -> tuple[Vector, Vector, Vector]:
    """Return unit vectors and states, (n, d) each, and multilingual vectors, (n, 512), all float32. folder: of the cache; None = no cache.

    An interrupted run keeps its results. A damaged or unwritable cache is no error.
    """
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    path = None if folder is None else folder / f"embeddings-{encoder.identity[:16]}.pack"
    known = {} if path is None else _read_vectors(path, encoder)
    # A repeated text is encoded once, at its first position.
    first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in known}
    wanted = sorted(first.values())
    saved = 0
    try:
        for done, encoded in enumerate(encoder.encode_many(Query(texts[i]) for i in wanted), 1):
            known[keys[wanted[done - 1]]] = np.concatenate([encoded.vector, encoded.state, encoded.multilingual])
            if progress is not None:
                progress("encoding", done, len(wanted))
            if path is not None and done - saved >= _SAVED_EVERY:
                _write_vectors(path, encoder, known, keys)
                saved = done
    finally:
        if path is not None and wanted:
            _write_vectors(path, encoder, known, keys)
    joined = np.array([known[key] for key in keys], np.float32).reshape(len(keys), _width(encoder))
    vectors, states, multilingual = np.split(joined, [encoder.dimension, 2 * encoder.dimension], axis=1)
    return vectors, states, multilingual


def _width(encoder: Encoder) -> int:
    return 2 * encoder.dimension + DIMENSION


def _read_vectors(path: Path, encoder: Encoder) -> dict[bytes, Vector]:
    with contextlib.suppress(PackError, KeyError, ValueError, AttributeError):
        body = read_pack(path, _KIND)
        keys, encoded = body["keys"], body["encoded"]
        if body["encoder"] == encoder.identity and encoded.shape == (len(keys), _width(encoder)):
            return dict(zip(map(bytes, keys), encoded, strict=True))
    return {}


def _write_vectors(path: Path, encoder: Encoder, known: dict[bytes, Vector], present: Sequence[bytes]) -> None:
    # Another evaluation may have written meanwhile.
    known = {**_read_vectors(path, encoder), **known}
    kept = known if len(known) <= _MOST else {key: known[key] for key in present[:_MOST] if key in known}
    keys: NDArray[np.uint8] = np.frombuffer(b"".join(kept), np.uint8).reshape(len(kept), -1)
    with contextlib.suppress(AssetError):
        write_pack(path, _KIND, {"encoder": encoder.identity, "keys": keys, "encoded": np.array(list(kept.values()))})
