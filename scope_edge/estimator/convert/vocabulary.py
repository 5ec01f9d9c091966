"""A Qwen checkpoint's tokenizer in llama.cpp's terms: tokens with their kinds, merges, and which token ends what.

llama.cpp knows Qwen2's splitting by name and takes tokens and merges from the GGUF. It does not compose characters (NFC)
as the tokenizer does: who hands text to it does that first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scope_edge.errors import AssetError
from scope_edge.estimator.convert.checkpoint import read_json

# llama.cpp's kinds of token.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
# llama.cpp's names for byte-level BPE and for splitting as below.
MODEL, SPLITTING = "gpt2", "qwen2"
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TURN = "<|im_end|>"


@dataclass(frozen=True, slots=True)
class CheckpointVocabulary:
    """What a GGUF says of a tokenizer.

    Attributes:
        tokens, kinds: by id, one for each row of the embedding.
        merges: "a b", the first to be made first.
        begin, end, end_of_turn, pad: ids; None where the checkpoint names none.
        chat_template: Jinja; None where there is none.
    """

    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    begin: int | None
    end: int
    end_of_turn: int | None
    pad: int | None
    chat_template: str | None


def read_vocabulary(folder: Path, rows: int) -> CheckpointVocabulary:
    """The tokenizer of a checkpoint whose embedding has `rows` rows.

    Raises:
        AssetError: a file is missing or damaged, the tokenizer is not byte-level BPE with Qwen2's splitting, it has more
            tokens than rows, its merges make tokens it lacks, or no token ends a text.
    """
    path = folder / "tokenizer.json"
    body = read_json(path)
    try:
        _refuse_others(path, body)
        tokens, kinds = _tokens(path, body, rows)
        merges = tuple(_merges(path, body["model"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise AssetError(f"{path}: not laid out as a tokenizer.json ({error!r}); download it again") from error
    ids = {token: i for i, token in enumerate(tokens)}
    settings = _optional(folder / "tokenizer_config.json")
    fallbacks = (_optional(folder / "generation_config.json"), _optional(folder / "config.json"))
    end = _named(settings, fallbacks, "eos", ids)
    if end is None:
        raise AssetError(f"{folder}: no file names the token that ends a text (eos_token); download it again")
    return CheckpointVocabulary(
        tokens=tokens,
        kinds=kinds,
        merges=merges,
        begin=_named(settings, fallbacks, "bos", ids),
        end=end,
        end_of_turn=ids.get(END_OF_TURN),
        pad=_named(settings, fallbacks, "pad", ids),
        chat_template=_chat_template(folder, settings),
    )


def _refuse_others(path: Path, body: Mapping[str, Any]) -> None:
    """Raise AssetError for a tokenizer that llama.cpp would not follow to the token."""
    if body["model"].get("type", "BPE") != "BPE":
        raise AssetError(f"{path}: tokenizer model {body['model']['type']!r}, a Qwen3 has BPE; give another checkpoint")
    patterns = list(_patterns(body.get("pre_tokenizer")))
    if patterns != [_PATTERN]:
        raise AssetError(f"{path}: text is not split as Qwen2 does; llama.cpp would see other tokens")
    normalizer = body.get("normalizer")
    if normalizer is not None and normalizer.get("type") != "NFC":
        raise AssetError(f"{path}: normalizer {normalizer.get('type')!r}, a Qwen3 has NFC; give another checkpoint")


def _patterns(splitting: Any) -> Iterator[str]:
    """Every expression a pre-tokenizer splits by."""
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
    """(tokens, kinds) by id; ids that no token has are filled up, as the embedding has rows for them."""
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
    for i in range(rows):
        named.setdefault(i, (f"[PAD{i}]", UNUSED))
    tokens = tuple(named[i][0] for i in range(rows))
    "".join(tokens).encode()  # half a surrogate pair is no text: a ValueError
    if len(set(tokens)) != rows:
        raise AssetError(f"{path}: one token has two ids; download it again")
    return tokens, tuple(named[i][1] for i in range(rows))


def _merges(path: Path, model: Mapping[str, Any]) -> Iterator[str]:
    """Merges as "a b", from either way of writing them."""
    vocab = model["vocab"]
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        if left not in vocab or right not in vocab or left + right not in vocab:
            raise AssetError(f"{path}: merge of {left!r} and {right!r} is of tokens it lacks; download it again")
        yield f"{left} {right}"


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _named(
    settings: Mapping[str, Any], fallbacks: tuple[Mapping[str, Any], ...], role: str, ids: Mapping[str, int]
) -> int | None:
    """The id of the "bos", "eos" or "pad" token: tokenizer_config.json says it in text, the others in numbers."""
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


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """From chat_template.jinja, else from tokenizer_config.json, where it may be a list of named ones."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text("utf-8")
        except (OSError, ValueError) as error:
            raise AssetError(f"{path}: cannot be read ({error}); download it again") from error
    found = settings.get("chat_template")
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None
