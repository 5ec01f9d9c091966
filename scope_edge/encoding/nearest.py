"""Nearest neighbors among unit vectors: exact search below 20,000 of them, a graph (hnsw.py) from there on.

A plain scan of 17,000 vectors reads 26 MB per query. Packed at one byte per dimension, the same answer costs a fraction:

1. Packing turns the vectors along the axes they vary most on (principal axes), so that the first quarter of the
   dimensions holds most of every inner product. Bytes become float32 only in the processor's cache: reading a quarter
   of the memory saves more than converting costs, the more so when something else keeps memory or cache busy.
2. By Cauchy and Schwarz, what the unread dimensions can still add is at most |rest of query| x |rest of vector|. Rows
   whose score so far plus that bound stays below the k-th best of a few fully scored rows are dropped, block by block.
3. The remaining rows are scored again in float64, so that ties and order do not depend on how a row was reached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from scope_edge.errors import AssetError, MissingExtraError, UsageError
from scope_edge.storage.packs import reading

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from scope_edge.encoding.hnsw import GraphParameters
    from scope_edge.types import Vector

    Ids = NDArray[np.int64]
    Codes = NDArray[np.int8]

Kind = Literal["auto", "exact", "hnsw"]

EXACT_BELOW = 20_000  # below, exact search is as fast as the graph, and needs no building
_INSTALL = 'pip install "scope-edge[hnsw]"'
# Where the blocks end, as shares of the dimensions: chosen on real embeddings by benchmarks/index.py.
_CUTS = (1 / 4, 5 / 12, 2 / 3)
# Rows scored in full first, to find the score a row must reach. More than k, as the first block ranks only roughly.
_SEEDS = 64
# Maxima taken over this many interleaved groups of rows: their n-th largest bounds the n-th largest of all from below.
_GROUPS = 256
# Floats multiplied at a time. More would make BLAS start threads, which costs more than they save on a product this small
# and, on a busy machine, waits for a core (16 ms seen); and these stay in the second-level cache once converted.
_AT_ONCE = 131_072


class Index(Protocol):
    """Finds the nearest of n unit vectors.

    Attributes:
        kind: "exact" or "hnsw". note: a sentence for the user (slower than expected, not cached), or None.
    """

    kind: str
    note: str | None

    def __len__(self) -> int: ...

    def search(self, vector: Vector, k: int) -> tuple[Ids, Vector]:
        """Find the k nearest vectors: row numbers (k,) int64 and cosines (k,) float32, best first, ties by lower row.

        With k above n, all n come back. Raises UsageError when `vector` has another length or is not finite.
        """


def build_index(
    vectors: Vector | PackedVectors,
    kind: Kind,
    *,
    own: Vector | None = None,
    cache_dir: Path | None,
    identity: str,
    parameters: GraphParameters | None = None,
) -> Index:
    """Index unit vectors, shape (n, d): "auto" picks by their number, "exact" and "hnsw" force one.

    Args:
        own: more vectors, whose rows follow; a hash of their content identifies them.
        cache_dir: where to keep a graph between runs; None = nowhere. A folder that cannot be written is not an error.
        identity: names `vectors` and no others (a hash); a graph cached under another identity is built anew.

    Raises MissingExtraError ("hnsw" without hnswlib), AssetError (vectors not finite or not of norm 1), UsageError (kind).
    """
    if kind not in ("auto", "exact", "hnsw"):
        raise UsageError(f"index {kind!r} is not known; choose auto, exact or hnsw")
    if not isinstance(vectors, PackedVectors):
        vectors = check_vectors(vectors, f"vectors {identity}")
    more = None if own is None or not len(own) else check_vectors(own, "your anchors")
    count = len(vectors) + (0 if more is None else len(more))
    if kind == "exact" or count == 0 or (kind == "auto" and count < EXACT_BELOW):
        return _exact(vectors, more, None)
    try:
        from scope_edge.encoding.hnsw import GraphBuilder, GraphParameters
    except ImportError as error:
        if kind == "hnsw":
            raise MissingExtraError(f"index hnsw needs hnswlib, which is not installed; {_INSTALL}") from error
        return _exact(vectors, more, f"exact search over {count} vectors as hnswlib is not installed; {_INSTALL}")
    rows = vectors.unpack() if isinstance(vectors, PackedVectors) else vectors
    if more is not None:
        rows = np.concatenate([rows, more])
        identity = f"{identity} {hashlib.sha256(more.tobytes()).hexdigest()}"
    return GraphBuilder(rows, identity, parameters or GraphParameters()).index(cache_dir)


def _exact(vectors: Vector | PackedVectors, own: Vector | None, note: str | None) -> Index:
    first = PackedIndex(vectors, note) if isinstance(vectors, PackedVectors) else ExactIndex(vectors, note)
    return first if own is None else JoinedIndex(first, ExactIndex(own))


@dataclass(frozen=True, slots=True, eq=False)
class PackedVectors:
    """n unit vectors of d dimensions: vector i is `rotation.T @ (columns * codes_i) * rows[i]`, its norm exactly 1.

    Attributes:
        rotation: (d, d) float32, principal axes as rows, the largest variance first.
        columns: (d,) float32, size of one step of the codes per dimension. rows: (n,) float32, scale per vector.
        blocks: int8 codes of consecutive dimensions, each (n, width).
        rests: (len(blocks) - 1, n) float32, norm of each vector from the start of block 1, 2, ... on, rounded up.
    """

    rotation: Vector
    columns: Vector
    rows: Vector
    blocks: tuple[Codes, ...]
    rests: Vector

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dimensions(self) -> int:
        return len(self.columns)

    def codes(self, ids: Ids) -> Codes:
        """Return the codes of some rows, shape (len(ids), d)."""
        return np.concatenate([block[ids] for block in self.blocks], axis=1)

    def unpack(self) -> Vector:
        """Return all vectors in their original coordinates, (n, d). It takes d products per number: too slow for every start."""
        codes = np.concatenate(self.blocks, axis=1).astype(np.float32)
        vectors: Vector = np.dot(codes * self.columns, self.rotation)
        vectors *= self.rows[:, None]
        return vectors

    def body(self) -> dict[str, Any]:
        """Return plain arrays for a pack; `from_body` reads them back."""
        named = {f"block{i}": block for i, block in enumerate(self.blocks)}
        fixed = ("rotation", "columns", "rows", "rests")
        return {**{name: getattr(self, name) for name in fixed}, **named}


def check_vectors(vectors: NDArray[Any], what: str) -> Vector:
    """Return `vectors` as a C-ordered float32 matrix of unit rows. Raises AssetError naming `what` and the first bad row."""
    if vectors.ndim != 2:
        raise AssetError(f"{what}: expected a matrix with one vector a row, found shape {vectors.shape}; rebuild it")
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    # Written so that NaN fails too.
    bad = np.flatnonzero(~(np.abs(norms - 1) < 0.01))
    if len(bad):
        row = int(bad[0])
        found = f"norm {norms[row]:.4g}" if np.isfinite(norms[row]) else "values that are not finite"
        raise AssetError(f"{what}: vector {row} of {len(rows)} has {found}, expected norm 1; rebuild it")
    return rows


def pack_vectors(vectors: NDArray[Any]) -> PackedVectors:
    """Pack unit vectors, shape (n, d). Ten nearest neighbors agree with float32 in about 98 % on real embeddings.

    Raises AssetError for vectors that are not finite or not of norm 1.
    """
    exact = check_vectors(vectors, "vectors to pack")
    n, d = exact.shape
    _, axes = np.linalg.eigh((exact.T @ exact).astype(np.float64))
    rotation = np.ascontiguousarray(axes[:, ::-1].T, dtype=np.float32)
    turned = exact @ rotation.T
    # Between equal steps everywhere (small dimensions vanish) and steps in proportion to spread (large ones get coarse).
    columns = np.maximum(np.sqrt(np.mean(turned**2, axis=0)), 1e-6) ** 0.5 if n else np.ones(d, np.float32)
    turned /= columns
    codes = np.rint(turned * (127 / np.abs(turned).max(axis=1, keepdims=True, initial=1e-12))).astype(np.int8)
    squares = (codes * columns) ** 2
    total = squares.sum(axis=1, dtype=np.float64)
    ends = [0, *(max(1, round(d * share)) for share in _CUTS), d]
    rests = [np.sqrt(squares[:, a:].sum(axis=1, dtype=np.float64) / total) * (1 + 1e-6) for a in ends[1:-1]]
    return PackedVectors(
        rotation=rotation,
        columns=columns.astype(np.float32),
        rows=(1 / np.sqrt(total)).astype(np.float32),
        blocks=tuple(np.ascontiguousarray(codes[:, a:b]) for a, b in pairwise(ends)),
        rests=np.array(rests, dtype=np.float32).reshape(len(_CUTS), n),
    )


def from_body(body: Mapping[str, Any], where: str) -> PackedVectors:
    """Read packed vectors from a pack's body. Raises PackError when an array is missing, or shapes or types do not fit."""
    with reading(where, "set of packed vectors", "get a fresh copy"):
        # Arrays start anywhere in a pack; where that is not a multiple of 4, every product would copy them anew.
        fixed = {name: np.require(body[name], requirements="A") for name in ("rotation", "columns", "rows", "rests")}
        blocks = tuple(body[f"block{i}"] for i in range(len(fixed["rests"]) + 1))
        n, d = len(fixed["rows"]), len(fixed["columns"])
        expected = [((d, d), "f4"), ((d,), "f4"), ((n,), "f4"), ((len(blocks) - 1, n), "f4")]
        expected += [((n, block.shape[1]), "i1") for block in blocks]
        found: list[Any] = [(array.shape, array.dtype) for array in (*fixed.values(), *blocks)]
        if sum(block.shape[1] for block in blocks) != d or found != expected:
            raise ValueError("its arrays do not fit together")
        return PackedVectors(**fixed, blocks=blocks)


