"""Key files and signatures: the only room that imports cryptography. Without that, importing it raises MissingExtraError.

A private key is a PEM file (PKCS 8, as `openssl genpkey -algorithm ed25519` makes them too) that only its owner may read.
It is never printed. A public key is 32 bytes; signers.py writes it as one word.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from scope_edge.errors import AssetError, MissingExtraError, UsageError

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )
except ImportError as error:
    raise MissingExtraError(f'signatures need cryptography ({error}); pip install "scope-edge[sign]"') from error

# Of a key file: a PEM file of this kind has 119 bytes.
_MAX_FILE = 16_384
_MEND = "`scope-edge signer new FILE` makes one"


def make_key(path: Path) -> bytes:
    """Make a key pair: the private key goes to `path`, a new file of mode 0600; give the public key.

    Raises UsageError (there is such a file: a key that is in use must not be lost), AssetError (it cannot be written).
    """
    key = Ed25519PrivateKey.generate()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise UsageError(f"{path}: there is such a file already, which may be a key; give another name") from error
    except OSError as error:
        raise AssetError(f"{path}: cannot be written ({error.strerror or error}); give another place") from error
    return key.public_key().public_bytes_raw()


def public_key(path: Path) -> bytes:
    """The public key that belongs to a private key file. Raises UsageError."""
    return _private(path).public_key().public_bytes_raw()


def sign(message: bytes, path: Path) -> tuple[bytes, bytes]:
    """(public key, signature) of a message by the private key in a file. Raises UsageError."""
    key = _private(path)
    return key.public_key().public_bytes_raw(), key.sign(message)


def is_signed_by(message: bytes, public: bytes, signature: bytes) -> bool:
    """Whether the signature is that key's on that message."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _private(path: Path) -> Ed25519PrivateKey:
    """Raises UsageError: no such file, one that others can read, or none that holds an ed25519 key. Quotes none of it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            pem = file.read(_MAX_FILE)
    except OSError as error:
        raise UsageError(f"{path}: the private key cannot be read ({error.strerror or error}); {_MEND}") from error
    if os.name != "nt" and mode & 0o077:
        raise UsageError(f"{path}: others can read this private key (mode {mode:o}); `chmod 600` it, or make another")
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise UsageError(f"{path}: this private key has a passphrase, which is not asked for; {_MEND}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path}: not a private key in PEM form; {_MEND}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path}: a private key of another kind than ed25519; {_MEND}")
    return key
