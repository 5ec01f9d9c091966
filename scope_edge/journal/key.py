"""The keyed hash of a query: who has the key knows a query again; who has not cannot even confirm a guess by it."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from scope_edge.errors import AssetError

_BYTES = 32


def keyed_hash(text: str, key: bytes) -> bytes:
    """HMAC-SHA-256 of a text, however its words are spaced: quoting in a shell changes no more than that."""
    return hmac.new(key, " ".join(text.split()).encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def read_key(path: Path) -> bytes | None:
    """The key; None = there is none yet. Raises AssetError."""
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    if len(found) != _BYTES:
        raise AssetError(
            f"{path}: damaged ({len(found)} bytes, not {_BYTES}); `scope-edge log purge` begins the journal anew"
        )
    return found


def make_key(path: Path) -> bytes:
    """A new key, in a file for its owner alone; the caller sees to it that nobody else makes one meanwhile. Raises AssetError."""
    key = secrets.token_bytes(_BYTES)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # for its owner alone
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(key)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
    except OSError as error:
        raise AssetError(
            f"{path}: cannot be written ({error.strerror or error}); check permissions and space"
        ) from error
    return key
