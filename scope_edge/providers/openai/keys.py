"""The keys of endpoints, from the environment or the keyring. They are never written anywhere."""

from __future__ import annotations

import contextlib
import os

from scope_edge.catalog.endpoint import Endpoint
from scope_edge.errors import UsageError

# The service name in a keyring; the user name there is the variable.
SERVICE = "scope-edge"
# All providers' keys are longer than this.
_SHORTEST_SECRET = 16
# Azure takes keys in a header of its own. Its older interfaces refuse a key as a bearer's token: there they take signed tokens alone.
_AZURE, _SIGNED = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"), "eyJ"


def find_key(variable: str | None, endpoint: Endpoint) -> str | None:
    """Return the key from the environment, or from the keyring if that library is installed. Raises UsageError: it is missing."""
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


def key_header(key: str, endpoint: Endpoint) -> dict[str, str]:
    """Return the header in which a server reads its key."""
    if endpoint.host.endswith(_AZURE) and not key.startswith(_SIGNED):
        return {"api-key": key}
    return {"authorization": f"Bearer {key}"}


def redact_key(key: str | None) -> str | None:
    """Return the key that has to be removed from its server's texts; None = there is no secret.

    Local servers accept any key, and users write "none" or "ollama": removing such words would damage the text.
    """
    return key if key is not None and len(key) >= _SHORTEST_SECRET else None


def _from_keyring(variable: str) -> str | None:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        return None
    with contextlib.suppress(keyring.errors.KeyringError, RuntimeError, OSError):
        found: str | None = keyring.get_password(SERVICE, variable)
        return (found or "").strip() or None
    return None
