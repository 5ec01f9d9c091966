"""The bank (every anchor ever measured, for neighbors and difficulty) and core anchor sets (what a new model answers).

The bundled ones come without question text: an anchor is an id, a category, an embedding and what the joint fit says of it.
A user's own core sets may have text: an estimator that reads questions needs it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.encoding.nearest import Index, PackedVectors, build_index, from_body
from scope_edge.errors import PackError
from scope_edge.storage import assets
from scope_edge.storage.packs import unpack
from scope_edge.types import Neighbor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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
        log_length: (n,) log-length read off the map with the anchor's family left out.
        map_difficulty: (n,) likewise difficulty. domains: (n, sets), traits: (n, k): as in `Place`.
        linked: whether models shared with other sets tie its scale to theirs.
        texts: one question a row, or none at all: the bundled sets come without.
        own: whether it is the user's, not a bundled one.
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

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> AnchorSet:
        """Only these anchors, in this order."""
        parts: dict[str, Any] = {name: getattr(self, name)[rows] for name in ("vectors", *_COLUMNS)}
        for name in ("ids", "categories", "texts"):
            values = getattr(self, name)
            parts[name] = tuple(values[i] for i in rows) if values else ()
        return replace(self, **parts)

    def nearest(self, vector: Vector, measured: Floats, k: int) -> list[tuple[int, Neighbor]]:
        """The k anchors nearest to a unit vector among those with a number in `measured` (n,): row and neighbor."""
        rows = np.flatnonzero(~np.isnan(measured))
        similarities = self.vectors[rows] @ vector
        order = np.argsort(-similarities, kind="stable")[:k]
        return [
            (int(rows[i]), Neighbor(self.ids[rows[i]], float(similarities[i]), self.categories[rows[i]])) for i in order
        ]


class Bank:
    """The bundled anchors and the user's own, searched for what a user sees as similar questions.

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
        """What the user should know about the search, or None."""
        return self._index.note

    def nearest(self, vector: Vector, k: int) -> tuple[Neighbor, ...]:
        """The k anchors nearest to a unit vector, most similar first."""
        rows, similarities = self._index.search(vector, k)
        return tuple(map(self._neighbor, rows.tolist(), similarities.tolist()))

    def similarity(self, vector: Vector, neighbors: Sequence[Neighbor]) -> float:
        """The cosine of the nearest bundled anchor, -1 without any: how far the map, learned from these, can be trusted.

        neighbors: the nearest of all, as `nearest` gives them for this vector.
        """
        known = next((one.similarity for one in neighbors if one.source == BUNDLED), None)
        if known is None:
            known = max(self._bundled.search(vector, 1)[1].tolist(), default=-1.0)
        return known

    def _neighbor(self, row: int, similarity: float) -> Neighbor:
        if row < len(self._ids):
            return Neighbor(self._ids[row], similarity, self._categories[row])
        return replace(self._own[row - len(self._ids)], similarity=similarity)


def text_hash(text: str) -> int:
    """64 bits that stand for a text, whatever its case and blanks: how a question is known again without being kept."""
    folded = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.sha256(folded.encode("utf-8", "surrogatepass")).digest()[:8], "big", signed=True)


def taught_by() -> tuple[frozenset[str], frozenset[int]]:
    """(ids, text hashes) of the bundled bank's questions. Raises AssetError when it is missing or damaged."""
    body = unpack(assets.read(BANK), "bank", BANK, verified=True)
    try:
        return frozenset(body["ids"]), frozenset(body["text_hashes"].tolist())
    except (KeyError, TypeError, AttributeError) as error:
        raise PackError(f"{BANK}: not a usable bank ({error!r}); reinstall scope-edge") from error


def load_bank_vectors() -> Vector:
    """(n, d) float32 unit vectors of the bundled bank. Raises AssetError when it is missing or damaged."""
    return from_body(unpack(assets.read(BANK), "bank", BANK, verified=True)["vectors"], BANK).unpack()


def load_bank(kind: Kind = "auto", cache_dir: Path | None = None, own: Sequence[AnchorSet] = ()) -> Bank:
    """Load the bundled bank, and index it with the user's own sets. Raises AssetError (missing or damaged), else as `build_index`."""
    body = unpack(assets.read(BANK), "bank", BANK, verified=True)
    vectors = from_body(body["vectors"], BANK)
    try:
        names, codes = body["category_names"], body["categories"].tolist()
        ids, categories = body["ids"], [names[code] for code in codes]
    except (KeyError, AttributeError, IndexError) as error:
        raise PackError(f"{BANK}: not a usable bank ({error!r}); reinstall scope-edge") from error
    if not len(ids) == len(categories) == len(vectors):
        raise PackError(f"{BANK}: its columns differ in length; reinstall scope-edge")
    identity, mine = assets.manifest()[BANK].sha256, np.concatenate([one.vectors for one in own]) if own else None
    index = build_index(vectors, kind, own=mine, cache_dir=cache_dir, identity=identity)
    bundled = build_index(vectors, "exact", cache_dir=None, identity=identity) if own else index
    return Bank(ids, categories, index, own, bundled)


_COLUMNS = (
    "prompt_tokens",
    "difficulty",
    "discrimination",
    "log_length",
    "map_difficulty",
    "domains",
    "traits",
)


def set_body(anchors: AnchorSet) -> dict[str, Any]:
    """A core set as (part of) the body of a pack; vectors at half precision."""
    columns = {name: getattr(anchors, name).astype(np.float32) for name in _COLUMNS}
    fixed = {"name": anchors.name, "ids": list(anchors.ids), "categories": list(anchors.categories)}
    texts = {"texts": list(anchors.texts)} if anchors.texts else {}
    return {**fixed, **columns, "vectors": anchors.vectors.astype(np.float16), "linked": anchors.linked, **texts}


def set_from_body(body: Mapping[str, Any], where: str, *, own: bool = False) -> AnchorSet:
    """A core set out of a pack's body. Raises PackError when a column is missing or of another length."""
    try:
        columns = {name: body[name].astype(np.float64) for name in _COLUMNS}
        anchors = AnchorSet(
            name=body["name"],
            ids=tuple(body["ids"]),
            categories=tuple(body["categories"]),
            vectors=body["vectors"].astype(np.float32),
            linked=bool(body["linked"]),
            texts=tuple(str(text) for text in body.get("texts", ())),
            own=own,
            **columns,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PackError(f"{where}: not a usable anchor set ({error!r}); get a fresh copy") from error
    lengths = {len(column) for column in (*columns.values(), anchors.ids, anchors.categories, anchors.vectors)}
    if anchors.texts:
        lengths.add(len(anchors.texts))
    if len(lengths) != 1:
        raise PackError(f"{where}: anchor set {anchors.name!r} has columns of different lengths; get a fresh copy")
    return anchors


def bank_body(
    ids: Sequence[str],
    categories: Sequence[str],
    texts: Sequence[str],
    vectors: PackedVectors,
    fitted: Mapping[str, Floats],
) -> dict[str, Any]:
    """The bank as the body of a pack, without its texts. `fitted`: name -> (n,) what the joint fit says of each anchor."""
    names = sorted(set(categories))
    code = {name: i for i, name in enumerate(names)}
    return {
        "ids": list(ids),
        "category_names": names,
        "categories": np.array([code[name] for name in categories], np.uint16),
        "vectors": vectors.body(),
        "text_hashes": np.array([text_hash(text) for text in texts], np.int64),
        **{name: column.astype(np.float16) for name, column in fitted.items()},
    }
