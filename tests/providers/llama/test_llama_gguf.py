"""A GGUF's header is read without llama.cpp, as the format's own library reads it, and a damaged one is one line."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scope_edge.errors import AssetError
from scope_edge.providers.llama import gguf as gguf_module
from scope_edge.providers.llama.gguf import describe_gguf, read_header, writes_text
from scope_edge.providers.llama.loadable import hash_of, look_up, own_sampling
from scope_edge.providers.llama.messages import ModelShape, Sampling
from scope_edge.providers.llama.process import installed

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
        (blob(field("split.count", 2, struct.pack("<H", 3))), "the first of 3 parts"),
        (
            blob(*(field(f"split.{name}", 2, struct.pack("<H", n)) for name, n in (("no", 1), ("count", 3)))),
            "part 2 of 3",
        ),
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


def in_parts(whole: Path, folder: Path, tensors: int = 5) -> list[Path]:
    """A GGUF cut into parts by the format's own library, the first of them without weights."""
    reader = gguf.GGUFReader(whole)
    writer = gguf.GGUFWriter(folder / "cut", "qwen3", split_max_tensors=tensors, small_first_shard=True)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("cut-*.gguf"))


@pytest.mark.usefixtures("own_folders")
def test_a_model_in_parts_counts_them_all(tiny_gguf: Path, tmp_path: Path) -> None:
    parts = in_parts(tiny_gguf, tmp_path)
    assert len(parts) > 2
    found = read_header(parts[0])
    assert found.shape == read_header(tiny_gguf).shape
    assert found.size == look_up(parts[0]).size == look_up(parts[0]).size == sum(one.stat().st_size for one in parts)
    if installed():
        linked = tmp_path / "linked"
        linked.mkdir()
        for number, part in enumerate(parts):
            (linked / part.name).symlink_to(part.rename(tmp_path / f"blob{number}"))
        assert describe_gguf(linked / parts[0].name) == found.shape, "llama.cpp finds the parts by the names of links"


@pytest.mark.usefixtures("own_folders")
def test_parts_that_are_missing_or_of_another_model(tiny_gguf: Path, tmp_path: Path) -> None:
    parts = in_parts(tiny_gguf, tmp_path)
    before, digest = look_up(parts[0]), hash_of(parts[0])
    raw = bytearray(parts[-1].read_bytes())
    raw[-1] ^= 1
    parts[-1].write_bytes(raw)
    os.utime(parts[-1], ns=(1, 1))
    assert look_up(parts[0]).size == before.size and hash_of(parts[0]) != digest
    with pytest.raises(AssetError, match=f"is part 2 of {len(parts)}; give the first part"):
        read_header(parts[1])
    shutil.copy(parts[1], parts[2])
    with pytest.raises(AssetError, match=f"is not part 3 of {len(parts)}"):
        look_up(parts[0])
    parts[2].unlink()
    with pytest.raises(AssetError, match=f"{parts[2].name} is not beside it"):
        look_up(parts[0])


@pytest.mark.skipif(not installed(), reason="llama-cpp-python is not installed")
def test_control_tokens_around_a_thought_are_spelled_in_an_answer(tmp_path: Path) -> None:
    words = ["<unk>", "<s>", "</s>", "<|channel|>", "[THINK]", "<|im_start|>", "word"]
    writer = gguf.GGUFWriter(tmp_path / "words.gguf", "llama")
    for number in ("block_count", "context_length", "embedding_length", "feed_forward_length", "head_count"):
        getattr(writer, f"add_{number}")(32)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([2, 3, 3, 3, 3, 3, 1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    code = (
        "import sys; from pathlib import Path; from scope_edge.providers.llama import native as n; n.start();"
        "v = n.Vocabulary(n.open_model(Path(sys.argv[1]), vocabulary_only=True));"
        "print([v.piece(i).decode() for i in range(v.size)])"
    )
    said = subprocess.run([sys.executable, "-c", code, tmp_path / "words.gguf"], capture_output=True, text=True)
    assert said.stdout.strip() == repr(["", "", "", "<|channel|>", "[THINK]", "", "word"]), said.stderr
