"""The bank (every anchor ever measured, searched for neighbors) and core anchor sets (the questions a new model answers).

The bundled ones come without question text: an anchor is an id, a category, an embedding and the joint fit's numbers.
A user's own core sets may have text: an estimator that reads questions needs it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.encoding.multilingual import DIMENSION
from scope_edge.encoding.nearest import Index, PackedVectors, build_index, from_body
from scope_edge.estimation.difficulty import MapPositions
from scope_edge.storage import assets
from scope_edge.storage.packs import reading, unpack
from scope_edge.types import Neighbor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from scope_edge.encoding.nearest import Kind
    from scope_edge.types import Floats, Vector

BANK = "anchors/bank.pack"
CORE = "anchors/core.pack"
# The source of a neighbor that comes with scope-edge: the default of `Neighbor`.
BUNDLED = "bank"


@dataclass(frozen=True, slots=True, eq=False)
class AnchorSet:
    """A core anchor set, most informative anchor first.

    Attributes:
        vectors: (n, d) float32, unit. prompt_tokens: (n,) cl100k tokens of the question.
        difficulty, discrimination: (n,) each anchor's own, pooled over every model, on the bank's scale.
        log_length, map_difficulty: (n,) read off the map with the anchor's family left out.
        domains: (n, sets), traits: (n, k): as in `MapPositions`.
        linked: whether models shared with other sets tie its scale to theirs.
        texts: one question a row; empty for the bundled sets. own: whether it is the user's.
        multilingual: (n, 512) float32, unit; None = unknown, as of the bundled sets and of packs of a release without them.
    """

    name: str
    ids: tuple[str, ...]
    categories: tuple[str, ...]
    vectors: Vector
    prompt_tokens: Floats
    difficulty: Floats
    discrimination: Floats
    log_length: Floats
    map_difficulty: Floats
    domains: Floats
    traits: Floats
    linked: bool
    texts: tuple[str, ...] = ()
    own: bool = False
    multilingual: Vector | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def positions(self) -> MapPositions:
        """Where the map places the anchors."""
        return MapPositions.measured(self.map_difficulty, self.log_length, self.domains, self.traits)

    def take(self, rows: Sequence[int]) -> AnchorSet:
        """Return only these anchors, in this order."""
        parts: dict[str, Any] = {name: getattr(self, name)[rows] for name in ("vectors", *_COLUMNS)}
        for name in ("ids", "categories", "texts"):
            values = getattr(self, name)
            parts[name] = tuple(values[i] for i in rows) if values else ()
        parts["multilingual"] = None if self.multilingual is None else self.multilingual[rows]
        return replace(self, **parts)

    def nearest(self, vector: Vector, measured: Floats, k: int) -> list[tuple[int, Neighbor]]:
        """Return the k anchors nearest to a unit vector among those with a number in `measured` (n,): row and neighbor."""
        rows = np.flatnonzero(~np.isnan(measured))
        similarities = self.vectors[rows] @ vector
        order = np.argsort(-similarities, kind="stable")[:k]
        return [
            (int(rows[i]), Neighbor(self.ids[rows[i]], float(similarities[i]), self.categories[rows[i]])) for i in order
        ]


class Bank:
    """The bundled anchors and the user's own, searched for questions similar to a query.

    index: over the bundled anchors and then `own`, set by set. bundled: over the former alone; None = the same.
    """

    def __init__(
        self,
        ids: Sequence[str],
        categories: Sequence[str],
        index: Index,
        own: Sequence[AnchorSet] = (),
        bundled: Index | None = None,
    ) -> None:
        self._ids, self._categories, self._index = ids, categories, index
        self._own = [Neighbor(id, 0.0, kind, s.name) for s in own for id, kind in zip(s.ids, s.categories, strict=True)]
        self._bundled = bundled or index

    def __len__(self) -> int:
        return len(self._ids) + len(self._own)

    @property
    def note(self) -> str | None:
        """A sentence on the search for the user, or None."""
        return self._index.note

    def nearest(self, vector: Vector, k: int) -> tuple[Neighbor, ...]:
        """Return the k anchors nearest to a unit vector, most similar first."""
        rows, similarities = self._index.search(vector, k)
        return tuple(map(self._neighbor, rows.tolist(), similarities.tolist()))

    def similarity(self, vector: Vector, neighbors: Sequence[Neighbor]) -> float:
        """Return the cosine of the nearest bundled anchor, -1 without any: the map, learned from these, is trusted by it.

        neighbors: the result of `nearest` for this vector.
        """
        known = next((one.similarity for one in neighbors if one.source == BUNDLED), None)
        return max(self._bundled.search(vector, 1)[1].tolist(), default=-1.0) if known is None else known

    def _neighbor(self, row: int, similarity: float) -> Neighbor:
        if row < len(self._ids):
            return Neighbor(self._ids[row], similarity, self._categories[row])
        return replace(self._own[row - len(self._ids)], similarity=similarity)


def text_hash(text: str) -> int:
    """Return 64 bits that identify a text, whatever its case and blanks: a question is recognized without being kept."""
    folded = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.sha256(folded.encode("utf-8", "surrogatepass")).digest()[:8], "big", signed=True)


def taught_by() -> tuple[frozenset[str], frozenset[int]]:
    """Return the ids and text hashes of the bundled bank's questions. Raises AssetError when it is missing or damaged."""
    body = _bank()
    with reading(BANK, "bank"):
        return frozenset(body["ids"]), frozenset(body["text_hashes"].tolist())


