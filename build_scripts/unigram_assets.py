"""The arrays of scope_edge/encoding/unigram.py, made from a SentencePiece model file.

A model is a protocol buffer: `pieces` in field 1 (text 1, score 2) and, in this one, the normalizer in field 3, with the
replacements of characters in its field 2: the size of a Darts-clone double array, the array, and the replacements.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from scope_edge.encoding.unigram import SPACE

Ints = NDArray[np.uint32]
# Blocks of units in which free ones are looked for; labels differ from their base in the last 8 bits only.
_BLOCK = 256


def unigram_body(model: bytes) -> dict[str, NDArray[np.generic]]:
    """Return the tokenizer's arrays. Raises ValueError for a model of another kind."""
    pieces: dict[bytes, int] = {}
    scores: list[float] = []
    charsmap = b""
    for number, value in _fields(model):
        if number == 1:
            piece = dict(_fields(value))
            text = piece[1].decode()
            if SPACE in text[1:]:
                raise ValueError(f"piece {text!r}: a space inside, which this tokenizer does not cut by words")
            pieces[text.replace(SPACE, " ").encode()] = len(scores)
            scores.append(struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0)
        elif number == 3:
            charsmap = dict(_fields(value))[2]
    (size,) = struct.unpack_from("<I", charsmap)
    return {
        "pieces": double_array(pieces),
        "scores": np.array(scores, np.float32),
        "characters": np.frombuffer(charsmap, "<u4", size // 4, 4),
        "replacements": np.frombuffer(charsmap, np.uint8, offset=4 + size),
    }


def double_array(values: Mapping[bytes, int]) -> Ints:
    """Return a trie of byte strings without a 0 as the units that unigram.py describes."""
    children: list[dict[int, int]] = [{}]
    value_of: dict[int, int] = {}
    for key in sorted(values):
        node = 0
        for byte in key:
            if byte not in children[node]:
                children[node][byte] = len(children)
                children.append({})
            node = children[node][byte]
        value_of[node] = values[key]
    slots = _Slots()
    units = {0: 0}
    todo = [(0, 0)]
    while todo:
        node, at = todo.pop()
        labels = [*([0] if node in value_of else []), *children[node]]
        base = slots.place(labels)
        units[at] |= base << 9 | (256 if node in value_of else 0)
        if node in value_of:
            units[base] = value_of[node] << 9
        for label, child in children[node].items():
            units[base ^ label] = label
            todo.append((child, base ^ label))
    array = np.zeros((max(units) // _BLOCK + 1) * _BLOCK, np.uint32)
    array[list(units)] = list(units.values())
    return array


class _Slots:
    """Free units, found first fit; no two nodes have one base, so that a label is enough to tell a child from a stranger's."""

    def __init__(self) -> None:
        self._free: list[set[int]] = []
        self._open: list[int] = []
        self._bases: set[int] = set()
        self._grow()
        self._free[0].discard(0)
        self._bases.add(0)

    def _grow(self) -> None:
        start = len(self._free) * _BLOCK
        self._open.append(len(self._free))
        self._free.append(set(range(start, start + _BLOCK)))

    def place(self, labels: list[int]) -> int:
        """Return an unused base whose units for all labels are free, and take them."""
        if not labels:
            raise ValueError("a node without children or value")
        while True:
            for block in self._open[-64:]:
                free = self._free[block]
                for slot in free:
                    base = slot ^ labels[0]
                    if base not in self._bases and all(base ^ label in free for label in labels):
                        self._take(block, base, labels)
                        return base
            self._grow()

    def _take(self, block: int, base: int, labels: list[int]) -> None:
        self._bases.add(base)
        self._free[block].difference_update(base ^ label for label in labels)
        if len(self._free[block]) < 4:
            self._open.remove(block)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (number, bytes) of a message's fields; numbers as their varint's value in 8 bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, struct.pack("<Q", varint())
            continue
        length = {1: 8, 5: 4}.get(kind) or varint()
        yield number, message[at : at + length]
        at += length
