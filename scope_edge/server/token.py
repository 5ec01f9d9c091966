"""The token that a server demands, in a file for its owner alone, and the proof that one who listens knows it.

A note of a server may be stale, and another program may listen on its port by now. So a command does not send the token before
the other side has shown that it has it: it answers a fresh number with an HMAC of that number and of the port it listens on.
Somebody in between who asked the true server for the proof would get one for another port.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from scope_edge.errors import AssetError
from scope_edge.storage import assets
from scope_edge.storage.files import write_atomically

FOLDER, FILE = "server", "token"
_BYTES = 32
_LONGEST = 512
# The headers by which a server proves that it knows the token.
NONCE, PROOF = "x-scope-edge-nonce", "x-scope-edge-proof"


def folder() -> Path:
    """Where a server's token and note are; it may not exist yet."""
    return assets.user_data_dir() / FOLDER


def token_path() -> Path:
    """Where the token lies."""
    return folder() / FILE


def own_folder() -> Path:
    """The folder, made for its owner alone. Raises AssetError: it cannot be made, or is somebody else's."""
    path = folder()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        if not is_ours(path):
            raise AssetError(f"{path}: belongs to somebody else, or is no folder; remove it")
        if os.name == "posix":
            path.chmod(0o700)
    except OSError as error:
        raise AssetError(f"{path}: cannot be made ({error.strerror or error}); check permissions and space") from error
    return path


def is_ours(path: Path) -> bool:
    """Whether a folder or file is this user's, itself and no link to another. Raises OSError: it is not there."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return False
    return not hasattr(os, "getuid") or found.st_uid == os.getuid()


def is_private(path: Path) -> bool:
    """Whether nobody else may read or write it. Raises OSError."""
    return os.name != "posix" or not path.lstat().st_mode & 0o077


def read_token() -> str | None:
    """The token; None: there is none, or others could have read or written it. Raises AssetError."""
    path = token_path()
    try:
        if not (is_ours(path.parent) and is_private(path.parent) and is_ours(path) and is_private(path)):
            return None
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise AssetError(f"{path}: cannot be read ({error}); remove it, and a server makes another") from error
    return text if 16 <= len(text) <= _LONGEST and text.isprintable() else None


def make_token() -> str:
    """The token, made at first use. Raises AssetError."""
    own_folder()
    found = read_token()
    if found is not None:
        return found
    token = secrets.token_urlsafe(_BYTES)
    write_private(token_path(), token + "\n")
    return token


def write_private(path: Path, text: str) -> None:
    """Write a file for the user alone, whole or not at all. Raises AssetError."""
    write_atomically(path, text.encode("utf-8"), private=True)


def proof(token: str, nonce: str, port: int) -> str:
    """What one who knows the token and listens on that port answers to a nonce."""
    return keyed(token, f"proof {port} {nonce}")


def keyed(token: str, text: str) -> str:
    """A hash of a text that only who knows the token can make, or compare."""
    return hmac.new(token.encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two secrets are equal, told in the same time whatever they are."""
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))
