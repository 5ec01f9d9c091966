"""The keys of endpoints: out of the environment, or the keyring. They are never written anywhere."""

from __future__ import annotations

import contextlib
import os

from scope_edge.chat.endpoints import Endpoint
from scope_edge.errors import UsageError

# What keys are filed under in a keyring; the user name there is the variable.
SERVICE = "scope-edge"


def find_key(variable: str | None, endpoint: Endpoint) -> str | None:
    """The key out of the environment, or the keyring where that library is installed. Raises UsageError without one."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip() or _from_keyring(variable)
    if not key:
        raise UsageError(
            f"no key for {endpoint.host}: set the environment variable {variable},"
            f" or `keyring set {SERVICE} {variable}` where keyring is installed"
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UsageError(f"the key in {variable} has characters that no key has; set it again")
    return key


def _from_keyring(variable: str) -> str | None:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        return None
    with contextlib.suppress(keyring.errors.KeyringError):
        found: str | None = keyring.get_password(SERVICE, variable)
        return (found or "").strip() or None
    return None
