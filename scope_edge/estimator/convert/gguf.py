"""Convert a Qwen3 checkpoint to a GGUF, a part of a tensor at a time: memory does not grow with the model.

Values stay unchanged where the target type can hold them; norms become f32, as llama.cpp expects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scope_edge.errors import AssetError, MissingExtraError, UsageError
from scope_edge.estimator.convert.checkpoint import (
    ITEM_BYTES,
    MODEL,
    SPLITTING,
    CheckpointVocabulary,
    Qwen3,
    Stored,
    Tensor,
    read_config,
    read_tensors,
    read_vocabulary,
)
from scope_edge.storage.files import check_space, whole_file

Dtype = Literal["auto", "f16", "bf16"]
Progress = Callable[[int, int], None]
# Bytes of a tensor in memory at once; the working copies of a part take about five times that.
_PART = 2 * 2**20
# The maximum size of metadata (tokens, merges, tensor names), for the check of free space.
_METADATA = 32 * 2**20
_NUMPY: Mapping[Stored, str] = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True, slots=True)
class About:
    """The GGUF's description besides its figures. name: None = the folder's; licence: an SPDX id; source: a URL."""

    name: str | None = None
    licence: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """One tensor: its name in the checkpoint, its values there, its name and type in the GGUF."""

    origin: str
    tensor: Tensor
    name: str
    stored: Stored

    @property
    def size(self) -> int:
        return self.tensor.size // ITEM_BYTES[self.tensor.stored] * ITEM_BYTES[self.stored]


def convert_checkpoint(
    folder: Path, target: Path, *, dtype: Dtype = "auto", about: About = About(), progress: Progress | None = None
) -> None:
    """Write the checkpoint in `folder` (config.json, safetensors, tokenizer.json) as the GGUF `target`.

    Args:
        dtype: of weights. "auto" keeps a checkpoint in bf16 or f16 unchanged; any other becomes f16.
        progress: called with (bytes written, bytes in all) after every part.

    Raises:
        AssetError: a file is missing or damaged, it is not a dense Qwen3, a value is not finite or too large for f16, the
            disk is too full or cannot be written. `target` is then unchanged.
        MissingExtraError: gguf or safetensors is not installed.
        UsageError: an unknown dtype.
    """
    if dtype not in ("auto", "f16", "bf16"):
        raise UsageError(f"dtype {dtype!r}: expected auto, f16 or bf16")
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError('gguf is not installed; pip install "scope-edge[convert]"') from error
    config = read_config(folder)
    vocabulary = read_vocabulary(folder, config.vocab_size)
    plans = _plan(folder, config, dtype)
    size = sum(plan.size for plan in plans)
    check_space(target.parent, size + _METADATA, str(target))
    with whole_file(target) as temporary:
        writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.QWEN3])
        try:
            _describe(writer, config, vocabulary, replace(about, name=about.name or folder.resolve().name))
            half = next(plan.stored for plan in plans if len(plan.tensor.shape) == 2)
            writer.add_file_type(getattr(gguf.LlamaFileType, f"MOSTLY_{half}"))
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            for plan in plans:
                kind = gguf.GGMLQuantizationType[plan.stored]
                writer.add_tensor_info(plan.name, plan.tensor.shape, np.dtype(_NUMPY[plan.stored]), plan.size, kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        finally:
            writer.close()
        _append(temporary, plans, gguf.GGUF_DEFAULT_ALIGNMENT, progress)


def _plan(folder: Path, config: Qwen3, dtype: Dtype) -> list[_Plan]:
    """Plan every tensor of a Qwen3 of these figures. Raises AssetError when one is missing or one too many exists."""
    found = read_tensors(folder)
    expected = dict(_expected(config))
    if config.tied:
        found.pop("lm_head.weight", None)  # some save it nevertheless; the embedding counts
    for name, (_, shape) in expected.items():
        if name not in found:
            raise AssetError(f"{folder}: tensor {name} is missing; download the checkpoint again")
        if found[name].shape != shape:
            raise AssetError(
                f"{found[name].path}: {name} has shape {list(found[name].shape)}, config.json asks for {list(shape)}"
            )
    for name in found:
        if name not in expected:
            raise AssetError(
                f"{found[name].path}: {name} is not part of a Qwen3; merge adapters into the weights first"
            )
    kinds = {found[name].stored for name, (_, shape) in expected.items() if len(shape) == 2}
    half: Stored = "BF16" if dtype == "bf16" or (dtype == "auto" and kinds == {"BF16"}) else "F16"
    return [
        _Plan(name, found[name], target, half if len(shape) == 2 else "F32")
        for name, (target, shape) in expected.items()
    ]


def _expected(c: Qwen3) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    """Yield (name, (name in the GGUF, shape)) of every tensor."""
    queries, keys = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "attn_q": (queries, c.hidden_size),
        "attn_k": (keys, c.hidden_size),
        "attn_v": (keys, c.hidden_size),
        "attn_output": (c.hidden_size, queries),
        "attn_q_norm": (c.head_dim,),
        "attn_k_norm": (c.head_dim,),
        "ffn_gate": (c.intermediate_size, c.hidden_size),
        "ffn_up": (c.intermediate_size, c.hidden_size),
        "ffn_down": (c.hidden_size, c.intermediate_size),
    }
    yield "model.embed_tokens.weight", ("token_embd.weight", (c.vocab_size, c.hidden_size))
    for i in range(c.num_hidden_layers):
        for name, short in _LAYER.items():
            yield f"model.layers.{i}.{name}.weight", (f"blk.{i}.{short}.weight", shapes.get(short, (c.hidden_size,)))
    yield "model.norm.weight", ("output_norm.weight", (c.hidden_size,))
    if not c.tied:
        yield "lm_head.weight", ("output.weight", (c.vocab_size, c.hidden_size))


def _describe(writer: Any, c: Qwen3, vocabulary: CheckpointVocabulary, about: About) -> None:
    """Write the metadata: the model's figures, its tokenizer and its origin."""
    writer.add_type("model")
    writer.add_name(about.name)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_tokenizer_model(MODEL)
    writer.add_tokenizer_pre(SPLITTING)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(vocabulary.end)
    for add, value in (
        (writer.add_license, about.licence or None),
        (writer.add_source_url, about.source or None),
        (writer.add_bos_token_id, vocabulary.begin),
        (writer.add_pad_token_id, vocabulary.pad),
        (writer.add_eot_token_id, vocabulary.end_of_turn),
        (writer.add_chat_template, vocabulary.chat_template),
    ):
        if value is not None:
            add(value)


