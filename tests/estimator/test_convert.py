"""A checkpoint's conversion keeps what the model computes and how it reads text, and refuses what it does not understand."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import shutil
import tracemalloc
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ask_llama import ask
from hard_texts import HARD_TEXTS
from numpy_qwen3 import NumpyQwen3, log_softmax
from tiny_qwen3 import (
    CHAT_TEMPLATE,
    Dimensions,
    make_checkpoint,
    read_json,
    sentences,
    tokenizer,
    write_json,
)
from tokenizers import Tokenizer

from scope_edge.estimator.convert.checkpoint import read_vocabulary
from scope_edge.estimator.convert.gguf import About, convert_checkpoint
from scope_edge.providers.llama.process import installed

if TYPE_CHECKING:
    from tiny_qwen3 import Dtype

gguf = pytest.importorskip("gguf")
pytest.importorskip("safetensors")
needs_llama = pytest.mark.skipif(not installed(), reason="llama-cpp-python is not installed")

# Nothing here is at its default: a figure that does not reach the GGUF changes the logits.
ODD = Dimensions(
    layers=3,
    hidden=96,
    heads=6,
    kv_heads=3,
    head_dim=24,
    feed_forward=160,
    context=512,
    rope_theta=5000.0,
    epsilon=0.02,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only; `copy` gives one to spoil."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def prompts(count: int) -> list[list[int]]:
    words = Tokenizer.from_str(json.dumps(tokenizer()))
    return [words.encode(" ".join(sentences(8, seed=100 + i))[:300]).ids for i in range(count)]


def off_by(folder: Path, logits: list[Any], asked: list[list[int]]) -> float:
    """The largest difference in log p, over the judge's top 20 after every token."""
    judge, worst = NumpyQwen3(folder), 0.0
    for tokens, found in zip(asked, logits, strict=True):
        expected = log_softmax(judge.logits(tokens))
        top = np.argsort(-expected, axis=1)[:, :20]
        worst = max(worst, float(np.abs(np.take_along_axis(expected - log_softmax(found), top, 1)).max()))
    return worst


@needs_llama
@pytest.mark.parametrize("dimensions", [Dimensions(), ODD], ids=["default", "odd"])
@pytest.mark.parametrize(
    ("tied", "dtype"), [(True, "bfloat16"), (False, "bfloat16"), (True, "float32"), (False, "float16")]
)
def test_llama_computes_what_the_checkpoint_says(
    tmp_path: Path, dimensions: Dimensions, tied: bool, dtype: Dtype
) -> None:
    folder, asked = make_checkpoint(tmp_path / "it", dimensions, tied=tied, dtype=dtype), prompts(20)
    convert_checkpoint(folder, tmp_path / "it.gguf", dtype="f16")
    assert off_by(folder, ask(tmp_path / "it.gguf", prompts=asked).logits, asked) <= 0.1


