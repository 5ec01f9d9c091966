"""What conversion and quantization keep, measured on random Qwen3 models made by transformers.

    python build_scripts/measure_conversion.py [--data ROUTING_DATA/zeroeval ...] [--vocabulary ggml-vocab-qwen2.gguf]
        [--write docs/estimator.md]

Logits of llama.cpp against torch; tokens of llama.cpp against the tokenizers library, for a small vocabulary made here and
for one taken from any GGUF with Qwen's splitting; how far each quantization moves what a model predicts. llama.cpp runs in
child processes. Nothing of the texts is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))  # the judges are the tests' own

from ask_llama import ask  # noqa: E402
from figures import write_figures  # noqa: E402
from hard_texts import HARD_TEXTS  # noqa: E402
from numpy_qwen3 import log_softmax  # noqa: E402
from tiny_qwen3 import sentences, tokenizer, write_json  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from scope_edge.estimator.convert.gguf import convert_checkpoint  # noqa: E402
from scope_edge.estimator.convert.quantize import QUANTS, quantize_gguf  # noqa: E402
from scope_edge.fingerprinting.importing.routing_data import read_queries  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

TOP = 20
PROMPTS = 20
QUERIES = 200
# A quantization's drift is measured where an answer line breaks off, as the estimator's P(yes) is read there.
ASKING = "### Output:\nAnalysis: {}\nPredicted Performance: {{len: {}, correct:"
# What a child that converts imports, and how it says its peak resident memory in KB (Linux; since it began, unlike rusage).
IMPORTS = """
from pathlib import Path
import gguf, safetensors
from scope_edge.estimator.convert.gguf import convert_checkpoint
"""
PEAK = "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"


@dataclass(frozen=True, slots=True)
class Size:
    """Of a random model."""

    layers: int
    hidden: int
    heads: int
    feed_forward: int
    rows: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders in the routing data format")
    parser.add_argument("--vocabulary", type=Path, help="a GGUF whose tokens and merges make a second tokenizer")
    parser.add_argument("--layers", type=int, default=12, help="of the model that is quantized, 1,024 wide")
    parser.add_argument("--write", type=Path, help="put the tables between <!-- figures: conversion --> of this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = "\n\n".join(
            [
                _table("| model | GGUF | largest Δ log p | median over prompts |", logits(folder)),
                _table(
                    "| vocabulary | texts | how | differ | differ once composed (NFC) |",
                    vocabularies(folder, options.vocabulary, _queries(options.data)),
                ),
                _table(
                    "| GGUF | size | mean KL, nats | same first choice | Δ P(yes), mean | Δ P(yes), largest |",
                    quantizations(folder, options.layers),
                ),
                memory(folder),
            ]
        )
    print(text)
    if options.write:
        write_figures(options.write, text, "conversion")


def logits(folder: Path) -> Iterator[str]:
    """llama.cpp against torch in f32 on the same weights, after every token of every prompt, over torch's first 20."""
    prompts = _prompts(PROMPTS)
    for tied in (True, False):
        source = _model(folder / f"model-{tied}", Size(4, 256, 8, 768, 1920), tied=tied, seed=5 + tied)
        expected = _torch(source, prompts)
        for dtype in ("f16", "bf16"):
            convert_checkpoint(source, folder / "it.gguf", dtype=dtype)
            found = [log_softmax(one) for one in ask(folder / "it.gguf", prompts=prompts).logits]
            worst = [_largest(p, q) for p, q in zip(expected, found, strict=True)]
            name = f"4 layers, {'tied' if tied else 'untied'}"
            yield f"| {name} | {dtype} | {max(worst):.4f} | {np.median(worst):.4f} |"


def _largest(expected: Floats, found: Floats) -> float:
    top = np.argsort(-expected, axis=1)[:, :TOP]
    return float(np.abs(np.take_along_axis(expected - found, top, 1)).max())


def vocabularies(folder: Path, vocabulary: Path | None, queries: Sequence[str]) -> Iterator[str]:
    """Texts that llama.cpp reads as other tokens than the tokenizers library does, before and after composing them."""
    known: dict[str, dict[str, Any]] = {"made here": tokenizer()}
    if vocabulary is not None:
        known[vocabulary.stem] = _tokenizer_of(vocabulary)
    for name, body in known.items():
        rows = len(body["model"]["vocab"]) + len(body["added_tokens"])
        source = _model(folder / f"words-{name}", Size(1, 64, 2, 64, rows), words=body)
        convert_checkpoint(source, folder / "it.gguf")
        judge = Tokenizer.from_str(json.dumps(body))
        for kind, texts in (("hard", HARD_TEXTS), ("queries", queries)):
            for markup in (False, True):
                judge.encode_special_tokens = not markup
                as_is, composed = (
                    _differences(judge, folder / "it.gguf", some, markup)
                    for some in (texts, [unicodedata.normalize("NFC", text) for text in texts])
                )
                how = "control tokens count" if markup else "plain text"
                yield f"| {name}, {rows:,} tokens | {len(texts)} {kind} | {how} | {as_is} | {composed} |"


def _differences(judge: Tokenizer, gguf: Path, texts: Sequence[str], markup: bool) -> int:
    found = ask(gguf, texts=[(text, markup) for text in texts]).tokens
    return sum(judge.encode(text).ids != tokens for text, tokens in zip(texts, found, strict=True))


