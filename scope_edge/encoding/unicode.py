"""Text that can be sent and written down: half a character, as programs make by cutting an emoji in two, is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def replace_surrogates(text: str) -> str:
    """The text with surrogates joined to characters where they are pairs, and replaced by U+FFFD where they are not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def replace_surrogates_in_body(value: Any) -> Any:
    """The same for every text in a value as JSON has them."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, Mapping):
        return {replace_surrogates_in_body(name): replace_surrogates_in_body(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_surrogates_in_body(one) for one in value]
    return value