def _append(path: Path, plans: list[_Plan], alignment: int, progress: Progress | None) -> None:
    """Write the tensors' values after the metadata, each at a multiple of `alignment` as the format requires."""
    done, total = 0, sum(plan.size for plan in plans)
    with path.open("ab") as file:
        for plan in plans:
            file.write(bytes(-file.tell() % alignment))
            for blob in plan.tensor.read(_PART):
                part = _stored_as(np.frombuffer(blob, _NUMPY[plan.tensor.stored]), plan)
                file.write(part)
                done += len(part)
                if progress is not None:
                    progress(done, total)
        file.write(bytes(-file.tell() % alignment))


def _stored_as(values: np.ndarray[Any, Any], plan: _Plan) -> bytes:
    """Convert a part of a tensor. Raises AssetError when a value is not finite or does not fit."""
    exact = (values.astype("<u4") << 16).view("<f4") if plan.tensor.stored == "BF16" else values
    if not np.isfinite(exact).all():
        raise AssetError(f"{plan.tensor.path}: {plan.origin} holds values that are not finite; download it again")
    if plan.stored == plan.tensor.stored:
        return values.tobytes()
    if plan.stored == "BF16":
        # The upper half of each f32's bits, rounded to nearest, ties to even.
        bits = exact.astype("<f4").view("<u4")
        rounded: np.ndarray[Any, Any] = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return rounded.astype("<u2").tobytes()
    with np.errstate(over="ignore"):
        stored = exact.astype(_NUMPY[plan.stored])
    if not np.isfinite(stored).all():
        raise AssetError(f"{plan.tensor.path}: {plan.origin} holds values too large for f16; convert to bf16")
    return stored.tobytes()
