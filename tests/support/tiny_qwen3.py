"""A small Qwen3 checkpoint as the hub would hand it out, with random weights, made without torch or transformers.

The same arguments give the same bytes. The vocabulary is trained on sentences made here, so that it knows the words of a
SCOPE prompt: " yes", " no", " {", "len" and "correct" are one token each, digits are single, as in Qwen's own.
"""

from __future__ import annotations

import functools
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Dtype = Literal["bfloat16", "float16", "float32"]
    Floats = NDArray[np.float32]

# How Qwen2 and Qwen3 part a text before merging bytes.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
USER_DEFINED = ("<think>", "</think>")
VOCABULARY = 1800
_NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_WORDS = """
able about above accuracy across add after again algebra all almost also although always among analysis anchor and another
answer any area around ask assistant average balance because become before begin behaviour below best better between beyond
billion body book both bring budget build business but calculate call can capital carbon careful category cause cell
century change chapter check chemistry child choice choose circle city claim class clear close cloud code cold common
compare complete compute concept condition consider constant contain context correct cost could count country course create
current daily data decide decision degree depend describe design detail device differ difficult difficulty digit direct
distance divide domain door double down draw during each early earth easy economy edge effect eight either electric element
else empty end energy engine enough equal equation error estimate even evening event every evidence exact example except
expect explain express factor fact fall false family famous far fast father few field figure final find first five flow
follow food force form format formula four fraction free friend from front function future game garden gas general give
given good government graph gravity great green ground group grow half hand hard has have head heat heavy height help here
high history hold hour house how however human hundred idea important improve include increase input instance instead
integer into island item its job join judge keep kind know known language large last later law lead learn least left legal
length less letter level library light like likely limit line list literal local logic long look low machine main make many
market mass match material matter maximum mean measure medical memory message meter method middle might minimum minute
model modern molecule moment money month more most mother motion move much multiply must name nation nature near need
neighbor never new next night nine none north note nothing notice now number object observe ocean often old once one only
open operate option orbit order organ other output over own oxygen page paper part pass past pattern pay people percent
performance perhaps period person philosophy physics piece place plan planet plant plate play point policy position
possible power predict predicted prediction present pressure price prime probability problem process product program prompt
proof proper prove public purpose question quick quite radius rain random range rate rather ratio reach read reason record
red reference region relation remain repeat report require requirements rest result return right river road root round
router rule run said same sample say school science score search season second section seem select sentence sequence series
set seven several shape she short should show side sign similar simple since single six size slope slow small social
society solid solution solve some sound source south space special speed square stage stand star start state step still
stone story strict strong student study subject such sugar sum summer support surface system table take target task teach
team ten term test than that the their them then theory there these they thing think third this those though thousand three
through time today together token tone too total toward town trade train travel tree triangle true try turn two type under
understand unit until upon use usual valley value variable vector very view village volume wall want war was water wave way
weather week weight well were west what when where which while white who whole why wide will wind window winter with within
without woman wood word work world would write wrong year yellow yesterday young your zero
"""
_LINES = (
    "Predicted Performance: {len: %d, correct: yes}",
    "Predicted Performance: {len: %d, correct: no}",
    "Performance: {len: %d, correct: yes}",
    "Performance: {len: %d, correct: no}",
    "Example %d:\nQuestion: ",
    "### Task\n### Target Model\n### Target Question\n### Output Format (STRICT)\n### Important Notes\n### Output:\nAnalysis: %d",
    "user\nsystem\nassistant\n%d",
    "def area(x, y):\n    return x * y + %d  # it's what we'd expect\n",
)


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Of a Qwen3. The defaults run in milliseconds; k-quants need `hidden` and `feed_forward` to be multiples of 256."""

    layers: int = 2
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    feed_forward: int = 128
    context: int = 4096
    rope_theta: float = 1_000_000.0
    epsilon: float = 1e-6


def make_checkpoint(
    folder: Path,
    dimensions: Dimensions = Dimensions(),
    *,
    shards: int = 1,
    tied: bool = True,
    dtype: Dtype = "bfloat16",
    seed: int = 0,
    values: Callable[[str, tuple[int, ...], int], Floats] | None = None,
) -> Path:
    """Write config, weights, tokenizer and chat template into `folder`, and return it. values: instead of `weights`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()), "utf-8")
    for name, body in _settings(dimensions, tied, dtype).items():
        write_json(folder / name, body)
    rows: int = read_json(folder / "config.json")["vocab_size"]
    shapes = dict(_shapes(dimensions, rows, tied))
    names = list(shapes)
    parts = [names[i::shards] for i in range(shards)]
    where: dict[str, str] = {}
    for i, part in enumerate(parts):
        file = "model.safetensors" if shards == 1 else f"model-{i + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(folder / file, {name: (values or weights)(name, shapes[name], seed) for name in part}, dtype)
        where |= dict.fromkeys(part, file)
    if shards > 1:
        write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})
    return folder


