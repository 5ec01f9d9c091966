"""Read a Qwen3 checkpoint folder as the hub provides it: config.json, safetensors shards in parts, and the tokenizer.

Files are untrusted: unsupported content is refused in one line, never guessed. llama.cpp knows Qwen2's splitting by name and
takes tokens and merges from the GGUF. It does not compose characters (NFC) as the tokenizer does: the caller does that first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scope_edge.encoding.unicode import parse_json
from scope_edge.errors import AssetError, MissingExtraError
from scope_edge.storage.files import read_whole

Stored = Literal["BF16", "F16", "F32"]
ARCHITECTURE = "Qwen3ForCausalLM"
ITEM_BYTES: Mapping[Stored, int] = {"BF16": 2, "F16": 2, "F32": 4}
# A tokenizer.json has 11 MB for 150,000 tokens; no file that is read at once comes near this.
_MAX_JSON = 128 * 2**20
_MAX_TEMPLATE = 2**20
# Bounds of a config, far above any Qwen3 (36 layers, 5,120 wide, 151,936 tokens, 262,144 of context).
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
# llama.cpp's kinds of token.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
# llama.cpp's names for byte-level BPE and for splitting as below.
MODEL, SPLITTING = "gpt2", "qwen2"
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TURN = "<|im_end|>"


@dataclass(frozen=True, slots=True)
class Qwen3:
    """The figures of a Qwen3's config.json, under its names. tied: whether output and input embedding are one."""

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
    """The location of a tensor's values: row-major, little-endian, `size` bytes from `offset` of `path`."""

    path: Path
    stored: Stored
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.stored]

    def read(self, part: int) -> Iterator[bytes]:
        """Yield the values, `part` bytes at a time. Raises AssetError when the file is shorter than its header says."""
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


@dataclass(frozen=True, slots=True)
class CheckpointVocabulary:
    """A tokenizer in llama.cpp's terms.

    Attributes:
        tokens, kinds: by id, one for each row of the embedding.
        merges: "a b", in order of priority.
        begin, end, end_of_turn, pad: ids; None = not named by the checkpoint.
        chat_template: Jinja; None = missing.
    """

    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    begin: int | None
    end: int
    end_of_turn: int | None
    pad: int | None
    chat_template: str | None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. Raises AssetError: missing, unreadable, too large, or not an object."""
    try:
        body = parse_json(read_whole(path, _MAX_JSON))
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
    """Read config.json. Raises AssetError: not a dense Qwen3, quantized, or a figure missing or out of range."""
    path = folder / "config.json"
    body = read_json(path)
    rope = body.get("rope_parameters")  # where newer checkpoints keep these settings
    rope = rope if isinstance(rope, dict) else {}
    _refuse_unsupported(path, body, rope)
    figures: dict[str, Any] = {}
    for key, limit in _LIMITS.items():
        value = figures[key] = body.get(key)
        if type(value) is not int or not 1 <= value <= limit:
            raise AssetError(
                f"{path}: {key} is {value!r}, expected a whole number from 1 to {limit}; download it again"
            )
    for key in ("rms_norm_eps", "rope_theta"):
        value = {**rope, **body}.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1e30:
            raise AssetError(f"{path}: {key} is {value!r}, expected a number above 0; download it again")
        figures[key] = float(value)
    tied = body.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise AssetError(f"{path}: tie_word_embeddings is {tied!r}, expected true or false; download it again")
    config = Qwen3(**figures, tied=tied)
    if config.num_attention_heads % config.num_key_value_heads:
        raise AssetError(
            f"{path}: {config.num_attention_heads} heads cannot share {config.num_key_value_heads} key-value heads"
        )
    if config.head_dim % 2:
        raise AssetError(f"{path}: head_dim {config.head_dim} is odd, which rotary positions do not allow")
    return config


def _refuse_unsupported(path: Path, body: Mapping[str, Any], rope: Mapping[str, Any]) -> None:
    """Raise AssetError for a checkpoint that would convert to a model with other results."""
    architectures = body.get("architectures")
    if architectures != [ARCHITECTURE]:
        found = ", ".join(map(str, architectures)) if isinstance(architectures, list) else str(architectures)
        raise AssetError(f"{path}: architecture {found}, only {ARCHITECTURE} is converted; give a GGUF of it instead")
    scaling = body.get("rope_scaling") or {key: value for key, value in rope.items() if key != "rope_theta"}
    kind = scaling.get("rope_type", scaling.get("type", "default")) if isinstance(scaling, dict) else scaling
    layers = body.get("layer_types")
    sliding = isinstance(layers, list) and set(map(str, layers)) - {"full_attention"}
    problem = None
    if body.get("quantization_config") is not None:
        problem = "a quantized checkpoint; give the one in bf16, f16 or f32"
    elif kind != "default":
        problem = f"rope scaling {kind!r} is not converted; set rope_scaling to null if you can do without"
    elif rope.get("partial_rotary_factor", 1) != 1:
        problem = "positions rotate only a part of each head, which llama.cpp's Qwen3 does not do"
    elif body.get("use_sliding_window") or sliding:
        problem = "sliding window attention is not converted; give a checkpoint without it"
    elif body.get("attention_bias"):
        problem = "attention_bias is not part of llama.cpp's Qwen3; give a checkpoint without it"
    elif body.get("hidden_act", "silu") != "silu":
        problem = f"activation {body['hidden_act']!r}, llama.cpp's Qwen3 has silu; give another checkpoint"
    if problem is not None:
        raise AssetError(f"{path}: {problem}")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Locate every tensor of the checkpoint by its name; only headers are read.

    Raises:
        AssetError: no weights, a shard missing or damaged, a tensor in two shards or not where the index says, or stored
            as something other than BF16, F16 or F32.
        MissingExtraError: safetensors is not installed.
    """
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if not index.is_file() and not single.is_file():
        raise AssetError(f"{folder}: no {single.name} and no {index.name}; only safetensors checkpoints are converted")
    shards = _index(index) if index.is_file() else {}
    found: dict[str, Tensor] = {}
    for file in sorted(set(shards.values())) or [single.name]:
        for name, tensor in _shard(folder / file).items():
            if name in found:
                raise AssetError(f"{tensor.path}: {name} is in {found[name].path.name} too; download both again")
            found[name] = tensor
    for name, file in shards.items():
        if name not in found or found[name].path.name != file:
            raise AssetError(f"{folder / file}: lacks {name}, which {index.name} says it holds; download both again")
    return found