class ExactIndex:
    """The plain scan over float32 vectors, the standard for every other index."""

    kind = "exact"

    def __init__(self, vectors: Vector, note: str | None = None) -> None:
        self.vectors, self.note = vectors, note

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, vector: Vector, k: int) -> tuple[Ids, Vector]:
        """Find the k nearest of the vectors: see `Index`."""
        query = check_query(vector, self.vectors.shape[1])
        rough = np.empty(len(self), np.float32)
        for rows in _slices(len(self), len(query)):
            np.dot(self.vectors[rows], query, out=rough[rows])
        near = np.flatnonzero(rough >= _kth(rough, k) - _slack(query))
        return best(near, (self.vectors[near].astype(np.float64) * query.astype(np.float64)).sum(axis=1), k)


class PackedIndex:
    """Exact search over packed vectors, which reads of each row only enough to rule it out."""

    kind = "exact"

    def __init__(self, packed: PackedVectors, note: str | None = None) -> None:
        self.packed, self.note = packed, note
        ends = np.cumsum([0, *(block.shape[1] for block in packed.blocks)]).tolist()
        self._spans = [slice(start, end) for start, end in pairwise(ends)]

    def __len__(self) -> int:
        return len(self.packed)

    def search(self, vector: Vector, k: int) -> tuple[Ids, Vector]:
        """Find the k nearest of the packed vectors: see `Index`."""
        query = check_query(vector, self.packed.dimensions)
        turned = self.packed.rotation @ query
        folded = turned * self.packed.columns
        slack = _slack(query)
        ids = np.arange(len(self))
        scores = self._block_scores(0, ids, folded)
        reach = self._reachable(scores, folded, k) - slack
        for i, span in enumerate(self._spans[1:], start=1):
            rest = self.packed.rests[i - 1].take(ids) * np.linalg.norm(turned[span.start :])
            kept = np.flatnonzero(scores + rest >= reach)
            ids = ids.take(kept)
            scores = scores.take(kept) + self._block_scores(i, ids, folded)
        near = ids.take(np.flatnonzero(scores >= _kth(scores, k) - slack))
        exact = (self.packed.codes(near).astype(np.float64) * folded.astype(np.float64)).sum(axis=1)
        return best(near, exact * self.packed.rows.take(near), k)

    def _reachable(self, scores: Vector, folded: Vector, k: int) -> float:
        """Return a similarity that at least k rows reach: the k-th best of the seeds, scored over all dimensions."""
        wanted = max(k, _SEEDS)
        even = len(scores) // _GROUPS * _GROUPS
        if wanted > _GROUPS or even < 4 * _GROUPS:
            return -np.inf
        # Interleaved groups: neighbors often stand side by side, and only one row of a group can count.
        tops = scores[:even].reshape(-1, _GROUPS).max(axis=0)
        seeds = np.flatnonzero(scores >= _kth(tops, wanted))
        full = scores.take(seeds)
        for i in range(1, len(self._spans)):
            full += self._block_scores(i, seeds, folded)
        return _kth(full, k)

    def _block_scores(self, i: int, ids: Ids, folded: Vector) -> Vector:
        """Return block i's part of the scores of some rows. Reading it whole is cheaper than picking most of it."""
        block, scale, query = self.packed.blocks[i], self.packed.rows, folded[self._spans[i]]
        whole = 2 * len(ids) > len(block)
        scores = np.empty(len(block) if whole else len(ids), np.float32)
        for rows in _slices(len(scores), len(query)):
            codes = block[rows] if whole else block.take(ids[rows], axis=0)
            np.dot(codes.astype(np.float32), query, out=scores[rows])
        return (scores.take(ids) if whole else scores) * scale.take(ids)


