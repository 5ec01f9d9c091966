"""JSON that others wrote is parsed within limits."""

from __future__ import annotations

import pytest

from scope_edge.encoding import unicode
from scope_edge.encoding.unicode import load_json


def test_json_of_too_many_parts_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unicode, "MAX_JSON_PARTS", 10)
    assert load_json(b'[{"a": 1}, {}, "x"]') == load_json('[{"a": 1}, {}, "x"]') == [{"a": 1}, {}, "x"]
    for text in (b"[" + b"[]," * 9 + b"[]]", "[" + "{}," * 9 + "1]"):
        with pytest.raises(ValueError, match="more than 10 parts"):
            load_json(text)
