"""Lone surrogates, halves of a character that programs leave when they cut an emoji in two, made valid text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# A tokenizer.json of 260,000 tokens has 2.5 million.
MAX_JSON_PARTS = 10_000_000


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


def parse_json(text: str | bytes) -> Any:
    """Parse JSON that others wrote. Raises ValueError: invalid, or of more than `MAX_JSON_PARTS`; RecursionError.

    An empty list takes three bytes of text and 60 of memory.
    """
    marks: Any = (b"[", b"{", b",") if isinstance(text, bytes) else ("[", "{", ",")
    if sum(map(text.count, marks)) > MAX_JSON_PARTS:
        raise ValueError(f"more than {MAX_JSON_PARTS} parts")
    return json.loads(text)


def load_json(text: str | bytes) -> Any:
    """Do as `parse_json`, with surrogates replaced: only an escape can hold a lone one."""
    value, lower = parse_json(text), text.lower()
    escaped = b"\\ud" in lower if isinstance(lower, bytes) else "\\ud" in lower
    return replace_surrogates_in_body(value) if escaped else value