def _index(index: Path) -> dict[str, str]:
    """Read which shard holds which tensor."""
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise AssetError(f"{index}: has no weight_map; download it again")
    for name, file in shards.items():
        # Only a file's name: an index must not lead to files elsewhere.
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise AssetError(
                f"{index}: {name} is said to be in {file!r}, which is not a shard's name; download it again"
            )
    return shards


def _shard(path: Path) -> dict[str, Tensor]:
    """Locate one file's tensors. The library checks the header, its offsets and the file's length."""
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
            header = parse_json(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise AssetError(f"{path}: not a whole safetensors file ({error}); download it again") from error
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        stored = entry["dtype"]
        if stored not in ITEM_BYTES:
            raise AssetError(f"{path}: {name} is stored as {stored}; give the checkpoint in bf16, f16 or f32")
        found[name] = Tensor(path, stored, tuple(entry["shape"]), 8 + length + int(entry["data_offsets"][0]))
    return found


def read_vocabulary(folder: Path, rows: int) -> CheckpointVocabulary:
    """Read the tokenizer of a checkpoint whose embedding has `rows` rows.

    Raises:
        AssetError: a file is missing or damaged, the tokenizer is not byte-level BPE with Qwen2's splitting, it has more
            tokens than rows, its merges make tokens it lacks, or no token ends a text.
    """
    path = folder / "tokenizer.json"
    body = read_json(path)
    try:
        _refuse_other_tokenizers(path, body)
        tokens, kinds = _tokens(path, body, rows)
        merges = tuple(_merges(path, body["model"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise AssetError(f"{path}: not laid out as a tokenizer.json ({error!r}); download it again") from error
    ids = {token: i for i, token in enumerate(tokens)}
    settings, *fallbacks = (
        read_json(folder / name) if (folder / name).is_file() else {}
        for name in ("tokenizer_config.json", "generation_config.json", "config.json")
    )

    def special(role: str) -> int | None:
        """Return the id of a special token: tokenizer_config.json has its text, the other files its number."""
        token = settings.get(f"{role}_token")
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and text in ids:
            return ids[text]
        for fallback in fallbacks:
            value = fallback.get(f"{role}_token_id")
            first = value[0] if isinstance(value, list) and value else value
            if isinstance(first, int) and 0 <= first < len(ids):
                return first
        return None

    end = special("eos")
    if end is None:
        raise AssetError(f"{folder}: no file names the token that ends a text (eos_token); download it again")
    template = _chat_template(folder, settings)
    return CheckpointVocabulary(
        tokens, kinds, merges, special("bos"), end, ids.get(END_OF_TURN), special("pad"), template
    )


def _refuse_other_tokenizers(path: Path, body: Mapping[str, Any]) -> None:
    """Raise AssetError for a tokenizer that llama.cpp would not follow to the token."""
    if body["model"].get("type", "BPE") != "BPE":
        raise AssetError(f"{path}: tokenizer model {body['model']['type']!r}, a Qwen3 has BPE; give another checkpoint")
    if list(_patterns(body.get("pre_tokenizer"))) != [_PATTERN]:
        raise AssetError(f"{path}: text is not split as Qwen2 does; llama.cpp would see other tokens")
    normalizer = body.get("normalizer")
    if normalizer is not None and normalizer.get("type") != "NFC":
        raise AssetError(f"{path}: normalizer {normalizer.get('type')!r}, a Qwen3 has NFC; give another checkpoint")


def _patterns(splitting: Any) -> Iterator[str]:
    """Yield every expression of a pre-tokenizer."""
    if splitting is None:
        return
    if splitting["type"] == "Sequence":
        for part in splitting["pretokenizers"]:
            yield from _patterns(part)
    elif splitting["type"] == "Split":
        yield splitting["pattern"].get("Regex", str(splitting["pattern"]))
    elif splitting["type"] != "ByteLevel" or splitting["add_prefix_space"] or splitting.get("use_regex", True):
        yield str(splitting["type"])


def _tokens(path: Path, body: Mapping[str, Any], rows: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return (tokens, kinds) by id; unused ids are filled up, since the embedding has rows for them."""
    named = {int(i): (token, NORMAL) for token, i in body["model"]["vocab"].items()}
    if len(named) != len(body["model"]["vocab"]):
        raise AssetError(f"{path}: two tokens have one id; download it again")
    for added in body.get("added_tokens", ()):
        i, token = int(added["id"]), str(added["content"])
        if named.get(i, (token, 0))[0] != token:
            raise AssetError(f"{path}: id {i} is both {named[i][0]!r} and {token!r}; download it again")
        if added.get("lstrip") or added.get("rstrip") or added.get("single_word"):
            raise AssetError(f"{path}: {token!r} takes spaces or word ends with it, which a GGUF cannot say")
        named[i] = (token, CONTROL if added.get("special") else USER_DEFINED)
    if not named or min(named) < 0 or max(named) >= rows:
        raise AssetError(
            f"{path}: ids up to {max(named, default=-1)}, the embedding has {rows} rows; the files do not match"
        )
    tokens, kinds = zip(*(named.get(i, (f"[PAD{i}]", UNUSED)) for i in range(rows)), strict=True)
    "".join(tokens).encode()  # half a surrogate pair is not text: a ValueError
    if len(set(tokens)) != rows:
        raise AssetError(f"{path}: one token has two ids; download it again")
    return tokens, kinds


def _merges(path: Path, model: Mapping[str, Any]) -> Iterator[str]:
    """Yield merges as "a b", from both notations."""
    vocab = model["vocab"]
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        if left not in vocab or right not in vocab or left + right not in vocab:
            raise AssetError(f"{path}: merge of {left!r} and {right!r} is of tokens it lacks; download it again")
        yield f"{left} {right}"


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Read chat_template.jinja, else the template in tokenizer_config.json, which may be a list of named ones."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return read_whole(path, _MAX_TEMPLATE).decode("utf-8-sig")
        except (OSError, ValueError) as error:
            raise AssetError(f"{path}: cannot be read ({error}); download it again") from error
    found = settings.get("chat_template")
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None
