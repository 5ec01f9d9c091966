"""The keyed hash of a query: who has the key knows a query again; who has not cannot even confirm a guess by it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from scope_edge.errors import AssetError
from scope_edge.files import write_atomically

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
    """Write a new key, for the user alone; the caller sees to it that no other process makes one meanwhile. Raises AssetError."""
    key = secrets.token_bytes(_BYTES)
    write_atomically(path, key, private=True)
    return key
