"""The header of a GGUF, read with distrust: without native code, bounded in every size, weights unread.

The file is little-endian: "GGUF", a version, the numbers of tensors and of fields, the fields (a name, a type, a value), then a
name, dimensions, type and offset for every tensor. llama.cpp's names of the fields.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from scope_edge.errors import AssetError, MissingExtraError, UsageError
from scope_edge.providers.llama.messages import USUAL, ModelShape, Sampling
from scope_edge.providers.llama.process import ask_child, installed
from scope_edge.storage.files import file_sha256

MAGIC = b"GGUF"
# Headers of real models: some 10 MB of vocabulary and merges, a thousand tensors.
MAX_HEADER_BYTES = 128 * 2**20
_MAX_ITEMS = 4_000_000
_MAX_FIELDS, _MAX_TENSORS, _MAX_DIMENSIONS = 65_536, 262_144, 8
_MAX_NAME, _MAX_TEXT = 65_536, 2**20
# Longer arrays (vocabularies) are counted, not kept.
_KEPT_ITEMS = 4_096
_VERSIONS = (2, 3)
_ALIGNMENT = 32
TIMEOUT_SECONDS = 120.0
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_NOT_GENERATING = re.compile(r".*bert.*|t5encoder|.*-embed.*|.*-embedding|clip|mmproj|wavtokenizer-dec")
_FIRST_PART = re.compile(r"(?P<stem>.+)-00001-of-(?P<count>00\d{3})\.gguf")
# llama.cpp's numbers of file types, the common ones.
_FILE_TYPES = dict(enumerate(("F32", "F16", "Q4_0", "Q4_1")))
_FILE_TYPES |= dict(enumerate(("Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L"), 7))
_FILE_TYPES |= dict(enumerate(("Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS", "IQ2_XS", "Q2_K_S"), 14))
_FILE_TYPES |= dict(enumerate(("IQ3_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M"), 22))
_FILE_TYPES |= {30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4"}


@dataclass(frozen=True, slots=True)
class Header:
    """A GGUF's header.

    Attributes:
        shape: the model's measures. size: of the file, in bytes.
        name, licence: as written there; None = missing, or not fit to be shown.
        sampling: how its makers draw tokens; None = missing.
    """

    shape: ModelShape
    size: int
    name: str | None
    licence: str | None
    sampling: Sampling | None = None


@dataclass(frozen=True, slots=True)
class _Items:
    """An array: how many items it has, and they themselves where they are few numbers."""

    count: int
    numbers: tuple[float, ...]


_Value = float | str | _Items


class _FlawedError(ValueError):
    """The header is invalid; the message is a part of a sentence."""


def read_header(path: Path) -> Header:
    """Read the header of a GGUF, with the weights and size of all its parts.

    Raises AssetError when it is no GGUF, damaged, cut off, a later part of several, or the first without the others.
    """
    first, number, count = _read_file(path)
    if number:
        raise AssetError(f"{path}: is part {number + 1} of {count}; give the first part, which llama.cpp begins with")
    parts = parts_of(path)
    missing = [one.name for one in parts if not one.is_file()]
    if len(parts) != count or missing:
        raise AssetError(
            f"{path}: is the first of {count} parts, {missing[0] if missing else 'the others'} is not beside it; get all "
            f"parts under the names they came with (...-00001-of-{count:05}.gguf)"
        )
    parameters, size = first.shape.parameters, first.size
    for at, part in enumerate(parts[1:], 1):
        other, number, of = _read_file(part)
        if (number, of) != (at, count):
            raise AssetError(f"{part}: is not part {at + 1} of {count} of {path.name}; get a fresh copy")
        parameters, size = parameters + other.shape.parameters, size + other.size
    return replace(first, shape=replace(first.shape, parameters=parameters), size=size)


def parts_of(path: Path) -> tuple[Path, ...]:
    """Return the files of a GGUF by their names, as llama.cpp looks for them: the first of several parts names the others."""
    found = _FIRST_PART.fullmatch(path.name)
    if found is None:
        return (path,)
    count = int(found["count"])
    return tuple(path.with_name(f"{found['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1))


def resolved(path: Path) -> Path:
    """Return the absolute path of a GGUF; the first of several parts keeps its name, by which llama.cpp finds the others."""
    return path.resolve() if len(parts_of(path)) == 1 else path.parent.resolve() / path.name


def gguf_sha256(path: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """Return the sha256 of a GGUF; that of its parts' hashes in a row if it has several. Raises OSError.

    progress: called with (bytes read, total bytes) of each part.
    """
    hashes = [file_sha256(part, progress) for part in parts_of(path)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _read_file(path: Path) -> tuple[Header, int, int]:
    """Return (header, number of the part from 0, number of parts) of one file. Raises AssetError."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
            if magic != MAGIC:
                raise AssetError(
                    f"{path}: not a GGUF (expected it to begin with {MAGIC!r}, found {magic!r}); give a GGUF file"
                )
            return _read(_Reader(file))
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); give another file") from error
    except _FlawedError as error:
        raise AssetError(f"{path}: {error}; get a fresh copy") from error