def tiny_gguf(folder: Path) -> Path:
    """The default checkpoint, converted to a GGUF in `folder`."""
    from scope_edge.estimator.convert.gguf import convert_checkpoint

    target = folder / "tiny-qwen3.gguf"
    convert_checkpoint(make_checkpoint(folder / "tiny-qwen3"), target)
    return target


def weights(name: str, shape: tuple[int, ...], seed: int) -> Floats:
    """A tensor's values, which depend on its name, shape and the seed alone. Logits come out with a spread of about 2."""
    draw = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = draw.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        return np.float32(1) + values / np.float32(5)  # norms: none of them is near 0 or exactly 1
    spread = 2.0 if name.startswith(("model.embed", "lm_head")) else 1.0
    return values * np.float32(spread / shape[1] ** 0.5)


def write_safetensors(path: Path, tensors: dict[str, Floats], dtype: Dtype) -> None:
    """Store tensors as `dtype`, rounded to nearest, ties to even. The format is a length, a JSON header and the bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs, end = [_rounded(value, dtype).tobytes() for value in tensors.values()], 0
    for (name, value), blob in zip(tensors.items(), blobs, strict=True):
        begin, end = end, end + len(blob)
        header[name] = {"dtype": _NAMES[dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + b"".join(blobs))


def _rounded(value: Floats, dtype: Dtype) -> NDArray[Any]:
    if dtype == "bfloat16":
        bits = value.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return value.astype("<f4" if dtype == "float32" else "<f2")


def read_json(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return body


def write_json(path: Path, body: dict[str, Any]) -> None:
    path.write_text(json.dumps(body, indent=2), "utf-8")


def _shapes(d: Dimensions, rows: int, tied: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (rows, d.hidden)
    if not tied:
        yield "lm_head.weight", (rows, d.hidden)
    for i in range(d.layers):
        layer = f"model.layers.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}{norm}.weight", (d.hidden,)
        for norm in ("q_norm", "k_norm"):
            yield f"{layer}self_attn.{norm}.weight", (d.head_dim,)
        yield f"{layer}self_attn.q_proj.weight", (d.heads * d.head_dim, d.hidden)
        yield f"{layer}self_attn.k_proj.weight", (d.kv_heads * d.head_dim, d.hidden)
        yield f"{layer}self_attn.v_proj.weight", (d.kv_heads * d.head_dim, d.hidden)
        yield f"{layer}self_attn.o_proj.weight", (d.hidden, d.heads * d.head_dim)
        yield f"{layer}mlp.gate_proj.weight", (d.feed_forward, d.hidden)
        yield f"{layer}mlp.up_proj.weight", (d.feed_forward, d.hidden)
        yield f"{layer}mlp.down_proj.weight", (d.hidden, d.feed_forward)
    yield "model.norm.weight", (d.hidden,)


def _settings(d: Dimensions, tied: bool, dtype: Dtype) -> dict[str, dict[str, Any]]:
    """The JSON files besides tokenizer.json, by name. The embedding has rows to spare, as Qwen's own has."""
    ids = {row["content"]: row["id"] for row in tokenizer()["added_tokens"]}
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "head_dim": d.head_dim,
        "hidden_act": "silu",
        "hidden_size": d.hidden,
        "intermediate_size": d.feed_forward,
        "max_position_embeddings": d.context,
        "num_attention_heads": d.heads,
        "num_hidden_layers": d.layers,
        "num_key_value_heads": d.kv_heads,
        "rms_norm_eps": d.epsilon,
        "rope_scaling": None,
        "rope_theta": d.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
        "use_sliding_window": False,
        "vocab_size": -(-len(tokenizer()["model"]["vocab"]) // 64) * 64 + 64,
    }
    return {
        "config.json": config,
        "generation_config.json": {
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "pad_token_id": ids["<|endoftext|>"],
        },
        "tokenizer_config.json": {
            "add_bos_token": False,
            "bos_token": None,
            "chat_template": CHAT_TEMPLATE,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "Qwen2Tokenizer",
        },
    }


@functools.cache
def tokenizer() -> dict[str, Any]:
    """tokenizer.json: byte-level BPE with Qwen2's splitting, trained on `sentences`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(sentences(), trainer)
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    made.add_tokens([AddedToken(text, special=False, normalized=False) for text in USER_DEFINED])
    body: dict[str, Any] = json.loads(made.to_str())
    return body


def sentences(count: int = 3000, seed: int = 7) -> list[str]:
    """Lines of made-up English, and lines of a SCOPE prompt, as many of the one as of the other."""
    draw = np.random.default_rng(seed)
    words = _WORDS.split()
    lines = []
    for i in range(count):
        chosen = [words[j] for j in draw.integers(len(words), size=int(draw.integers(5, 12)))]
        ends = (".", "?", ", ", ";\n", "!")[i % 5]
        lines.append(" ".join(chosen).capitalize() + ends)
        lines.append(_LINES[i % len(_LINES)] % draw.integers(1, 9999))
    return lines
