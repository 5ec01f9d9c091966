"""Unit vectors and states of many texts, cached between runs, since encoding takes most of an evaluation's time.

The cache is one pack per encoder in the user's cache folder, by hash of the text. Vectors reveal something of their texts;
`scope-edge eval --no-cache` keeps none.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import AssetError, PackError
from scope_edge.storage.packs import read_pack, write_pack
from scope_edge.types import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.encoding.encoder import Encoder
    from scope_edge.training.dataset import Progress
    from scope_edge.types import Vector

_KIND = "embeddings"
# The most texts in the cache; beyond it only those of the last run are kept.
_MOST = 100_000
_SAVED_EVERY = 4_000


def embed(
    texts: Sequence[str], encoder: Encoder, folder: Path | None = None, progress: Progress | None = None
) -> tuple[Vector, Vector]:
    """Return unit vectors and states, (n, d) each, float32. folder: of the cache; None = no cache.

    An interrupted run keeps its results. A damaged or unwritable cache is no error.
    """
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    path = None if folder is None else folder / f"embeddings-{encoder.identity[:16]}.pack"
    known = {} if path is None else _read(path, encoder)
    # A repeated text is encoded once, at its first position.
    first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in known}
    wanted = sorted(first.values())
    saved = 0
    try:
        for done, encoded in enumerate(encoder.encode_many(Query(texts[i]) for i in wanted), 1):
            known[keys[wanted[done - 1]]] = np.stack([encoded.vector, encoded.state])
            if progress is not None:
                progress("encoding", done, len(wanted))
            if path is not None and done - saved >= _SAVED_EVERY:
                _write(path, encoder, known, keys)
                saved = done
    finally:
        if path is not None and wanted:
            _write(path, encoder, known, keys)
    both = np.array([known[key] for key in keys], np.float32).reshape(len(keys), 2, encoder.dimension)
    return both[:, 0], both[:, 1]


def _read(path: Path, encoder: Encoder) -> dict[bytes, Vector]:
    with contextlib.suppress(PackError, KeyError, ValueError, AttributeError):
        body = read_pack(path, _KIND)
        keys, encoded = body["keys"], body["encoded"]
        if body["encoder"] == encoder.identity and encoded.shape == (len(keys), 2, encoder.dimension):
            return dict(zip(map(bytes, keys), encoded, strict=True))
    return {}


def _write(path: Path, encoder: Encoder, known: dict[bytes, Vector], present: Sequence[bytes]) -> None:
    kept = known if len(known) <= _MOST else {key: known[key] for key in present[:_MOST] if key in known}
    keys: NDArray[np.uint8] = np.frombuffer(b"".join(kept), np.uint8).reshape(len(kept), -1)
    with contextlib.suppress(AssetError):
        write_pack(path, _KIND, {"encoder": encoder.identity, "keys": keys, "encoded": np.array(list(kept.values()))})
