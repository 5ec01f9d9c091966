"""Lone surrogates, halves of a character that programs leave when they cut an emoji in two, made valid text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def replace_surrogates(text: str) -> str:
    """Return the text with pairs of surrogates joined to characters, and lone ones replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def replace_surrogates_in_body(value: Any) -> Any:
    """Replace surrogates in every text of a JSON value."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, Mapping):
        return {replace_surrogates_in_body(name): replace_surrogates_in_body(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_surrogates_in_body(one) for one in value]
    return value


def load_json(text: str | bytes) -> Any:
    """Parse JSON, with surrogates replaced: only an escape can hold a lone one. Raises ValueError, RecursionError."""
    value, lower = json.loads(text), text.lower()
    escaped = b"\\ud" in lower if isinstance(lower, bytes) else "\\ud" in lower
    return replace_surrogates_in_body(value) if escaped else value