def quantizations(folder: Path, layers: int) -> Iterator[str]:
    """Each kind against f16, both by llama.cpp: what it predicts at the end of answer lines that break off before yes or no."""
    source = _model(folder / "wide", Size(layers, 1024, 16, 3072, 1920), seed=9)
    base = folder / "f16.gguf"
    convert_checkpoint(source, base, dtype="f16")
    words = Tokenizer.from_str(json.dumps(tokenizer()))
    draw = np.random.default_rng(3)
    prompts = [words.encode(ASKING.format(" ".join(sentences(3, i)), draw.integers(1, 2000))).ids for i in range(40)]
    answers = [words.get_vocab()[f"Ġ{word}"] for word in ("yes", "no")]
    expected = _last(base, prompts)
    for quant in reversed(QUANTS):
        target = folder / f"{quant}.gguf"
        quantize_gguf(base, target, quant)
        found = _last(target, prompts)
        divergence = (np.exp(expected) * (expected - found)).sum(axis=1).mean()
        same = (expected.argmax(axis=1) == found.argmax(axis=1)).mean()
        moved = np.abs(_yes(expected, answers) - _yes(found, answers))
        size = target.stat().st_size / base.stat().st_size
        yield f"| {quant} | {size:.0%} | {divergence:.5f} | {same:.0%} | {moved.mean():.4f} | {moved.max():.4f} |"


def _last(gguf: Path, prompts: Sequence[Sequence[int]]) -> Floats:
    return np.array([log_softmax(one[-1]) for one in ask(gguf, prompts=prompts, threads=2).logits])


def _yes(logs: Floats, answers: Sequence[int]) -> Floats:
    """P(yes) against no, shape (prompts,)."""
    yes, no = (logs[:, token] for token in answers)
    probability: Floats = 1 / (1 + np.exp(no - yes))
    return probability


def memory(folder: Path) -> str:
    """Peak resident memory of a process that converts the wide model, beyond one that has only imported what it needs."""
    source = folder / "wide"
    idle = _child(IMPORTS + PEAK)
    work = f"convert_checkpoint(Path({str(source)!r}), Path({str(folder / 'again.gguf')!r}))\n"
    busy = _child(IMPORTS + work + PEAK)
    sizes = [path.stat().st_size for path in source.glob("*.safetensors")]
    return (
        f"Converting a checkpoint of {sum(sizes) / 1e6:.0f} MB in {len(sizes)} shards (the largest {max(sizes) / 1e6:.0f} MB) "
        f"took {(busy - idle) / 1e3:.0f} MB beyond the {idle / 1e3:.0f} MB of a process that has imported what it needs."
    )


def _child(code: str) -> int:
    """The number that a child prints."""
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT).stdout)


def _model(folder: Path, size: Size, *, words: dict[str, Any] | None = None, tied: bool = True, seed: int = 0) -> Path:
    """A random Qwen3 in bf16 as transformers saves it, in shards of at most 100 MB, with a tokenizer."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=size.rows,
        hidden_size=size.hidden,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads // 2,
        head_dim=64,
        tie_word_embeddings=tied,
        max_position_embeddings=4096,
        initializer_range=size.hidden**-0.5,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():  # norms that do something, and logits with a spread of about 2
        for name, values in model.named_parameters():
            if name.endswith("norm.weight"):
                values.add_(torch.randn_like(values) / 5)
            elif name.startswith(("model.embed", "lm_head")):
                values.mul_(2)
    model.bfloat16().save_pretrained(folder, max_shard_size="2MB" if size.hidden <= 256 else "100MB")
    write_json(folder / "tokenizer.json", words or tokenizer())
    write_json(folder / "tokenizer_config.json", {"eos_token": "<|im_end|>"})
    return folder


def _torch(folder: Path, prompts: Sequence[Sequence[int]]) -> list[Floats]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return [log_softmax(model(torch.tensor([tokens])).logits[0].numpy()) for tokens in prompts]


def _tokenizer_of(vocabulary: Path) -> dict[str, Any]:
    """A tokenizer.json of the tokens and merges of a GGUF, with the splitting of the one made here."""
    from gguf import GGUFReader, TokenType

    fields = GGUFReader(vocabulary).fields
    tokens, kinds, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges"))
    added = [i for i, kind in enumerate(kinds) if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    body: dict[str, Any] = json.loads(json.dumps(tokenizer()))
    body["added_tokens"] = [
        {"id": i, "content": tokens[i], **flags, "special": kinds[i] == TokenType.CONTROL} for i in added
    ]
    plain = [i for i, kind in enumerate(kinds) if kind == TokenType.NORMAL]
    body["model"]["vocab"] = {tokens[i]: i for i in plain}
    body["model"]["merges"] = [merge.split(" ") for merge in merges]
    return body


def _prompts(count: int) -> list[list[int]]:
    words = Tokenizer.from_str(json.dumps(tokenizer()))
    return [words.encode(" ".join(sentences(8, seed=200 + i))[:400]).ids for i in range(count)]


def _queries(folders: Sequence[Path]) -> list[str]:
    """As many of each set, evenly from its beginning to its end."""
    found: list[str] = []
    for folder in folders:
        texts = [one.text for one in read_queries(folder, Counter()).values()]
        some = np.linspace(0, len(texts) - 1, QUERIES // len(folders)).astype(int)
        found += [texts[i] for i in some]
    return found


def _table(head: str, rows: Iterator[str]) -> str:
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rows])


if __name__ == "__main__":
    main()
