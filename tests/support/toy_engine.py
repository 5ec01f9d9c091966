"""An engine whose next token depends on everything before it, in pure Python: the oracle for what batching may not change.

It keeps cells as llama.cpp does (a sequence is a list of shared cells) and refuses what llama.cpp would refuse: a position
out of order, more cells than there are, logits nobody may read.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tiny_qwen3
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray


MARKER = "Predicted Performance:"


@functools.cache
def vocabulary() -> Tokenizer:
    """The tokenizer of tiny_qwen3."""
    return Tokenizer.from_str(json.dumps(tiny_qwen3.tokenizer()))


def tokenize(text: str) -> list[int]:
    found: list[int] = vocabulary().encode(text, add_special_tokens=False).ids
    return found


def piece(token: int) -> bytes:
    """What a token spells: byte-level BPE writes every byte as one letter, those that print as themselves."""
    word = vocabulary().id_to_token(token)
    if word is None or word in (*tiny_qwen3.SPECIAL, *tiny_qwen3.USER_DEFINED):
        return b""
    return bytes(_bytes()[letter] for letter in word)


@functools.cache
def _bytes() -> dict[str, int]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


class ToyEngine:
    """`native.Native` over the small vocabulary of tiny_qwen3. It likes to begin lines, and answers on some of them."""

    def __init__(self, context: int) -> None:
        self.context = self.longest = context
        self.rewinds, self.threads = True, 2
        self.size = vocabulary().get_vocab_size()
        self.end = vocabulary().token_to_id("<|im_end|>")
        self._marker, self._newline = tokenize(MARKER), tokenize("\n")[0]
        self._sequences: dict[int, list[tuple[int, int]]] = {}
        self._cells = 0
        self.decodes: list[int] = []

    def tokenize(self, text: str, *, markup: bool = False) -> list[int]:
        return tokenize(text)

    def piece(self, token: int) -> bytes:
        return piece(token)

    def ends(self, token: int) -> bool:
        return token == self.end

    def share(self, source: int, target: int, length: int) -> None:
        assert len(self._sequences.get(source, [])) >= length, "shares what is not there"
        assert not self._sequences.get(target), "shares into a sequence in use"
        self._sequences[target] = self._sequences[source][:length]

    def forget(self, sequence: int, start: int = 0) -> None:
        self._sequences[sequence] = self._sequences.get(sequence, [])[:start]

    def clear(self) -> None:
        self._sequences = {}

    @property
    def cells(self) -> int:
        """Cells in use, shared ones counted once."""
        return len({cell for cells in self._sequences.values() for cell, _ in cells})

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int], wanted: Sequence[bool]
    ) -> NDArray[np.float32] | None:
        self.decodes.append(len(tokens))
        rows = []
        for token, position, sequence, want in zip(tokens, positions, sequences, wanted, strict=True):
            cells = self._sequences.setdefault(sequence, [])
            assert position == len(cells), f"position {position} after {len(cells)} tokens of sequence {sequence}"
            self._cells += 1
            cells.append((self._cells, token))
            if want:
                rows.append(self.logits([held for _, held in cells]))
        assert self.cells <= self.context, f"{self.cells} cells of {self.context}"
        return np.array(rows, np.float32).reshape(len(rows), self.size)

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """What follows: a fixed random function of the whole text."""
        draw = np.random.default_rng(zlib.crc32(np.array(tokens, np.int32).tobytes()))
        row = draw.standard_normal(self.size).astype(np.float32) * 2
        begun = next((k for k in range(len(self._marker) - 1, 0, -1) if list(tokens[-k:]) == self._marker[:k]), 0)
        chance = draw.random()
        if begun:
            row[self._marker[begun]] = 30.0
        elif tokens[-1] == self._newline and chance < 0.3:
            row[self._marker[0]] = 30.0
        elif chance < 0.1:
            row[self._newline] = 30.0
        elif chance < 0.12:
            row[self.end] = 30.0
        return row
