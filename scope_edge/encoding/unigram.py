"""A SentencePiece unigram tokenizer of 128,000 pieces that is ready in a millisecond: its tries are flat arrays.

Kudo (2018, arXiv 1804.10959): of all ways to cut a text into pieces, the one with the greatest sum of log-probabilities
(Viterbi). No piece has a space behind its first character, so every word is cut by itself, and common words are kept.

The pieces' trie is an array of uint32 units, `base << 9 | holds << 8 | label`: byte `c` leads from a node to unit
`base ^ c`, if that one's label is `c`. Where `holds` is set, unit `base` is the value of the bytes so far, shifted by 9.
Bytes are never 0. build_scripts/unigram_assets.py writes it. The trie of characters is the model's own, in Darts-clone's
format, which shares equal ends: a unit holds its distance to its children instead of their place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPACE = "\u2581"
# Below the least probable piece, for a character that no piece has.
_UNKNOWN_PENALTY = 10.0
# Words kept, and the longest of them in bytes: about 1 MB.
_KEPT, _KEPT_BYTES = 4096, 32
# One word with the space before it.
_WORD = re.compile(rb" [^ ]*")
# What replacement of characters may change: anything beyond ASCII, and the ASCII character it may combine with.
_FOREIGN = re.compile(r"[\0-\x7f]?[^\0-\x7f]+")
_BLANKS = str.maketrans({"\t": " ", "\n": " ", "\f": " ", "\r": " ", "\0": "\1"})
_LOWEST = -1e38


class Unigram:
    """The tokenizer. Its methods may be called from several threads at once."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        """Make a tokenizer of the pack's arrays. The first two are cut into planes of bytes, (4, n), which zip better.

        body: `pieces`, a trie of UTF-8 pieces (a space for "\u2581") to ids; `scores`, float32, by id; `characters`, a
        Darts-clone trie of character sequences to offsets in `replacements`, their UTF-8 forms, each with a 0 behind it;
        `special`, the ids of an unknown character, the beginning and the end.
        """
        # A memory view's numbers are read four times as fast as an array's.
        pieces, scores = _joined(body["pieces"], "<u4"), _joined(body["scores"], "<f4")
        self._pieces, self._scores, self._characters = pieces.data, scores.data, np.array(body["characters"]).data
        self._replacements = bytes(body["replacements"])
        self._unknown, self.first, self.last = body["special"].tolist()
        self._unknown_score = float(scores.min()) - _UNKNOWN_PENALTY
        self._kept: dict[bytes, list[int]] = {}

    def ids(self, text: str, limit: int) -> list[int]:
        """Return the first `limit` ids of a text without lone surrogates, those of its beginning and end not included."""
        raw = self._normalized(text)
        if not raw:
            return [self._unknown]
        ids: list[int] = []
        for match in _WORD.finditer(raw):
            ids += self._word(match[0])
            if len(ids) >= limit:
                break
        return ids[:limit]

    def _normalized(self, text: str) -> bytes:
        """Return UTF-8 with characters replaced, one space before each word, and none at the end."""
        text = text.translate(_BLANKS)
        if not text.isascii():
            text = _FOREIGN.sub(lambda match: self._replaced(match[0].encode()), text)
        text = " ".join(filter(None, text.split(" ")))
        return (" " + text.replace(SPACE, " ")).rstrip(" ").encode()

    def _replaced(self, raw: bytes) -> str:
        """Replace the longest known sequences of characters, from left to right."""
        units, parts = self._characters, []
        at, end = 0, len(raw)
        while at < end:
            node, known, value = _distance(units[0]), 0, 0
            for i in range(at, end):
                node ^= raw[i]
                unit = units[node]
                if unit & 0x800000FF != raw[i]:
                    break
                node ^= _distance(unit)
                if unit & 256:
                    known, value = i + 1, units[node] & 0x7FFFFFFF
            if known:
                parts.append(self._replacements[value : self._replacements.index(0, value)])
            else:
                known = at + 1
                while known < end and raw[known] & 0xC0 == 0x80:
                    known += 1
                parts.append(raw[at:known])
            at = known
        return b"".join(parts).decode()

    def _word(self, word: bytes) -> list[int]:
        ids = self._kept.get(word)
        if ids is None:
            ids = self._cut(word)
            if len(word) <= _KEPT_BYTES:
                if len(self._kept) >= _KEPT:
                    self._kept.clear()
                self._kept[word] = ids
        return ids

    def _cut(self, word: bytes) -> list[int]:
        """Return the ids of the most probable pieces of a word; of equals, that whose last piece is longest."""
        units, scores, end = self._pieces, self._scores, len(word)
        root = units[0] >> 9
        best, came_from, piece = [0.0] + [_LOWEST] * end, [0] * (end + 1), [self._unknown] * (end + 1)
        for start in range(end):
            here = best[start]
            if here == _LOWEST:  # Inside a character.
                continue
            single = start + 1
            while single < end and word[single] & 0xC0 == 0x80:
                single += 1
            base, alone = root, False
            for i in range(start, end):
                byte = word[i]
                unit = units[base ^ byte]
                if unit & 255 != byte:
                    break
                base = unit >> 9
                if unit & 256:
                    id = units[base] >> 9
                    score, after = here + scores[id], i + 1
                    if score > best[after]:
                        best[after], came_from[after], piece[after] = score, start, id
                    alone = alone or after == single
            if not alone and here + self._unknown_score > best[single]:
                best[single], came_from[single], piece[single] = here + self._unknown_score, start, self._unknown
        ids, at = [], end
        while at > 0:
            ids.append(piece[at])
            at = came_from[at]
        return ids[::-1]


def _joined(planes: NDArray[np.uint8], kind: str) -> NDArray[Any]:
    """Return the numbers of planes of bytes, lowest first; the copy is aligned, as a memory view needs it."""
    return np.ascontiguousarray(planes.T).view(kind).ravel()


def _distance(unit: int) -> int:
    """Return the distance of a Darts-clone unit to its children."""
    return (unit >> 10) << ((unit & 0x200) >> 6)
