"""A GGUF that writes what is known beforehand, on any processor: its logits are far apart, whatever a kernel rounds.

Attention and feed-forward add nothing, so the next token depends on the last one alone. Every word of the vocabulary leads to
another word, in one ring, and with a lower chance to a second one: `ring` and `after` say to which. Two words are signposts:
"word" leads to the two bytes of "é", one token each, and on from there; "end" leads to the end of the turn.
The chat template leaves the last message open, so that a text goes on from the last word of what a user wrote.
"""

from __future__ import annotations

import functools
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tiny_qwen3 import Dimensions, make_checkpoint, read_json, tokenizer, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiny_qwen3 import Floats

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% if not loop.last %}<|im_end|>\n{% endif %}{% endfor %}"
)
ACCENT, FINISH = " word", " end"
# Logits of the next word and of the second choice; everything else is below a half of it.
_FIRST, _SECOND = 40.0, 39.0
_HIDDEN = 256


@functools.cache
def ring() -> tuple[str, ...]:
    """The words in their order; after the last one comes the first."""
    words = [word for word in _ids() if word.startswith("Ġ") and word[1:].isascii() and word[1:].isalpha()]
    signs = {"Ġ" + one.strip() for one in (ACCENT, FINISH)}
    chosen = np.array(sorted(word for word in words if len(word) > 3 and word not in signs))
    return tuple(" " + word[1:] for word in np.random.default_rng(0).permutation(chosen).tolist())


def after(last: str, count: int) -> str:
    """The likeliest text of so many tokens after a prompt's last token, which is of the ring or none of the signposts."""
    start = ring().index(last) + 1 if last in ring() else _id(last)
    return "".join(ring()[(start + i) % len(ring())] for i in range(count))


def scripted_gguf(folder: Path) -> Path:
    """Write the GGUF into `folder`, and return its path."""
    from scope_edge.estimator.convert.gguf import convert_checkpoint

    dimensions = Dimensions(hidden=_HIDDEN, heads=2, kv_heads=1)
    checkpoint = make_checkpoint(folder / "scripted", dimensions, tied=False, dtype="float32", values=_weights)
    settings = read_json(checkpoint / "tokenizer_config.json")
    write_json(checkpoint / "tokenizer_config.json", {**settings, "chat_template": TEMPLATE})
    target = folder / "scripted.gguf"
    convert_checkpoint(checkpoint, target, dtype="f16")
    return target


@functools.cache
def _ids() -> dict[str, int]:
    words: dict[str, int] = tokenizer()["model"]["vocab"]
    return words


def _id(text: str) -> int:
    return _ids()[text.replace(" ", "Ġ")]


def _weights(name: str, shape: tuple[int, ...], seed: int) -> Floats:
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    if name == "lm_head.weight":
        return _head(shape, seed)
    if name == "model.embed_tokens.weight":
        draw = np.random.default_rng([seed, zlib.crc32(name.encode())])
        rows = draw.standard_normal(shape, dtype=np.float32)
        # Unit rows, so that the product of a row with itself is 1 and with any other is small.
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.zeros(shape, np.float32)


def _head(shape: tuple[int, ...], seed: int) -> Floats:
    """Rows that give every token's successors their logits. The final norm makes a token's row the root of `hidden` long."""
    rows = _weights("model.embed_tokens.weight", shape, seed)
    tokens, successors, logits = (np.array(column) for column in zip(*_leads(), strict=True))
    scale = np.float32(_HIDDEN**0.5)
    head = np.zeros(shape, np.float32)
    for _ in range(20):  # rows are nearly at right angles to each other: what is missing after a round is ever less
        missing = logits - scale * (rows[tokens] * head[successors]).sum(axis=1)
        np.add.at(head, successors, rows[tokens] * (missing / scale)[:, None].astype(np.float32))
    return head


def _leads() -> Iterator[tuple[int, int, float]]:
    """Tokens, what comes after them, and with what logit."""
    words = [_id(word) for word in ring()]
    for i, token in enumerate(words):
        yield token, words[(i + 1) % len(words)], _FIRST
        yield token, words[(i + len(words) // 2) % len(words)], _SECOND
    high, low = (_ids()[letter] for letter in ("Ã", "©"))  # how byte-level BPE spells the bytes of "é"
    yield _id(ACCENT), high, _FIRST
    yield high, low, _FIRST
    yield low, words[0], _FIRST
    end = next(row["id"] for row in tokenizer()["added_tokens"] if row["content"] == "<|im_end|>")
    yield _id(FINISH), end, _FIRST
    # What no word of the ring is, the last token of a prompt, begins it somewhere.
    for token in set(_ids().values()) - {*words, high, low, _id(ACCENT), _id(FINISH)}:
        yield token, words[token % len(words)], _FIRST
