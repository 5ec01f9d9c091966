"""A GGUF's header is read without llama.cpp, as the format's own library reads it, and a damaged one is one line."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scope_edge.errors import AssetError
from scope_edge.providers.llama import gguf as gguf_module
from scope_edge.providers.llama.gguf import read_header, writes_text
from scope_edge.providers.llama.loadable import own_sampling
from scope_edge.providers.llama.messages import ModelShape, Sampling

gguf = pytest.importorskip("gguf")
HUGE = 2**64 - 1


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def field(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def blob(*fields: bytes, version: int = 3, tensors: int = 1, count: int | None = None) -> bytes:
    """A GGUF with one tensor of four numbers, unless its numbers say otherwise."""
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, len(fields) if count is None else count)
    tensor = text("w") + struct.pack("<IQIQ", 1, 4, 0, 0)
    whole = head + b"".join(fields) + tensor
    return whole + b"\0" * (-len(whole) % 32) + b"\0" * 16


def written(folder: Path, **of: Callable[[object], None]) -> Path:
    """A file by the format's own library."""
    path = folder / "made.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    of["fields"](writer)
    writer.add_tensor("w", np.zeros((3, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def refusal(path: Path, raw: bytes) -> str:
    path.write_bytes(raw)
    with pytest.raises(AssetError) as told:
        read_header(path)
    said = str(told.value)
    assert said.startswith(f"{path}: ") and "\n" not in said
    return said


def test_it_says_what_the_formats_own_library_says(tiny_gguf: Path) -> None:
    found, reader = read_header(tiny_gguf), gguf.GGUFReader(tiny_gguf)
    shape = found.shape

    def of(name: str) -> object:
        return reader.get_field(name).contents()

    assert shape.architecture == of("general.architecture") == "qwen3"
    assert (shape.layers, shape.context) == (of("qwen3.block_count"), of("qwen3.context_length"))
    assert shape.vocabulary == len(reader.get_field("tokenizer.ggml.tokens").data)
    assert shape.parameters == sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert shape.chat_template and found.name == of("general.name")
    assert shape.kv_bytes == 2 * 2 * 2 * (32 + 32), "bytes x layers x heads x (key + value)"
    assert found.size == tiny_gguf.stat().st_size


def test_a_model_whose_layers_differ_counts_the_cache_of_each(tmp_path: Path) -> None:
    def fields(writer: gguf.GGUFWriter) -> None:
        writer.add_block_count(3)
        writer.add_context_length(512)
        writer.add_embedding_length(64)
        writer.add_head_count(4)
        writer.add_head_count_kv([4, 2, 0])
        writer.add_file_type(15)
        writer.add_string("general.license", "two\nlines")

    found = read_header(written(tmp_path, fields=fields))
    assert found.shape == ModelShape("llama", "Q4_K_M", 96, 3, 512, 0, 2 * (4 + 2 + 0) * (16 + 16), False)
    assert found.licence == "two lines" and found.name is None


def test_text_that_is_not_fit_to_be_shown_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(blob(field("general.name", 8, text("\x1b[2Jevil"))))
    assert read_header(tmp_path / "a").name is None


@pytest.mark.parametrize("size", [0, 3, 4, 7, 8, 23, 24, 60, 500, 5_000])
def test_a_header_that_is_cut_off(tiny_gguf: Path, tmp_path: Path, size: int) -> None:
    said = refusal(tmp_path / "cut.gguf", tiny_gguf.read_bytes()[:size])
    assert "not a GGUF" in said if size < 4 else "ends in the middle" in said


def test_weights_that_are_cut_off(tiny_gguf: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.read_bytes()
    assert "is cut off" in refusal(tmp_path / "half.gguf", whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (blob(version=1), "version 1"),
        (blob(tensors=HUGE), "tensors"),
        (blob(count=HUGE), "fields"),
        (blob(tensors=0), "cannot have 0 weights"),
        (blob(field("a", 8, struct.pack("<Q", HUGE))), "characters"),
        (blob(field("a", 9, struct.pack("<IQ", 4, HUGE))), "items"),
        (blob(field("a", 9, struct.pack("<IQ", 9, 1))), "list of unknown type"),
        (blob(field("a", 99, b"")), "unknown type 99"),
        (blob(field("split.count", 2, struct.pack("<H", 3))), "one of 3 parts"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path: Path, raw: bytes, said: str) -> None:
    assert said in refusal(tmp_path / "bad.gguf", raw)


def test_lists_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_module, "_MAX_ITEMS", 10)
    numbers = struct.pack("<IQ", 0, 8) + bytes(8)
    (tmp_path / "one.gguf").write_bytes(blob(field("a", 9, numbers)))
    read_header(tmp_path / "one.gguf")
    assert "more than 10 items" in refusal(tmp_path / "two.gguf", blob(field("a", 9, numbers), field("b", 9, numbers)))


def test_whatever_is_damaged_it_is_read_or_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    whole, draw, path = tiny_gguf.read_bytes(), np.random.default_rng(0), tmp_path / "flipped.gguf"
    refused = 0
    for _ in range(150):
        raw = bytearray(whole)
        # Most of the damage where the structure is.
        for at in draw.integers(4, draw.choice([64, 2_000, 60_000]), size=4).tolist():
            raw[at] = int(draw.integers(256))
        path.write_bytes(raw)
        try:
            read_header(path)
        except AssetError:
            refused += 1
    assert refused > 30


def test_encoders_write_no_text(tiny_gguf: Path) -> None:
    assert writes_text(read_header(tiny_gguf).shape)
    assert not writes_text(ModelShape("nomic-bert", "F16", 1, 1, 1, 1, 1, True))


def test_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(AssetError, match="cannot be read"):
            read_header(path)


def number(name: str, value: float) -> bytes:
    return field(name, 6, struct.pack("<f", value))


@pytest.mark.parametrize(
    ("kind", "name"), [(15, "Q4_K_M"), (19, "IQ2_XXS"), (30, "IQ4_XS"), (38, "MXFP4"), (99, "unknown")]
)
def test_kinds_of_weights_have_their_names(tmp_path: Path, kind: int, name: str) -> None:
    path = tmp_path / "kind.gguf"
    path.write_bytes(blob(field("general.file_type", 4, struct.pack("<I", kind))))
    assert read_header(path).shape.quantization == name


def test_how_a_models_makers_draw_its_tokens(tmp_path: Path, own_folders: Path) -> None:
    plain, drawn = tmp_path / "plain.gguf", tmp_path / "drawn.gguf"
    plain.write_bytes(blob())
    own = (number("general.sampling.temp", 0.25), number("general.sampling.top_p", 9.0))
    drawn.write_bytes(blob(*own, field("general.sampling.top_k", 4, struct.pack("<I", 7))))
    assert (own_sampling(plain).temperature, own_sampling(plain).top_k) == (0.7, 40)
    (tmp_path / "generation_config.json").write_text('{"temperature": 1.0, "top_k": 64, "top_p": "odd"}')
    assert own_sampling(plain) == Sampling(temperature=1.0, top_p=0.95, top_k=64)
    for _ in range(2):  # the header, and what is remembered of it
        assert own_sampling(drawn) == Sampling(temperature=0.25, top_p=0.95, top_k=7), "the file itself is nearer"
