"""Signers: public keys as people write them, and the ones whose packs the user takes.

A public key is one word, `ed25519:` and its 32 bytes in base64, short enough for a command line or a mail. The trusted
ones stand in a file of the user's data folder, a name and a key a line. Once there are some, they are asked for.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from scope_edge import assets
from scope_edge.checks import suggestion
from scope_edge.errors import AssetError, UsageError
from scope_edge.packs import write_atomically

PREFIX = "ed25519:"
KEY_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][\w.@+-]{0,63}", re.ASCII)


def key_text(key: bytes) -> str:
    """A public key as one word."""
    return PREFIX + base64.b64encode(key).decode("ascii")


def key_from_text(text: str) -> bytes:
    """The bytes of a public key's word. Raises UsageError."""
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(PREFIX) or len(key) != KEY_BYTES:
        raise UsageError(
            f"{text[:60]!r} is no public key: {PREFIX} and 44 characters, as `scope-edge signer show` prints"
        )
    return key


def signers_file() -> Path:
    """Where the trusted signers stand (may not exist)."""
    return assets.user_data_dir() / "signers.txt"


def trusted_signers() -> dict[bytes, str]:
    """Public key -> name of every trusted signer. Raises AssetError when the file says something else."""
    path = signers_file()
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise AssetError(f"{path}: cannot be read ({error}); mend or remove it") from error
    found: dict[bytes, str] = {}
    for number, line in enumerate(lines, 1):
        name, _, key = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        try:
            found[key_from_text(key.strip())] = check_name(name)
        except UsageError as error:
            raise AssetError(f"{path}, line {number}: {error}; mend or remove it") from error
    return found


def trust(name: str, key: str) -> None:
    """Take packs of this signer from now on. Raises UsageError (no key, no name, one that is taken), AssetError."""
    signers, raw = trusted_signers(), key_from_text(key)
    check_name(name)
    if name in signers.values() and signers.get(raw) != name:
        raise UsageError(f"another key is trusted as {name!r}; `scope-edge signer forget {name}` comes first")
    _write({**signers, raw: name})


def forget(name: str) -> None:
    """Trust a signer no longer. Raises UsageError when there is none of that name, AssetError."""
    signers = trusted_signers()
    if name not in signers.values():
        raise UsageError(f"no trusted signer is called {name!r}{suggestion(name, signers.values())}")
    _write({key: one for key, one in signers.items() if one != name})


def demanded(wanted: Sequence[str], *, anyone: bool) -> frozenset[bytes]:
    """One of these keys must have signed; nobody need have when there is none.

    wanted: names of trusted signers and public keys; none = all trusted ones. anyone: not even those.
    Raises UsageError (unknown name, no key, both wishes at once), AssetError.
    """
    if wanted and anyone:
        raise UsageError("--require-signature-by and --from-anyone contradict each other; leave one out")
    signers = trusted_signers()
    by_name = {name: key for key, name in signers.items()}
    named = [by_name[one] if one in by_name else _key(one, by_name) for one in wanted]
    return frozenset(named or ([] if anyone else signers))


def check_name(name: str) -> str:
    """A signer's name. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:60]!r} is no name for a signer, which is letters, digits and . _ @ + -")
    return name


def _key(text: str, names: Mapping[str, bytes]) -> bytes:
    if text.startswith(PREFIX):
        return key_from_text(text)
    raise UsageError(f"{text[:60]!r} is neither a trusted signer's name nor a public key{suggestion(text, names)}")


def _write(signers: Mapping[bytes, str]) -> None:
    lines = (f"{name} {key_text(key)}\n" for key, name in sorted(signers.items(), key=lambda item: item[1]))
    write_atomically(signers_file(), "".join(lines).encode())