def writes_text(shape: ModelShape) -> bool:
    """Return whether a model continues texts; llama.cpp also loads encoders and codecs, which do not."""
    return not _NOT_GENERATING.fullmatch(shape.architecture)


class _Reader:
    """Reads the parts of a header from an open file. Raises _FlawedError at its end and at every limit."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self.at = file.tell()
        self._items = 0

    def take(self, size: int) -> bytes:
        self.at += size
        if self.at <= self.size and self.at > MAX_HEADER_BYTES:
            raise _FlawedError(f"is damaged: a header of more than {MAX_HEADER_BYTES // 2**20} MiB")
        raw = self._file.read(size) if self.at <= self.size else b""
        if len(raw) != size:
            raise _FlawedError("ends in the middle of its header")
        return raw

    def number(self, code: str) -> float:
        (value,) = struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))
        found: float = value
        return found

    def count(self, code: str, most: int, what: str) -> int:
        value = int(self.number(code))
        if value > most:
            raise _FlawedError(f"is damaged: {value} {what}, at most {most} are possible")
        return value

    def text(self, most: int) -> str:
        return self.take(self.count("Q", most, "characters in a name or value")).decode("utf-8", "replace")

    def value(self, kind: int) -> _Value:
        if kind == _STRING:
            return self.text(_MAX_TEXT)
        if kind == _ARRAY:
            return self._array()
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        raise _FlawedError(f"is damaged: a value of unknown type {kind}")

    def _array(self) -> _Items:
        kind = int(self.number("I"))
        count = self.count("Q", _MAX_ITEMS, "items in a list")
        self._items += count
        if self._items > _MAX_ITEMS:
            raise _FlawedError(f"is damaged: more than {_MAX_ITEMS} items in its lists")
        if kind == _STRING:
            for _ in range(count):
                self.take(self.count("Q", _MAX_TEXT, "characters in a word"))
            return _Items(count, ())
        if kind not in _NUMBERS:
            raise _FlawedError(f"is damaged: a list of unknown type {kind}")
        raw = self.take(count * struct.calcsize(f"<{_NUMBERS[kind]}"))
        kept = count <= _KEPT_ITEMS
        return _Items(count, struct.unpack(f"<{count}{_NUMBERS[kind]}", raw) if kept else ())


def _read(reader: _Reader) -> tuple[Header, int, int]:
    version = int(reader.number("I"))
    if version not in _VERSIONS:
        raise _FlawedError(f"is a GGUF of version {version}, where llama.cpp reads {' and '.join(map(str, _VERSIONS))}")
    tensors = reader.count("Q", _MAX_TENSORS, "tensors")
    fields: dict[str, _Value] = {}
    for _ in range(reader.count("Q", _MAX_FIELDS, "fields")):
        name = reader.text(_MAX_NAME)
        fields[name] = reader.value(int(reader.number("I")))
    parameters, last = _tensors(reader, tensors)
    parts, number = max(_whole(fields.get("split.count")), 1), _whole(fields.get("split.no"))
    # The first of several parts may hold no weights.
    if not 0 < parameters < 2**50 and not (parts > 1 and tensors == 0):
        raise _FlawedError(f"is damaged: it cannot have {parameters} weights")
    alignment = _whole(fields.get("general.alignment")) or _ALIGNMENT
    if tensors and reader.at + (-reader.at % alignment) + last >= reader.size:
        raise _FlawedError("is cut off: it ends before its last weights begin")
    drawing = {name: fields.get(f"general.sampling.{name}") for name in ("temp", "top_p", "top_k")}
    header = Header(
        _shape(fields, parameters),
        reader.size,
        _line(fields.get("general.name")),
        _line(fields.get("general.license")),
        sampling_of(drawing["temp"], drawing["top_p"], drawing["top_k"]),
    )
    return header, number, parts


def sampling_of(temperature: object, top_p: object, top_k: object) -> Sampling | None:
    """Return a model's own way of drawing tokens; what is missing or impossible is the usual; None = all of it is."""
    given = {
        "temperature": _within(temperature, 0.0, 2.0),
        "top_p": _within(top_p, 0.01, 1.0),
        "top_k": _within(top_k, 0, 1000),
    }
    known = {name: value for name, value in given.items() if value is not None}
    return replace(USUAL, **known) if known else None


