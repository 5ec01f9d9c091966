"""Text of 16 languages to unit vector: universal-sentence-encoder-multilingual 3 (Yang et al. 2019, arXiv 1907.04307).

Tokens' vectors are rows of integers in a table of their low four bits and, for the first rows, one of the bits above. The
tables stay on the disk, and a query reads its own rows. So they are not hashed at every start; `scope-edge doctor` does it.
One text is one run, however long, on one core.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.encoding.session import frugal_run, open_session
from scope_edge.encoding.unicode import replace_surrogates
from scope_edge.encoding.unigram import Unigram
from scope_edge.errors import AssetError
from scope_edge.storage import assets
from scope_edge.storage.packs import reading, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.types import Vector

NET = "models/multilingual/net.onnx"
PIECES = "models/multilingual/pieces.pack"
LOW, HIGH = "models/multilingual/low.npy", "models/multilingual/high.npy"
FILES = (NET, PIECES, LOW, HIGH)
DIMENSION = 512
KIND = "unigram"
# What the net's input counts as 0, and what half a byte does.
ZERO, HALF_ZERO = 64, 8
# Tokens of a text whose run takes so much memory (20 kB each) that it is not kept.
_LONG = 300
_SIGNATURE = ("rows", "kinds", "windows", "embedding")


class MultilingualEncoder:
    """The encoder, loaded. Its methods may be called from several threads at once."""

    def __init__(self, characters: int, tokens: int) -> None:
        """Load the bundled encoder. It reads at most this many characters of a text, and this many of their tokens.

        Raises AssetError (files missing, damaged or unusable).
        """
        self._characters, self._most = characters, tokens
        self._session, self._frugal = open_session(assets.read(NET), NET, _SIGNATURE), frugal_run()
        body = unpack(assets.read(PIECES), KIND, PIECES, verified=True)
        with reading(PIECES, "tokenizer"):
            self._unigram = Unigram(body)
            self._kinds = body["kinds"]
        self._low, self._high = _table(LOW), _table(HIGH)
        if len(self._low) != len(self._kinds):
            raise AssetError(f"{LOW}: not the rows of the tokenizer's pieces; reinstall scope-edge")
        self._windows = np.arange(tokens + 2)[:, None] + np.arange(5)

    @staticmethod
    def identity() -> str:
        """Return one sha256 for all bundled files of this encoder."""
        return hashlib.sha256("".join(assets.asset(name).sha256 for name in FILES).encode()).hexdigest()

    def encode(self, text: str) -> Vector:
        """Return the unit vector, shape (512,), float32, of the part of a text that is read. Any text has one."""
        rows = np.array([self._unigram.first, *self.ids(text), self._unigram.last])
        feed = {
            "rows": self._rows(rows),
            "kinds": self._kinds[rows].astype(np.int64),
            "windows": self._windows[: len(rows)],
        }
        options = self._frugal if len(rows) > _LONG else None
        vector: Vector = self._session.run(None, feed, options)[0][0]
        return vector

    def ids(self, text: str) -> list[int]:
        """Return the ids of the pieces that are read, those of the beginning and the end not included."""
        return self._unigram.ids(replace_surrogates(text[: self._characters]), self._most)

    def _rows(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the integers of tokens' vectors, (tokens, 512)."""
        rows = _whole(self._low[ids]) + np.uint8(ZERO - HALF_ZERO)
        wide = ids < len(self._high)
        # Bytes wrap around, so that what is above 0 and below it need no types of their own.
        rows[wide] += (_whole(self._high[ids[wide]]) - np.uint8(HALF_ZERO)) << 4
        return rows


def _whole(halves: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return half bytes as bytes, (tokens, 512)."""
    return np.concatenate([halves >> 4, halves & 15], axis=1)


def _table(name: str) -> NDArray[np.uint8]:
    """Open a table on the disk. Raises AssetError when it is not what the manifest lists, by its size and its header."""
    path, entry = assets.bundled_root() / name, assets.asset(name)
    try:
        size = path.stat().st_size
        table: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise AssetError(f"{path}: cannot be read ({error}); reinstall scope-edge") from error
    if size != entry.size or table.dtype != np.uint8 or table.ndim != 2 or table.shape[1] != DIMENSION // 2:
        raise AssetError(
            f"{path}: expected {entry.size} bytes of rows of {DIMENSION // 2}, found {size}; reinstall scope-edge"
        )
    # A plain array: each of its slices would otherwise carry the file with it.
    rows: NDArray[np.uint8] = table.view(np.ndarray)
    return rows
