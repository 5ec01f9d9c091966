"""Packs come back exactly as written, and anything else is refused in one line."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scope_edge.errors import AssetError, PackError
from scope_edge.storage import packs

KIND = "bank"
TYPES = ("<f4", "<f8", "<f2", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "|b1")

arrays = st.sampled_from(TYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype=np.dtype(dtype), shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    )
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(max_size=20)
    | arrays
)
bodies = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3)
    ),
    max_size=4,
)


def packed(body: dict[str, Any], folder: Path) -> bytes:
    packs.write_pack(folder / "one.pack", KIND, body)
    return (folder / "one.pack").read_bytes()


def sealed(raw: bytes, kind: bytes = KIND.encode()) -> bytes:
    """A pack around any body at all, with a header that vouches for it: what an attacker would write."""
    head = struct.pack("<8sHH", packs.MAGIC, packs.FORMAT, len(kind)) + kind
    return head + struct.pack("<Q32s", len(raw), hashlib.sha256(raw).digest()) + raw


def sealed_array(dtype: Any, shape: Any, data: bytes) -> bytes:
    head = msgpack.packb((dtype, shape))
    return sealed(msgpack.packb({"x": msgpack.ExtType(1, struct.pack("<H", len(head)) + head + data)}))


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return (
            isinstance(right, np.ndarray)
            and (left.dtype, left.shape) == (right.dtype, right.shape)
            and left.tobytes() == right.tobytes()
        )
    if isinstance(left, dict):
        return isinstance(right, dict) and list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return isinstance(right, float) and struct.pack("<d", left) == struct.pack("<d", right)
    return type(left) is type(right) and bool(left == right)


@given(bodies)
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, body: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "roundtrip.pack"
    packs.write_pack(path, KIND, body)
    written = path.read_bytes()
    assert same(body, packs.read_pack(path, KIND))
    packs.write_pack(path, KIND, body)
    assert path.read_bytes() == written, "the same body is written as the same bytes"


@pytest.mark.parametrize(
    "array",
    [np.arange(6, dtype=">f4").reshape(2, 3), np.arange(24.0).reshape(4, 6)[::2, ::3], np.arange(6.0).reshape(2, 3).T],
    ids=["big endian", "strided", "transposed"],
)
def test_arrays_of_any_layout_keep_their_values(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    found = packs.unpack(packed({"x": array}, tmp_path), KIND, "x")["x"]
    np.testing.assert_array_equal(found, array)


def test_arrays_read_cannot_be_changed_in_place(tmp_path: Path) -> None:
    found = packs.unpack(packed({"x": np.zeros(3)}, tmp_path), KIND, "x")["x"]
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1.0


@pytest.mark.parametrize(
    "value", [np.array(["text"]), np.array([object()]), np.array([1j]), {1, 2}, Path("x"), object()]
)
def test_what_a_pack_cannot_hold_is_refused_when_writing(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError):
        packs.write_pack(tmp_path / "x.pack", KIND, {"x": value})
    assert list(tmp_path.iterdir()) == []


def test_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    blob = packed({"name": "é", "x": np.arange(3.0)}, tmp_path)
    for length in range(len(blob)):
        with pytest.raises(PackError):
            packs.unpack(blob[:length], KIND, "cut")


def test_any_flipped_bit_is_refused(tmp_path: Path) -> None:
    blob = packed({"name": "é", "x": np.arange(3.0)}, tmp_path)
    for bit in range(len(blob) * 8):
        flipped = bytearray(blob)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PackError):
            packs.unpack(bytes(flipped), KIND, "flipped")


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="bytes of body"):
        packs.unpack(packed({}, tmp_path) + b"\0", KIND, "longer")


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(blob: bytes) -> None:
    for candidate in (blob, packs.MAGIC + blob):
        with pytest.raises(PackError):
            packs.unpack(candidate, KIND, "foreign")


@given(st.binary(max_size=200))
def test_a_hostile_body_under_a_valid_hash_is_data_or_refused(raw: bytes) -> None:
    try:
        body = packs.unpack(sealed(raw), KIND, "hostile")
    except PackError:
        return
    assert isinstance(body, dict)


HOSTILE = {
    "not a map": sealed(msgpack.packb([1, 2])),
    "nested 100,000 deep": sealed(b"\x91" * 100_000),
    "list of 4 billion": sealed(b"\xdd\xff\xff\xff\xff"),
    "map of 4 billion": sealed(b"\xdf\xff\xff\xff\xff\xa1a"),
    "key not text": sealed(msgpack.packb({1: 2})),
    "text not UTF-8": sealed(b"\x81\xa1\xff\x01"),
    "unknown extension": sealed(msgpack.packb({"x": msgpack.ExtType(2, b"ab")})),
    "empty extension": sealed(msgpack.packb({"x": msgpack.ExtType(1, b"")})),
    "array head too long": sealed(msgpack.packb({"x": msgpack.ExtType(1, b"\xff\xff\x00")})),
    "array of objects": sealed_array("|O", [1], b"\0" * 8),
    "array size overflows": sealed_array("<f4", [2**62, 8], b"\0" * 8),
    "array side overflows": sealed_array("<f4", [2**63], b"\0" * 8),
    "too many sides": sealed_array("<f4", [2] * 100, b"\0" * 8),
    "negative side": sealed_array("<f4", [-1], b"\0" * 8),
    "too little data": sealed_array("<f4", [3], b"\0" * 8),
    "part of a number": sealed_array("<f4", [1], b"\0" * 7),
    "shape a number": sealed_array("<f4", 2, b"\0" * 8),
    "shape a text": sealed_array("<f4", "12", b"\0" * 8),
    "shape of fractions": sealed_array("<f4", [1.0], b"\0" * 4),
    "type a list": sealed_array(["<f4"], [2], b"\0" * 8),
    "no type": sealed_array(None, [], b""),
    "list of empty maps": sealed(b"\x81\xa1x\xdd" + struct.pack(">I", 3_000_000) + b"\x80" * 3_000_000),
    "lists of empty lists": sealed(b"\x81\xa1x\xdc\x00\x40" + (b"\xdc\xff\xff" + b"\x90" * 65_535) * 64),
    "list of small numbers": sealed(b"\x81\xa1x\xdd" + struct.pack(">I", 3_000_000) + b"\x01" * 3_000_000),
    "map of 3 million": sealed(
        b"\x81\xa1x\xdf"
        + struct.pack(">I", 3_000_000)
        + b"".join(b"\xa3%03x\xc0" % (i % 4096) for i in range(3_000_000))
    ),
    "kind not ASCII": sealed(b"", kind=b"\xff" * 4),
}


@pytest.mark.parametrize("blob", HOSTILE.values(), ids=HOSTILE)
def test_bodies_made_to_hurt_are_refused(blob: bytes) -> None:
    with pytest.raises(PackError):
        packs.unpack(blob, KIND, "hostile")


def test_errors_name_the_file_and_what_was_found(tmp_path: Path) -> None:
    path = tmp_path / "mine.pack"
    packs.write_pack(path, "fingerprint", {})
    with pytest.raises(PackError, match=r"mine\.pack.*'fingerprint'.*'bank'"):
        packs.read_pack(path, KIND)
    blob = path.read_bytes()
    path.write_bytes(blob[:8] + struct.pack("<H", 7) + blob[10:])
    with pytest.raises(PackError, match=r"mine\.pack.*format 7"):
        packs.read_pack(path, "fingerprint")
    with pytest.raises(PackError, match=r"none\.pack.*cannot be read"):
        packs.read_pack(tmp_path / "none.pack", KIND)
    with pytest.raises(PackError, match="cannot be read"):
        packs.read_pack(tmp_path, KIND)


def test_an_oversized_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.pack"
    with path.open("wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(PackError, match="more than the"):
        packs.read_pack(path, KIND)


def test_writing_replaces_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.pack"
    packs.write_pack(path, KIND, {"v": 1})
    packs.write_pack(path, KIND, {"v": 2})
    assert packs.read_pack(path, KIND) == {"v": 2}
    assert [file.name for file in path.parent.iterdir()] == ["x.pack"]


def test_a_failed_write_is_one_line_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AssetError, match="cannot be written"):
        packs.write_pack(tmp_path / "file" / "x.pack", KIND, {})
    (tmp_path / "x.pack").mkdir()
    with pytest.raises(AssetError, match="cannot be written"):
        packs.write_pack(tmp_path / "x.pack", KIND, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x.pack"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pack"
    packs.write_pack(path, KIND, {"v": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(AssetError, match="No space left"):
        packs.write_pack(path, KIND, {"v": 2})
    assert packs.read_pack(path, KIND) == {"v": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.pack"]
