"""Writes a GGUF of Qwen3's shape with random weights, already quantized: for timing the native path without any download.

    python benchmarks/random_gguf.py 0.6b random-0.6b.gguf
    python benchmarks/random_gguf.py 4b random-4b.gguf --type f16

Needs the `convert` extra. What such a model says is noise; how long it takes to say it is real. Blocks are drawn at random
with scales that give weights of a trained model's size, in the mix of types that Q4_K_M has (llama.cpp's rule: half of the
value and down projections, and the embedding, in Q6_K). The vocabulary is byte-level BPE learned from our own pages and
filled up to Qwen3's 151,936 entries.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

VOCABULARY = 151_936
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
HERE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Size:
    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head: int = 128


# Shapes as in the released Qwen3 configurations.
SIZES = {
    "tiny": Size(4, 256, 768, 4, 2, 64),
    "0.6b": Size(28, 1024, 3072, 16, 8),
    "1.7b": Size(28, 2048, 6144, 16, 8),
    "4b": Size(36, 2560, 9728, 32, 8),
}


def blocks(kind: Kind, rows: int, columns: int, draw: np.random.Generator) -> np.ndarray:
    """Random weights of standard deviation about 0.02, as raw blocks of shape (rows, bytes a row)."""
    if kind in (Kind.F16, Kind.F32):
        values = draw.standard_normal((rows, columns), np.float32) * np.float32(0.02)
        return values.astype(np.float16 if kind == Kind.F16 else np.float32)
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    count = rows * columns // elements
    raw = np.frombuffer(draw.bytes(count * size), np.uint8).reshape(count, size).copy()
    if kind == Kind.Q4_K:
        # d, dmin (half floats), scales, quants: weight = d sc q - dmin m, and 7.5 d = dmin puts its mean at 0.
        raw[:, :4] = np.array([1e-4, 7.5e-4], np.float16).view(np.uint8)
    elif kind == Kind.Q6_K:
        raw[:, -2:] = np.array([1.5e-5], np.float16).view(np.uint8)
    elif kind == Kind.Q8_0:
        raw[:, :2] = np.array([2.7e-4], np.float16).view(np.uint8)
    else:
        raise SystemExit(f"no random blocks for {kind.name}")
    return raw.reshape(rows, -1)


def kind_of(name: str, layer: int, layers: int, base: str) -> Kind:
    if base != "q4_k_m":
        return {"f16": Kind.F16, "q8_0": Kind.Q8_0}[base]
    more = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    return Kind.Q6_K if name == "token_embd" or (name in ("attn_v", "ffn_down") and more) else Kind.Q4_K


def tensors(size: Size) -> list[tuple[str, int, int, int]]:
    """(name, layer, rows, columns) of every matrix."""
    q, kv = size.heads * size.head, size.kv_heads * size.head
    found = [("token_embd", -1, VOCABULARY, size.width)]
    for layer in range(size.layers):
        found += [
            ("attn_q", layer, q, size.width),
            ("attn_k", layer, kv, size.width),
            ("attn_v", layer, kv, size.width),
            ("attn_output", layer, size.width, q),
            ("ffn_gate", layer, size.inner, size.width),
            ("ffn_up", layer, size.inner, size.width),
            ("ffn_down", layer, size.width, size.inner),
        ]
    return found


def vocabulary() -> tuple[list[str], list[str]]:
    """(tokens, merges) of byte-level BPE with Qwen's splitting, learned from this project's pages."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    pages = [path.read_text("utf-8") for path in (HERE / "README.md", *sorted((HERE / "docs").glob("*.md")))]
    answers = [f"Predicted Performance: {{len: {n}, correct: {'yes' if n % 2 else 'no'}}}" for n in range(2000)]
    learner.train_from_iterator(
        pages + answers,
        trainers.BpeTrainer(
            vocab_size=20_000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    import json

    body: dict[str, Any] = json.loads(learner.to_str())["model"]
    tokens = sorted(body["vocab"], key=body["vocab"].__getitem__)
    return tokens, [" ".join(pair) if isinstance(pair, list) else pair for pair in body["merges"]]


def add_vocabulary(writer: gguf.GGUFWriter) -> None:
    tokens, merges = vocabulary()
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    first = len(tokens)
    filler = [f"[PAD{i}]" for i in range(first + len(control), VOCABULARY)]
    # Not "unused": llama.cpp shows no text for those, and nearly all that such a model says are fillers.
    kinds = [gguf.TokenType.NORMAL] * first + [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * len(filler)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens + control + filler)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(first)
    writer.add_eos_token_id(first + 2)
    writer.add_pad_token_id(first)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def write(size: Size, path: Path, base: str, seed: int = 0) -> None:
    """Write the file; takes seconds a gigabyte."""
    draw = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_name(f"random weights, {base}")
    writer.add_block_count(size.layers)
    writer.add_context_length(40_960)
    writer.add_embedding_length(size.width)
    writer.add_feed_forward_length(size.inner)
    writer.add_head_count(size.heads)
    writer.add_head_count_kv(size.kv_heads)
    writer.add_key_length(size.head)
    writer.add_value_length(size.head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_file_type({"q4_k_m": 15, "q8_0": 7, "f16": 1}[base])
    add_vocabulary(writer)
    plan = []
    for name, layer, rows, columns in tensors(size):
        kind = kind_of(name, layer, size.layers, base)
        full = f"blk.{layer}.{name}.weight" if layer >= 0 else f"{name}.weight"
        elements, bytes_ = gguf.GGML_QUANT_SIZES[kind]
        quantized = kind not in (Kind.F16, Kind.F32)
        shape = (rows, columns // elements * bytes_) if quantized else (rows, columns)
        dtype = np.dtype(np.uint8 if quantized else np.float16)
        count = rows * columns // elements * bytes_
        writer.add_tensor_info(full, shape, dtype, count, raw_dtype=kind if quantized else None)
        plan.append((kind, rows, columns))
    for layer in range(-1, size.layers):
        names = ["output_norm"] if layer < 0 else ["attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm"]
        for name in names:
            full = f"blk.{layer}.{name}.weight" if layer >= 0 else f"{name}.weight"
            width = size.head if name.endswith(("q_norm", "k_norm")) else size.width
            writer.add_tensor_info(full, (width,), np.dtype(np.float32), 4 * width)
            plan.append((Kind.F32, 1, -width))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for kind, rows, columns in plan:
        writer.write_tensor_data(np.ones(-columns, np.float32) if columns < 0 else blocks(kind, rows, columns, draw))
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=sorted(SIZES))
    parser.add_argument("path", type=Path)
    parser.add_argument("--type", default="q4_k_m", choices=("q4_k_m", "q8_0", "f16"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write(SIZES[options.size], options.path, options.type, options.seed)
    print(f"{options.path}: {options.path.stat().st_size / 1e9:.2f} GB")