def test_the_judge_agrees_with_transformers(checkpoint: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    asked = prompts(5)
    with torch.no_grad():
        logits = [model(torch.tensor([tokens])).logits[0].numpy() for tokens in asked]
    assert off_by(checkpoint, logits, asked) <= 1e-4


@needs_llama
def test_bf16_weights_come_through(tmp_path: Path, checkpoint: Path) -> None:
    asked = prompts(5)
    convert_checkpoint(checkpoint, tmp_path / "it.gguf", dtype="bf16")
    # llama.cpp rounds what it multiplies bf16 weights with to 8 bits too.
    assert off_by(checkpoint, ask(tmp_path / "it.gguf", prompts=asked).logits, asked) <= 0.3


@needs_llama
@pytest.mark.parametrize(("key", "value"), [("rope_theta", 2500.0), ("rms_norm_eps", 0.04)])
def test_a_wrong_figure_would_be_noticed(tmp_path: Path, key: str, value: float) -> None:
    folder, asked = make_checkpoint(tmp_path / "it", ODD), prompts(2)
    convert_checkpoint(folder, tmp_path / "it.gguf", dtype="f16")
    write_json(folder / "config.json", read_json(folder / "config.json") | {key: value})
    assert off_by(folder, ask(tmp_path / "it.gguf", prompts=asked).logits, asked) > 0.5


@needs_llama
@pytest.mark.parametrize("markup", [False, True])
def test_text_is_read_as_the_tokenizer_reads_it(tiny_gguf: Path, markup: bool) -> None:
    words = Tokenizer.from_str(json.dumps(tokenizer()))
    words.encode_special_tokens = not markup  # True: control tokens spelled out are plain text
    texts = [unicodedata.normalize("NFC", text) for text in (*HARD_TEXTS, *sentences(200, seed=11))]
    found = ask(tiny_gguf, texts=[(text, markup) for text in texts]).tokens
    assert [(text, words.encode(text).ids) for text in texts] == list(zip(texts, found, strict=True))


@needs_llama
@pytest.mark.skipif("SCOPE_EDGE_ROUTING_DATA" not in os.environ, reason="SCOPE_EDGE_ROUTING_DATA names no folder")
def test_real_queries_are_read_as_the_tokenizer_reads_them(tiny_gguf: Path) -> None:
    texts = []
    for file in sorted(Path(os.environ["SCOPE_EDGE_ROUTING_DATA"]).glob("*/queries.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            texts += [unicodedata.normalize("NFC", json.loads(line)["text"]) for line in itertools.islice(lines, 50)]
    words = Tokenizer.from_str(json.dumps(tokenizer()))
    words.encode_special_tokens = True
    found = ask(tiny_gguf, texts=[(text, False) for text in texts]).tokens
    assert len(texts) >= 50
    assert [words.encode(text).ids for text in texts] == found


@needs_llama
def test_control_tokens_count_only_where_markup_is_meant(tiny_gguf: Path) -> None:
    ids = {row["content"]: row["id"] for row in tokenizer()["added_tokens"]}
    text = "<|im_start|>user\n<|im_end|>"
    plain, markup = ask(tiny_gguf, texts=[(text, False), (text, True)]).tokens
    assert markup[0] == ids["<|im_start|>"] and markup[-1] == ids["<|im_end|>"]
    assert not set(plain) & set(ids.values())


def test_shards_make_no_difference(tmp_path: Path) -> None:
    for shards in (1, 5):
        folder = make_checkpoint(tmp_path / str(shards), shards=shards, tied=False)
        convert_checkpoint(folder, tmp_path / f"{shards}.gguf", about=About("it"))
    assert (tmp_path / "1.gguf").read_bytes() == (tmp_path / "5.gguf").read_bytes()


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    wide = Dimensions(layers=4, hidden=512, feed_forward=4096)
    folder = make_checkpoint(tmp_path / "wide", wide, shards=4)
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    assert sum(sizes) > 50e6, "the model must be larger than what is allowed below, or this proves nothing"
    tracemalloc.start()
    convert_checkpoint(folder, tmp_path / "wide.gguf", dtype="f16")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 2 * max(sizes)


def fields(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_what_the_gguf_says_of_itself(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "it", ODD)
    about = About("My model", "Apache-2.0", "https://example.com/model")
    convert_checkpoint(folder, tmp_path / "it.gguf", about=about)
    said = fields(tmp_path / "it.gguf")
    rows, known = read_json(folder / "config.json")["vocab_size"], len(tokenizer()["model"]["vocab"])
    expected = {
        "general.architecture": "qwen3",
        "general.name": "My model",
        "general.license": "Apache-2.0",
        "general.source.url": "https://example.com/model",
        "general.file_type": 32,
        "qwen3.context_length": 512,
        "qwen3.attention.key_length": 24,
        "qwen3.attention.head_count": 6,
        "qwen3.attention.head_count_kv": 3,
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.bos_token_id": 1800,
        "tokenizer.ggml.eos_token_id": 1802,
        "tokenizer.ggml.eot_token_id": 1802,
        "tokenizer.ggml.padding_token_id": 1800,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
    assert {key: said.get(key) for key in expected} == expected
    assert len(said["tokenizer.ggml.tokens"]) == rows
    # Control tokens, tokens that are text all the same, and rows that no token has.
    assert said["tokenizer.ggml.token_type"] == [1] * known + [3] * 3 + [4] * 2 + [5] * (rows - known - 5)


def tensors(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


def test_norms_are_f32_and_a_tied_model_has_no_output(tmp_path: Path, checkpoint: Path) -> None:
    convert_checkpoint(checkpoint, tmp_path / "tied.gguf", dtype="f16")
    kinds = tensors(tmp_path / "tied.gguf")
    assert {kind for name, kind in kinds.items() if name.endswith("norm.weight")} == {"F32"}
    assert {kind for name, kind in kinds.items() if not name.endswith("norm.weight")} == {"F16"}
    assert "output.weight" not in kinds
    convert_checkpoint(make_checkpoint(tmp_path / "untied", tied=False), tmp_path / "untied.gguf")
    assert tensors(tmp_path / "untied.gguf")["output.weight"] == "BF16"


@pytest.mark.parametrize(("stored", "expected"), [("bfloat16", "BF16"), ("float16", "F16"), ("float32", "F16")])
def test_auto_keeps_16_bits_as_they_are(tmp_path: Path, stored: Dtype, expected: str) -> None:
    folder = make_checkpoint(tmp_path / "it", dtype=stored)
    convert_checkpoint(folder, tmp_path / "it.gguf")
    found = next(one for one in gguf.GGUFReader(tmp_path / "it.gguf").tensors if one.name == "blk.1.ffn_up.weight")
    assert found.tensor_type.name == expected
    if stored != "float32":
        blob = (folder / "model.safetensors").read_bytes()
        assert found.data.tobytes() in blob


def test_a_saved_copy_of_the_tied_output_is_left_out(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "it", tied=False)
    write_json(folder / "config.json", read_json(folder / "config.json") | {"tie_word_embeddings": True})
    convert_checkpoint(folder, tmp_path / "it.gguf")
    assert "output.weight" not in tensors(tmp_path / "it.gguf")


def test_newer_and_older_spellings_mean_the_same(tmp_path: Path, checkpoint: Path, copy: Path) -> None:
    config, words = read_json(copy / "config.json"), read_json(copy / "tokenizer.json")
    theta = config.pop("rope_theta")
    config.pop("rope_scaling")
    config |= {"rope_parameters": {"rope_theta": theta, "rope_type": "default"}, "layer_types": ["full_attention"] * 2}
    write_json(copy / "config.json", config)
    words["model"]["merges"] = [" ".join(merge) for merge in words["model"]["merges"]]
    write_json(copy / "tokenizer.json", words)
    spoken = read_json(copy / "tokenizer_config.json")
    (copy / "chat_template.jinja").write_text(spoken.pop("chat_template"), "utf-8-sig")
    spoken["eos_token"] = {"content": "<|im_end|>", "special": True}
    write_json(copy / "tokenizer_config.json", spoken)
    for folder, name in ((checkpoint, "old"), (copy, "new")):
        convert_checkpoint(folder, tmp_path / name, about=About("it"))
    assert (tmp_path / "old").read_bytes() == (tmp_path / "new").read_bytes()


def test_a_default_chat_template_is_picked_from_several(copy: Path) -> None:
    spoken = read_json(copy / "tokenizer_config.json")
    spoken["chat_template"] = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]
    write_json(copy / "tokenizer_config.json", spoken)
    assert read_vocabulary(copy, 1920).chat_template == "yes"


def test_without_a_tokenizer_config_generation_says_what_ends_a_text(copy: Path) -> None:
    (copy / "tokenizer_config.json").unlink()
    found = read_vocabulary(copy, 1920)
    assert (found.end, found.pad, found.chat_template) == (1802, 1800, None)


def test_progress_counts_every_byte(tmp_path: Path, checkpoint: Path) -> None:
    steps: list[tuple[int, int]] = []
    convert_checkpoint(checkpoint, tmp_path / "it.gguf", progress=lambda done, total: steps.append((done, total)))
    expected = sum(tensor.n_bytes for tensor in gguf.GGUFReader(tmp_path / "it.gguf").tensors)
    assert steps == sorted(steps) and steps[-1] == (expected, expected)
