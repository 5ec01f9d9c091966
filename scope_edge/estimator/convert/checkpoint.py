"""A Qwen3 checkpoint folder as the hub hands it out: config.json and safetensors shards, read strictly and in parts.

Every file is somebody else's: what is not understood is refused in one line, never guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from scope_edge.errors import AssetError, MissingExtraError

Stored = Literal["BF16", "F16", "F32"]
ARCHITECTURE = "Qwen3ForCausalLM"
ITEM_BYTES: Mapping[Stored, int] = {"BF16": 2, "F16": 2, "F32": 4}
# A tokenizer.json has 11 MB for 150,000 tokens; nothing read whole is near this.
_MAX_JSON = 128 * 2**20
# Bounds on what a config may say, far above any Qwen3 (36 layers, 5,120 wide, 151,936 tokens, 262,144 of context).
_LIMITS = {
    "hidden_size": 2**16,
    "intermediate_size": 2**18,
    "num_hidden_layers": 512,
    "num_attention_heads": 1024,
    "num_key_value_heads": 1024,
    "head_dim": 1024,
    "max_position_embeddings": 2**24,
    "vocab_size": 2**22,
}


@dataclass(frozen=True, slots=True)
class Qwen3:
    """The figures of a Qwen3's config.json, in its words."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    tied: bool


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor's values lie: row-major, little-endian, `size` bytes from `offset` of `path`."""

    path: Path
    stored: Stored
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.stored]

    def read(self, part: int) -> Iterator[bytes]:
        """The values, `part` bytes at a time. Raises AssetError when the file is shorter than its header said."""
        left = self.size
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                while left:
                    blob = file.read(min(part, left))
                    if not blob:
                        raise AssetError(f"{self.path}: ended {left} bytes early; download it again")
                    left -= len(blob)
                    yield blob
        except OSError as error:
            raise AssetError(f"{self.path}: cannot be read ({error.strerror or error})") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises AssetError: missing, unreadable, too large, or not an object."""
    try:
        if path.stat().st_size > _MAX_JSON:
            raise AssetError(f"{path}: larger than {_MAX_JSON} bytes; this is not a checkpoint's {path.name}")
        body = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise AssetError(f"{path}: missing; give the folder of a whole checkpoint") from error
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise AssetError(f"{path}: not valid JSON ({error}); download it again") from error
    if not isinstance(body, dict):
        raise AssetError(f"{path}: holds a {type(body).__name__} where an object was expected; download it again")
    return body


def read_config(folder: Path) -> Qwen3:
    """The checkpoint's config.json. Raises AssetError: not a dense Qwen3, quantized, or a figure is missing or absurd."""
    path = folder / "config.json"
    body = read_json(path)
    _refuse_others(path, body)
    figures = {key: _integer(path, body, key, limit) for key, limit in _LIMITS.items()}
    if figures["num_attention_heads"] % figures["num_key_value_heads"]:
        raise AssetError(
            f"{path}: {figures['num_attention_heads']} heads cannot share {figures['num_key_value_heads']} key-value heads"
        )
    if figures["head_dim"] % 2:
        raise AssetError(f"{path}: head_dim {figures['head_dim']} is odd, which rotary positions cannot be")
    return Qwen3(
        **figures,
        rms_norm_eps=_positive(path, body, "rms_norm_eps"),
        rope_theta=_positive(path, {**_rope(body), **body}, "rope_theta"),
        tied=_flag(path, body, "tie_word_embeddings"),
    )