class JoinedIndex:
    """Two exact indexes searched as one; the rows of the second follow those of the first."""

    kind = "exact"

    def __init__(self, first: PackedIndex | ExactIndex, second: ExactIndex) -> None:
        self._first, self._second, self.note = first, second, first.note

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def search(self, vector: Vector, k: int) -> tuple[Ids, Vector]:
        """Find the k nearest of both: see `Index`."""
        (one, near), (other, far) = self._first.search(vector, k), self._second.search(vector, k)
        ids = np.concatenate([one, other + len(self._first)])
        return best(ids, np.concatenate([near, far]).astype(np.float64), k)


def best(ids: Ids, similarities: NDArray[np.float64], k: int) -> tuple[Ids, Vector]:
    """Return the k best by similarity, ties by lower id; similarities as float32 within [-1, 1]."""
    order = np.lexsort((ids, -similarities))[: max(k, 0)]
    return ids[order].astype(np.int64), similarities[order].clip(-1, 1).astype(np.float32)


def check_query(vector: Vector, dimensions: int) -> Vector:
    """Return `vector` as float32 of the given length. Raises UsageError when it has another shape or is not finite."""
    query = np.ascontiguousarray(vector, dtype=np.float32)
    if query.shape != (dimensions,):
        raise UsageError(f"query vector has shape {query.shape}, the index {dimensions} dimensions; encode it anew")
    if not np.isfinite(query).all():
        raise UsageError("query vector has values that are not finite; encode the query anew")
    return query


def _kth(values: NDArray[Any], k: int) -> float:
    """Return the k-th largest value; minus infinity with k values or fewer."""
    if k <= 0:
        return np.inf
    if len(values) <= k:
        return -np.inf
    return float(np.partition(values, len(values) - k)[len(values) - k])


def _slack(query: Vector) -> float:
    """Bound the error of float32 sums of d products of a unit vector and the query: d x 2^-24 each, four times over."""
    return float(len(query) * 2.0**-22 * max(1.0, float(np.linalg.norm(query))))


def _slices(rows: int, width: int) -> Iterator[slice]:
    """Return consecutive slices that cover `rows`, each of at most `_AT_ONCE` numbers when a row has `width`."""
    step = _AT_ONCE // max(1, width)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
