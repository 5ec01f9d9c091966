"""The keys of endpoints: out of the environment, or the keyring. They are never written anywhere."""

from __future__ import annotations

import contextlib
import os

from scope_edge.catalog.endpoint import Endpoint
from scope_edge.errors import UsageError

# What keys are filed under in a keyring; the user name there is the variable.
SERVICE = "scope-edge"
# No maker's keys are as short as this.
_SHORTEST_SECRET = 16


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


def redact_key(key: str | None) -> str | None:
    """The key, where it has to be kept out of what its server says; None: it is no secret.

    Servers on one's own machine take any key, and people write "none" or "ollama": clearing that would spoil what is said.
    """
    return key if key is not None and len(key) >= _SHORTEST_SECRET else None


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
