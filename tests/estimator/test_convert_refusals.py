"""What a conversion does not understand, or cannot write, is refused in one line and leaves nothing behind."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_qwen3 import make_checkpoint, read_json, weights, write_json, write_safetensors

from scope_edge.errors import AssetError, MissingExtraError, ScopeEdgeError, UsageError
from scope_edge.estimator.convert.checkpoint import read_config, read_tensors, read_vocabulary
from scope_edge.estimator.convert.gguf import convert_checkpoint

if TYPE_CHECKING:
    from tiny_qwen3 import Dtype

pytest.importorskip("gguf")
pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only; `copy` gives one to spoil."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


Spoil = Callable[[Path], object]


def config(**changes: Any) -> Spoil:
    return lambda folder: write_json(folder / "config.json", read_json(folder / "config.json") | changes)


def device(name: str) -> Spoil:
    """Replace a file by one that never ends."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")

    return spoil


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
    "part of a head": (config(rope_parameters={"partial_rotary_factor": 0.5}), "a part of each head"),
    "tied in words": (config(tie_word_embeddings="false"), "tie_word_embeddings is 'false', expected true or false"),
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
    "tokenizer a device": (device("tokenizer.json"), "tokenizer.json: cannot be read (not a regular file)"),
    "config a device": (device("config.json"), "config.json: cannot be read (not a regular file)"),
    "template huge": (
        lambda folder: (folder / "chat_template.jinja").write_text("x" * 2**21),
        "more than 1048576 bytes",
    ),
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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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