def _rope(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """How positions are rotated, where newer checkpoints put it."""
    rope = body.get("rope_parameters")
    return rope if isinstance(rope, dict) else {}


def _refuse_others(path: Path, body: Mapping[str, Any]) -> None:
    """Raise AssetError for what would convert to a model that computes something else."""
    architectures = body.get("architectures")
    if architectures != [ARCHITECTURE]:
        found = ", ".join(map(str, architectures)) if isinstance(architectures, list) else str(architectures)
        raise AssetError(f"{path}: architecture {found}, only {ARCHITECTURE} is converted; give a GGUF of it instead")
    if body.get("quantization_config") is not None:
        raise AssetError(f"{path}: a quantized checkpoint; give the one in bf16, f16 or f32")
    scaling = body.get("rope_scaling") or {key: value for key, value in _rope(body).items() if key != "rope_theta"}
    kind = scaling.get("rope_type", scaling.get("type", "default")) if isinstance(scaling, dict) else scaling
    if kind != "default":
        raise AssetError(
            f"{path}: rope scaling {kind!r} is not converted; set rope_scaling to null if you can do without"
        )
    if _rope(body).get("partial_rotary_factor", 1) != 1:
        raise AssetError(f"{path}: positions rotate a part of each head only, which llama.cpp's Qwen3 does not do")
    layers = body.get("layer_types")
    if body.get("use_sliding_window") or (isinstance(layers, list) and set(map(str, layers)) - {"full_attention"}):
        raise AssetError(f"{path}: sliding window attention is not converted; give a checkpoint without it")
    if body.get("attention_bias"):
        raise AssetError(f"{path}: attention_bias is not part of llama.cpp's Qwen3; give a checkpoint without it")
    if body.get("hidden_act", "silu") != "silu":
        raise AssetError(
            f"{path}: activation {body['hidden_act']!r}, llama.cpp's Qwen3 has silu; give another checkpoint"
        )


def _integer(path: Path, body: Mapping[str, Any], key: str, limit: int) -> int:
    value = body.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
        raise AssetError(f"{path}: {key} is {value!r}, expected a whole number from 1 to {limit}; download it again")
    return value


def _flag(path: Path, body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise AssetError(f"{path}: {key} is {value!r}, expected true or false; download it again")
    return value


def _positive(path: Path, body: Mapping[str, Any], key: str) -> float:
    value = body.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1e30:
        raise AssetError(f"{path}: {key} is {value!r}, expected a number above 0; download it again")
    return float(value)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the checkpoint by its name; only headers are read.

    Raises:
        AssetError: no weights, a shard missing or damaged, a tensor in two shards or not where the index says, or stored
            as something other than BF16, F16 or F32.
        MissingExtraError: safetensors is not installed.
    """
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if index.is_file():
        places = _places(index)
    elif single.is_file():
        places = {}
    else:
        raise AssetError(f"{folder}: no {single.name} and no {index.name}; only safetensors checkpoints are converted")
    found: dict[str, Tensor] = {}
    for file in sorted(set(places.values())) or [single.name]:
        for name, tensor in _shard(folder / file).items():
            if name in found:
                raise AssetError(f"{tensor.path}: {name} is in {found[name].path.name} too; download both again")
            found[name] = tensor
    for name, file in places.items():
        if name not in found or found[name].path.name != file:
            raise AssetError(f"{folder / file}: lacks {name}, which {index.name} says it holds; download both again")
    return found


def _places(index: Path) -> dict[str, str]:
    """Which shard holds which tensor, from the index."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise AssetError(f"{index}: has no weight_map; download it again")
    for name, file in places.items():
        # A file's name alone: an index must not make us read elsewhere.
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise AssetError(
                f"{index}: {name} is said to be in {file!r}, which is not a shard's name; download it again"
            )
    return places


def _shard(path: Path) -> dict[str, Tensor]:
    """One file's tensors. The library checks the header, its offsets and the file's length; then it is read again here."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError('safetensors is not installed; pip install "scope-edge[convert]"') from error
    if not path.is_file():
        raise AssetError(f"{path}: missing; download this shard")
    try:
        with safe_open(str(path), framework="np"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise AssetError(f"{path}: not a whole safetensors file ({error}); download it again") from error
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if entry["dtype"] not in ITEM_BYTES:
            raise AssetError(f"{path}: {name} is stored as {entry['dtype']}; give the checkpoint in bf16, f16 or f32")
    return {
        name: Tensor(
            path, cast("Stored", entry["dtype"]), tuple(entry["shape"]), 8 + length + int(entry["data_offsets"][0])
        )
        for name, entry in header.items()
    }
