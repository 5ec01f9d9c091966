"""The pack: one small binary container for the bank, fingerprints and caches.

Layout (little endian): magic `SCOPEPAK`, u16 format version, u16 kind length, kind (ASCII), u64 body length, sha256 of
the body (32 bytes), body (msgpack). Arrays inside the body are a msgpack extension type: dtype, shape, raw bytes.
Reading trusts nothing: sizes are limited, the hash is checked before the body is decoded, and no object is ever revived.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from scope_edge.errors import PackError
from scope_edge.storage.files import read_whole, write_atomically

MAGIC = b"SCOPEPAK"
FORMAT = 1
MAX_BYTES = 256 * 1024 * 1024
# Members of lists and maps in all. One takes up to 100 bytes of memory, and an empty map a single byte of a file.
MAX_ITEMS = 2_000_000
_HEAD = struct.Struct("<8sHH")
_BODY = struct.Struct("<Q32s")
_ARRAY = 1
# The types a pack may carry: anything else in a file is damage or an attack, not data.
_DTYPES = ("<f4", "<f8", "<f2", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "|b1")


def write_pack(path: Path, kind: str, body: Mapping[str, Any], *, private: bool = False) -> None:
    """Write `body` (plain types and numpy arrays) to `path` atomically. private: only the user may read it. Raises AssetError."""
    write_atomically(path, pack(kind, body), private=private)


def pack(kind: str, body: Mapping[str, Any]) -> bytes:
    """Return the bytes of a pack, as `write_pack` writes them."""
    raw: bytes = msgpack.packb(dict(body), default=_encode_array, use_bin_type=True)
    name = kind.encode("ascii")
    return _HEAD.pack(MAGIC, FORMAT, len(name)) + name + _BODY.pack(len(raw), hashlib.sha256(raw).digest()) + raw


def read_pack(path: Path, kind: str, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read and check a pack of `kind`; arrays come back as read-only numpy views. Raises PackError."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise PackError(f"{path}: {size} bytes, more than the {max_bytes} a {kind} pack may have; get a fresh copy")
        blob = read_whole(path, max_bytes)
    except OSError as error:
        raise PackError(
            f"{path}: cannot be read ({error.strerror or error}); reinstall it or give another path"
        ) from error
    return unpack(blob, kind, str(path))


def unpack(blob: bytes, kind: str, where: str, *, verified: bool = False) -> dict[str, Any]:
    """Check and decode the bytes of a pack of `kind`; `where` is named in errors. Raises PackError.

    verified: a hash of the whole file was checked already, as `assets.read` does, so the body's is not.
    """
    if len(blob) < _HEAD.size or blob[:8] != MAGIC:
        raise PackError(
            f"{where}: not a scope-edge pack (expected it to begin with {MAGIC!r}, found {blob[:8]!r}); give a {kind} pack"
        )
    _, version, name_length = _HEAD.unpack_from(blob)
    if version != FORMAT:
        raise PackError(
            f"{where}: pack format {version}, this release reads {FORMAT}; update scope-edge or rebuild the pack"
        )
    start = _HEAD.size + name_length
    found = blob[_HEAD.size : start].decode("ascii", "replace")
    if found != kind:
        raise PackError(f"{where}: a {found!r} pack where a {kind!r} pack was expected; give the right file")
    if len(blob) < start + _BODY.size:
        raise PackError(f"{where}: truncated inside its header ({len(blob)} bytes); get a fresh copy")
    length, expected = _BODY.unpack_from(blob, start)
    raw = memoryview(blob)[start + _BODY.size :]
    if len(raw) != length:
        raise PackError(f"{where}: {len(raw)} bytes of body where its header says {length}; get a fresh copy")
    digest = expected if verified else hashlib.sha256(raw).digest()
    if digest != expected:
        raise PackError(
            f"{where}: damaged (expected sha256 {expected.hex()[:12]}…, found {digest.hex()[:12]}…); get a fresh copy"
        )
    try:
        body = _decoded(raw)
    except (ValueError, TypeError, struct.error, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise PackError(f"{where}: its body does not decode ({error}); get a fresh copy") from error
    if not isinstance(body, dict):
        raise PackError(f"{where}: its body is a {type(body).__name__} where a map was expected; get a fresh copy")
    return body


@contextmanager
def reading(where: str, what: str, mend: str = "reinstall scope-edge") -> Iterator[None]:
    """Raise PackError, in one line naming the file, for whatever goes wrong while a body is taken apart in the block.

    what: the contents, in words. mend: what the user can do about it.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = error if isinstance(error, ValueError) else repr(error)
        raise PackError(f"{where}: not a usable {what} ({reason}); {mend}") from error


def _decoded(raw: memoryview) -> Any:
    """Decode a body. Raises ValueError, before memory is filled, if it has more than `MAX_ITEMS`; TypeError, UnpackException."""
    left = MAX_ITEMS

    def counted(items: Any) -> Any:
        nonlocal left
        left -= len(items)
        if left < 0:
            raise ValueError(f"more than {MAX_ITEMS} entries")
        return items

    return msgpack.unpackb(
        raw,
        ext_hook=_decode_array,
        list_hook=counted,
        object_hook=counted,
        max_array_len=MAX_ITEMS,
        max_map_len=MAX_ITEMS,
        raw=False,
        strict_map_key=True,
    )


def _encode_array(value: Any) -> msgpack.ExtType:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"a pack holds plain types and arrays, not {type(value).__name__}")
    little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
    if little.dtype.str not in _DTYPES:
        raise TypeError(f"a pack does not hold arrays of {value.dtype}")
    head = msgpack.packb((little.dtype.str, list(value.shape)))
    return msgpack.ExtType(_ARRAY, struct.pack("<H", len(head)) + head + little.tobytes())


def _decode_array(code: int, data: bytes) -> np.ndarray[Any, Any]:
    if code != _ARRAY or len(data) < 2:
        raise ValueError(f"unknown extension type {code}")
    (length,) = struct.unpack_from("<H", data)
    dtype, shape = msgpack.unpackb(data[2 : 2 + length])
    if dtype not in _DTYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"array of unknown type {dtype!r} or shape {shape!r}")
    return np.frombuffer(data, dtype=dtype, offset=2 + length).reshape(shape)
