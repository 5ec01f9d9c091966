"""Streamed answers are cut into events strictly, however the network cuts them, and a key is cleared wherever it is cut."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_edge.errors import ProviderError
from scope_edge.providers.openai.stream import SecretRedactor, read_chunk

pytest.importorskip("httpx_sse")
from scope_edge.providers.openai import transport

RAW = "\ufeffdata: one\n\n: comment\r\nevent: x\r\nid: 7\r\ndata: two\r\ndata:three\r\n\r\nretry: 1\n\ndata: grün 🙂\r\rdata: last".encode()


def events(raw: bytes, cuts: list[int]) -> list[str]:
    async def chunks() -> AsyncIterator[bytes]:
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(raw)], strict=True):
            yield raw[start:end]

    async def read() -> list[str]:
        return [event async for event in transport.read_events(chunks())]

    # Nothing in it waits, so it needs no event loop.
    with pytest.raises(StopIteration) as returned:
        read().send(None)
    found: list[str] = returned.value.value
    return found


@given(st.lists(st.integers(0, len(RAW)), max_size=20))
def test_events_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    assert events(RAW, cuts) == ["one", "two\nthree", "grün 🙂"], "what no blank line ends is no event"


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_EVENT_BYTES", 1000)
    for endless in (b"data: " + b"x" * 2000, b"data: x\n" * 2000):
        with pytest.raises(ProviderError, match="event of more than"):
            events(endless, [500, 1000, 1500])
    assert len(events(b"data: x\n\n" * 400, list(range(0, 3600, 500)))) == 400


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ProviderError, match="UTF-8"):
        events(b"data: \xff\n\n", [])


@pytest.mark.parametrize(
    "data",
    [
        "",
        "null",
        "[]",
        "7",
        "{",
        "[" * 99999,
        '{"choices": 7}',
        '{"choices": ["x"]}',
        '{"choices": [{"delta": {"content": 7}}]}',
    ],
)
def test_what_is_no_part_of_an_answer_is_refused(data: str) -> None:
    with pytest.raises(ProviderError):
        read_chunk(data)


def test_what_comes_beside_text_is_passed_on_as_it_is() -> None:
    chunk = read_chunk('{"choices": [{"delta": {"role": "assistant", "tool_calls": [{"index": 0}], "content": null}}]}')
    assert (chunk.text, chunk.extra, chunk.finish) == ("", {"tool_calls": [{"index": 0}]}, None)
    assert read_chunk('{"choices": [], "usage": {"prompt_tokens": 3}}').usage == {"prompt_tokens": 3}
    with pytest.raises(ProviderError, match="busy"):
        read_chunk('{"error": {"message": "busy"}}')
    assert read_chunk('{"choices": [{"delta": {"content": [{"type": "text", "text": "a"}]}}]}').text == "a"


@given(st.text("aks-1 ", max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_a_key_never_comes_through(text: str, cuts: list[int]) -> None:
    key, clearing, at, shown = "sk-1", SecretRedactor("sk-1"), 0, ""
    for cut in [*sorted(cuts), len(text)]:
        shown += clearing.feed(text[at:cut])
        at = max(at, cut)
    shown += clearing.rest()
    assert key not in shown and shown == text.replace(key, "[key]")