def _within(value: object, least: float, most: float) -> Any:
    sane = isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most
    return (
        (int(value) if isinstance(least, int) else float(value)) if sane and isinstance(value, (int, float)) else None
    )


def _tensors(reader: _Reader, count: int) -> tuple[int, int]:
    """Return (weights in all, offset of the last tensor)."""
    parameters = last = 0
    for _ in range(count):
        reader.text(_MAX_NAME)
        size = 1
        for _ in range(reader.count("I", _MAX_DIMENSIONS, "dimensions")):
            size *= int(reader.number("Q"))
        reader.number("I")
        parameters, last = parameters + size, max(last, int(reader.number("Q")))
    return parameters, last


def _shape(fields: Mapping[str, _Value], parameters: int) -> ModelShape:
    architecture = _line(fields.get("general.architecture")) or "unknown"

    def of(name: str) -> _Value | None:
        return fields.get(f"{architecture}.{name}")

    layers, heads = _whole(of("block_count")), _whole(of("attention.head_count")) or 1
    head = _whole(of("embedding_length")) // heads
    widths = sum(_whole(of(f"attention.{name}_length")) or head for name in ("key", "value"))
    kv_heads = of("attention.head_count_kv")
    # One number for all layers, or one for each.
    of_all = sum(map(int, kv_heads.numbers)) if isinstance(kv_heads, _Items) else layers * (_whole(kv_heads) or heads)
    tokens = fields.get("tokenizer.ggml.tokens")
    return ModelShape(
        architecture=architecture,
        quantization=_FILE_TYPES.get(_whole(fields.get("general.file_type"), -1), "unknown"),
        parameters=parameters,
        layers=layers,
        context=_whole(of("context_length")),
        vocabulary=tokens.count if isinstance(tokens, _Items) else 0,
        kv_bytes=2 * of_all * widths,
        chat_template=bool(fields.get("tokenizer.chat_template")),
    )


def _whole(value: _Value | None, default: int = 0) -> int:
    """Return a whole number of a sane size, the largest of a list; else the default."""
    if isinstance(value, _Items):
        value = max(value.numbers, default=None)
    return int(value) if isinstance(value, int) and 0 <= value < 2**31 else default


def _line(value: _Value | None) -> str | None:
    """Return text that is fit for one line, else None: its source is unknown."""
    text = " ".join(value.split()) if isinstance(value, str) else ""
    return text if text and len(text) <= 200 and text.isprintable() else None


def describe_gguf(path: Path) -> ModelShape:
    """Read the shape of a GGUF, and check in a child process, which may crash, that llama.cpp can read it (weights unread).

    Raises AssetError for an invalid GGUF or one that llama.cpp cannot read, MissingExtraError without llama-cpp-python.
    """
    if not installed():
        raise MissingExtraError('llama-cpp-python is not installed; pip install "scope-edge[llama]"')
    shape = read_header(path).shape
    try:
        answer, said = ask_child("read", str(resolved(path)), doing="reading it", timeout=TIMEOUT_SECONDS, gpu=False)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise AssetError(f"{path}: llama.cpp could not be asked about it ({error}); try again") from error
    if answer is None or "error" not in answer:
        raise AssetError(f"{path}: llama.cpp {said or 'gave no answer'}; get a fresh copy")
    if answer["error"] is not None:
        raise AssetError(f"{path}: {answer['error']}; get a fresh copy or another model")
    return shape


def check_template(path: Path, there: bool) -> None:
    """Raise UsageError for a GGUF without a chat template."""
    if not there:
        raise UsageError(
            f"{path}: carries no chat template, so it cannot be asked; take the instruct version of the model"
        )
