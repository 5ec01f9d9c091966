"""A signed pack: a pack of its own kind that holds another one, whole, and a signature on its content.

So a pack is signed byte for byte as it was written, nothing is written anew to be checked, and a reader that knows nothing
of signatures refuses it by its kind. What is signed is the sha256 of the inner pack behind a line that no other use of the
key has, so that no signature made for anything else fits here.
"""

from __future__ import annotations

import hashlib

from scope_edge.errors import PackError
from scope_edge.packs import unpack
from scope_edge.signing.signers import KEY_BYTES, key_text

KIND = "signed-pack"
_DOMAIN = b"scope-edge signed pack, version 1\n"
_SIGNATURE_BYTES = 64


def message(pack: bytes) -> bytes:
    """What is signed of a pack."""
    return _DOMAIN + hashlib.sha256(pack).digest()


def signed_body(pack: bytes, key: bytes, signature: bytes) -> dict[str, bytes]:
    """The body of the signed pack."""
    return {"pack": pack, "key": key, "signature": signature}


def open_signed(blob: bytes, where: str) -> tuple[bytes, bytes]:
    """(the pack inside, the public key of who signed it). Raises PackError (damaged, altered), MissingExtraError."""
    body = unpack(blob, KIND, where)
    pack, key, signature = (body.get(name) for name in ("pack", "key", "signature"))
    if not (isinstance(pack, bytes) and isinstance(key, bytes) and isinstance(signature, bytes)):
        raise PackError(f"{where}: a signed pack without pack, key or signature; get a fresh copy")
    for what, found, expected in (("key", key, KEY_BYTES), ("signature", signature, _SIGNATURE_BYTES)):
        if len(found) != expected:
            raise PackError(f"{where}: its {what} has {len(found)} bytes, not {expected}; get a fresh copy")
    from scope_edge.signing.ed25519 import is_signed_by

    if not is_signed_by(message(pack), key, signature):
        raise PackError(
            f"{where}: altered after it was signed (the signature by {key_text(key)} does not fit); get a fresh copy"
        )
    return pack, key