def load_bank_vectors() -> Vector:
    """Return the unit vectors (n, d) of the bundled bank, float32. Raises AssetError when it is missing or damaged."""
    return from_body(_bank()["vectors"], BANK).unpack()


def load_bank(kind: Kind = "auto", cache_dir: Path | None = None, own: Sequence[AnchorSet] = ()) -> Bank:
    """Load the bundled bank, and index it with the user's own sets. Raises AssetError (missing or damaged), else as `build_index`."""
    body = _bank()
    with reading(BANK, "bank"):
        vectors, names = from_body(body["vectors"], BANK), body["category_names"]
        ids, categories = body["ids"], [names[code] for code in body["categories"].tolist()]
        if not len(ids) == len(categories) == len(vectors):
            raise ValueError("its columns differ in length")
    identity, mine = assets.manifest()[BANK].sha256, np.concatenate([one.vectors for one in own]) if own else None
    index = build_index(vectors, kind, own=mine, cache_dir=cache_dir, identity=identity)
    bundled = build_index(vectors, "exact", cache_dir=None, identity=identity) if own else index
    return Bank(ids, categories, index, own, bundled)


def _bank() -> dict[str, Any]:
    return unpack(assets.read(BANK), "bank", BANK, verified=True)


_COLUMNS = ("prompt_tokens", "difficulty", "discrimination", "log_length", "map_difficulty", "domains", "traits")


def set_body(anchors: AnchorSet) -> dict[str, Any]:
    """Return a core set as (part of) the body of a pack; vectors at half precision, bundled ones in a byte a dimension."""
    columns = {name: getattr(anchors, name).astype(np.float32) for name in _COLUMNS}
    fixed = {"name": anchors.name, "ids": list(anchors.ids), "categories": list(anchors.categories)}
    bundled = not (anchors.own or anchors.texts)
    vectors = {"vectors": _bytes(anchors.vectors) if bundled else anchors.vectors.astype(np.float16)}
    if anchors.multilingual is not None:
        vectors["multilingual"] = anchors.multilingual.astype(np.float16)
    texts = {"texts": list(anchors.texts)} if anchors.texts else {}
    return {**fixed, **columns, **vectors, "linked": anchors.linked, **texts}


def _unpacked(vectors: NDArray[Any]) -> Vector:
    rows = vectors.astype(np.float32)
    return rows if vectors.dtype != np.int8 else np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _bytes(vectors: Vector) -> NDArray[np.int8]:
    """Return unit vectors in a byte a dimension; their lengths follow from their being unit."""
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    return np.asarray(np.rint(vectors * (127 / largest)).astype(np.int8))


def set_from_body(body: Mapping[str, Any], where: str, *, own: bool = False) -> AnchorSet:
    """Read a core set from a pack's body. Raises PackError when a column is missing or of another length."""
    with reading(where, "anchor set", "get a fresh copy"):
        columns = {name: body[name].astype(np.float64) for name in _COLUMNS}
        second = body.get("multilingual")
        anchors = AnchorSet(
            name=body["name"],
            ids=tuple(body["ids"]),
            categories=tuple(body["categories"]),
            vectors=_unpacked(body["vectors"]),
            linked=bool(body["linked"]),
            texts=tuple(str(text) for text in body.get("texts", ())),
            own=own,
            multilingual=None if second is None else second.astype(np.float32),
            **columns,
        )
        ids, texts = anchors.ids, anchors.texts or anchors.ids
        if {len(one) for one in (*columns.values(), anchors.categories, anchors.vectors, texts)} != {len(ids)}:
            raise ValueError(f"{anchors.name!r} has columns of different lengths")
        if second is not None and second.shape != (len(ids), DIMENSION):
            raise ValueError(f"{anchors.name!r} has multilingual vectors of another shape")
        return anchors


def bank_body(
    ids: Sequence[str],
    categories: Sequence[str],
    texts: Sequence[str],
    vectors: PackedVectors,
    fitted: Mapping[str, Floats],
    others: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the bank as the body of a pack, without its texts.

    fitted: name -> (n,) of each anchor. others: texts that taught the map and are not in the bank.
    """
    names, codes = np.unique(list(categories), return_inverse=True)
    return {
        "ids": list(ids),
        "category_names": names.tolist(),
        "categories": codes.astype(np.uint16),
        "vectors": vectors.body(),
        "text_hashes": np.array([text_hash(text) for text in (*texts, *others)], np.int64),
        **{name: column.astype(np.float16) for name, column in fitted.items()},
    }
