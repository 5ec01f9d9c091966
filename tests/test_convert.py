"""A checkpoint's conversion keeps what the model computes and how it reads text, and refuses what it does not understand."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tracemalloc
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ask_llama import ask
from hard_texts import HARD_TEXTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy_qwen3 import NumpyQwen3, log_softmax
from tiny_qwen3 import (
    CHAT_TEMPLATE,
    Dimensions,
    make_checkpoint,
    read_json,
    sentences,
    tokenizer,
    weights,
    write_json,
    write_safetensors,
)
from tokenizers import Tokenizer

from scope_edge.errors import AssetError, MissingExtraError, ScopeEdgeError, UsageError
from scope_edge.estimator.checkpoint import read_config, read_tensors
from scope_edge.estimator.convert import About, convert_checkpoint
from scope_edge.estimator.vocabulary import read_vocabulary
from scope_edge.llama.launch import installed

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
    assert off_by(folder, ask(tmp_path / "it.gguf", prompts=asked).logits, asked) <= 2e-2


@needs_llama
def test_bf16_weights_come_through(tmp_path: Path, checkpoint: Path) -> None:
    asked = prompts(5)
    convert_checkpoint(checkpoint, tmp_path / "it.gguf", dtype="bf16")
    # llama.cpp rounds what it multiplies bf16 weights with to 8 bits too.
    assert off_by(checkpoint, ask(tmp_path / "it.gguf", prompts=asked).logits, asked) <= 0.15


@needs_llama
@pytest.mark.parametrize(("key", "value"), [("rope_theta", 2500.0), ("rms_norm_eps", 0.04)])
def test_a_wrong_figure_would_be_noticed(tmp_path: Path, key: str, value: float) -> None:
    folder, asked = make_checkpoint(tmp_path / "it", ODD), prompts(2)
    convert_checkpoint(folder, tmp_path / "it.gguf", dtype="f16")
    write_json(folder / "config.json", read_json(folder / "config.json") | {key: value})
    assert off_by(folder, ask(tmp_path / "it.gguf", prompts=asked).logits, asked) > 2e-2


@needs_llama
@pytest.mark.parametrize("markup", [False, True])
def test_text_is_read_as_the_tokenizer_reads_it(tiny_gguf: Path, markup: bool) -> None:
    words = Tokenizer.from_str(json.dumps(tokenizer()))
    words.encode_special_tokens = not markup  # True: control tokens spelled out are plain text
    texts = [unicodedata.normalize("NFC", text) for text in (*HARD_TEXTS, *sentences(200, seed=11))]
    found = ask(tiny_gguf, texts=[(text, markup) for text in texts]).tokens
    assert [(text, words.encode(text).ids) for text in texts] == list(zip(texts, found, strict=True))


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
    (copy / "chat_template.jinja").write_text(spoken.pop("chat_template"), "utf-8")
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


Spoil = Callable[[Path], object]


def config(**changes: Any) -> Spoil:
    return lambda folder: write_json(folder / "config.json", read_json(folder / "config.json") | changes)


def words(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        body = read_json(folder / "tokenizer.json")
        change(body)
        write_json(folder / "tokenizer.json", body)

    return spoil


def stored(change: Callable[[dict[str, Any]], object], dtype: Dtype = "float32") -> Spoil:
    """Write the weights anew, after a change to the tensors."""

    def spoil(folder: Path) -> None:
        file = folder / "model.safetensors"
        shapes = {name: tensor.shape for name, tensor in read_tensors(folder).items()}
        body: dict[str, Any] = {name: weights(name, shape, 0) for name, shape in shapes.items()}
        change(body)
        write_safetensors(file, body, dtype)

    return spoil


def put(name: str, value: float) -> Callable[[dict[str, Any]], object]:
    return lambda body: body[name].__setitem__(..., value)


def header(old: bytes, new: bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "model.safetensors"
        blob = file.read_bytes()
        assert len(old) == len(new) and old in blob
        file.write_bytes(blob.replace(old, new, 1))

    return spoil


def cut(name: str, size: int) -> Spoil:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


UP = "model.layers.1.mlp.up_proj.weight"
REFUSED: dict[str, tuple[Spoil, str]] = {
    "mixture": (config(architectures=["Qwen3MoeForCausalLM"]), "config.json: architecture Qwen3MoeForCausalLM"),
    "qwen2": (config(architectures=["Qwen2ForCausalLM"]), "architecture Qwen2ForCausalLM"),
    "no architecture": (config(architectures=None), "architecture None"),
    "quantized": (config(quantization_config={"quant_method": "awq"}), "quantized checkpoint"),
    "fp8": (header(b'"BF16"', b'"F8_E"'), "model.safetensors"),
    "yarn": (config(rope_scaling={"rope_type": "yarn", "factor": 4.0}), "rope scaling 'yarn'"),
    "yarn, newer": (config(rope_parameters={"rope_type": "yarn", "rope_theta": 1e6}), "rope scaling 'yarn'"),
    "old scaling": (config(rope_scaling={"type": "linear", "factor": 2.0}), "rope scaling 'linear'"),
    "window": (config(use_sliding_window=True), "sliding window"),
    "window by layer": (config(layer_types=["full_attention", "sliding_attention"]), "sliding window"),
    "bias": (config(attention_bias=True), "attention_bias"),
    "activation": (config(hidden_act="gelu"), "activation 'gelu'"),
    "no width": (config(hidden_size=None), "hidden_size is None"),
    "negative": (config(num_hidden_layers=-1), "num_hidden_layers is -1"),
    "absurd": (config(vocab_size=10**12), "vocab_size is 1000000000000"),
    "text": (config(head_dim="32"), "head_dim is '32'"),
    "odd head": (config(head_dim=31), "head_dim 31 is odd"),
    "nan": (config(rms_norm_eps=float("nan")), "rms_norm_eps is nan"),
    "heads": (config(num_key_value_heads=3), "4 heads cannot share 3"),
    "more layers": (config(num_hidden_layers=3), "model.layers.2.input_layernorm.weight is missing"),
    "fewer layers": (config(num_hidden_layers=1), "is not part of a Qwen3"),
    "untied": (config(tie_word_embeddings=False), "lm_head.weight is missing"),
    "other shape": (config(intermediate_size=256), "shape [128, 64], config.json asks for [256, 64]"),
    "config gone": (lambda folder: (folder / "config.json").unlink(), "config.json: missing"),
    "config cut": (cut("config.json", 100), "config.json: not valid JSON"),
    "config a list": (lambda folder: (folder / "config.json").write_text("[]"), "holds a list"),
    "weights gone": (lambda folder: (folder / "model.safetensors").unlink(), "only safetensors checkpoints"),
    "weights cut": (cut("model.safetensors", 300_000), "not a whole safetensors file"),
    "header cut": (cut("model.safetensors", 1000), "not a whole safetensors file"),
    "weights empty": (cut("model.safetensors", 0), "not a whole safetensors file"),
    "tensor gone": (stored(lambda body: body.pop(UP)), f"{UP} is missing"),
    "adapter": (stored(lambda body: body.update({"a.lora_A.weight": body[UP]})), "a.lora_A.weight is not part of"),
    "nan weight": (stored(put(UP, float("nan"))), f"{UP} holds values that are not finite"),
    "nan bf16": (stored(put(UP, float("inf")), "bfloat16"), f"{UP} holds values that are not finite"),
    "nan norm": (stored(put("model.norm.weight", float("nan"))), "model.norm.weight holds values that are not finite"),
    "large": (stored(put(UP, 1e6)), f"{UP} holds values too large for f16; convert to bf16"),
    "tokenizer gone": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json: missing"),
    "unigram": (words(lambda body: body["model"].update(type="Unigram")), "tokenizer model 'Unigram'"),
    "other split": (words(lambda body: body["pre_tokenizer"]["pretokenizers"].pop(0)), "not split as Qwen2"),
    "lower case": (words(lambda body: body.update(normalizer={"type": "Lowercase"})), "normalizer 'Lowercase'"),
    "merge": (words(lambda body: body["model"]["merges"].append(["zz", "qq"])), "merge of 'zz' and 'qq'"),
    "three": (words(lambda body: body["model"]["merges"].append("a b c")), "not laid out as a tokenizer.json"),
    "two ids": (words(lambda body: body["model"]["vocab"].update(zzzz=5)), "two tokens have one id"),
    "too many": (
        words(lambda body: body["model"]["vocab"].update(zzzz=1920)),
        "ids up to 1920, the embedding has 1920",
    ),
    "strips": (words(lambda body: body["added_tokens"][0].update(rstrip=True)), "takes spaces"),
    "no model": (words(lambda body: body.pop("model")), "not laid out as a tokenizer.json"),
    "half a pair": (words(lambda body: body["added_tokens"][4].update(content="\ud800")), "not laid out"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_is_not_understood_is_refused_in_one_line(copy: Path, tmp_path: Path, case: str) -> None:
    spoil, expected = REFUSED[case]
    spoil(copy)
    target = tmp_path / "out" / "it.gguf"
    target.parent.mkdir()
    target.write_bytes(b"what was there before")
    with pytest.raises(AssetError) as caught:
        convert_checkpoint(copy, target)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert target.read_bytes() == b"what was there before" and list(target.parent.iterdir()) == [target]


def test_nothing_names_an_end(copy: Path) -> None:
    for name in ("tokenizer_config.json", "generation_config.json"):
        (copy / name).unlink()
    config(eos_token_id=None)(copy)
    with pytest.raises(AssetError, match="ends a text"):
        read_vocabulary(copy, 1920)


def test_shards_that_do_not_fit_together(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "it", shards=3)
    index, second = folder / "model.safetensors.index.json", folder / "model-00002-of-00003.safetensors"
    body = read_json(index)

    def refuses(words: str) -> None:
        with pytest.raises(AssetError, match=words):
            read_tensors(folder)

    blob = second.read_bytes()
    second.unlink()
    refuses("model-00002-of-00003.safetensors: missing; download this shard")
    second.write_bytes((folder / "model-00001-of-00003.safetensors").read_bytes())
    refuses("is in model-00001-of-00003.safetensors too")
    second.write_bytes(blob)
    write_json(index, {"weight_map": body["weight_map"] | {"x": second.name}})
    refuses("lacks x, which")
    write_json(index, {"weight_map": body["weight_map"] | {"x": "../secret.safetensors"}})
    refuses("not a shard's name")
    write_json(index, {"weight_map": {}})
    refuses("has no weight_map")


def test_too_little_space_is_said_first(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    with pytest.raises(AssetError, match="10 MB free; make room"):
        convert_checkpoint(checkpoint, tmp_path / "it.gguf")
    assert not list(tmp_path.glob("*it.gguf*"))


def test_a_target_that_cannot_be_written(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AssetError, match="cannot be written"):
        convert_checkpoint(checkpoint, tmp_path / "file" / "it.gguf")


def test_stopping_in_the_middle_leaves_nothing(tmp_path: Path, checkpoint: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(checkpoint, tmp_path / "it.gguf", progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("library", ["gguf", "safetensors"])
def test_a_missing_extra_is_named(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"{library} is not installed; .*scope-edge\[convert\]"):
        convert_checkpoint(checkpoint, tmp_path / "it.gguf")


def test_an_unknown_dtype(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="expected auto, f16 or bf16"):
        convert_checkpoint(checkpoint, tmp_path / "it.gguf", dtype="q8")  # type: ignore[arg-type]


JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), junk=JUNK, name=st.sampled_from(["config", "tokenizer", "tokenizer_config"]))
def test_any_value_replaced_by_any_other_is_understood_or_refused(copy: Path, seed: int, junk: Any, name: str) -> None:
    """Whatever a value of these files becomes, what comes is a result or one of our own errors."""
    path = copy / f"{name}.json"
    before = path.read_text("utf-8")
    body = json.loads(before)
    draw, here = random.Random(seed), body
    while True:  # walk down to a value, and replace it
        key = draw.choice(list(here) if isinstance(here, dict) else range(len(here)))
        if not isinstance(here[key], (dict, list)) or not here[key] or draw.random() < 0.2:
            break
        here = here[key]
    here[key] = junk
    try:
        path.write_text(json.dumps(body), "utf-8")
        read_vocabulary(copy, read_config(copy).vocab_size)
    except ScopeEdgeError as error:
        assert "\n" not in str(error)
    finally:
        path.write_text(before, "utf-8")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2800), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_header_is_read_or_refused(copy: Path, at: int, bit: int) -> None:
    path = copy / "model.safetensors"
    blob = path.read_bytes()
    path.write_bytes(blob[:at] + bytes([blob[at] ^ (1 << bit)]) + blob[at + 1 :])
    try:
        read_tensors(copy)
    except ScopeEdgeError as error:
        assert "\n" not in str(error)
    finally:
        path.write_bytes(blob)
