"""No answer may come drop by drop for ever, or fill the memory; an honest slow one may come."""

from __future__ import annotations

import contextlib
import functools
import gzip
import itertools
import json
import math
import resource
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from scope_edge.errors import ProviderError
from scope_edge.providers.openai.client import ChatClient, RetryPolicy
from scope_edge.providers.openai.pace import ANY_PACE, Pace, tokens_in
from scope_edge.providers.openai.stream import Chunk
from scope_edge.types import ModelCard

pytest.importorskip("httpx_sse")

MESSAGES = [{"role": "user", "content": "Hello?"}]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return (
        b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"
    )


@contextlib.contextmanager
def sending(parts: Callable[[], Iterable[bytes]], gap: float = 0.005) -> Iterator[str]:
    """The address of a server that answers every request with these parts, one after the other."""
    over = threading.Event()

    def answer(talk: socket.socket) -> None:
        with talk, contextlib.suppress(OSError):
            asked = b""
            # Bytes that are left unread would reset the connection at its end.
            while b"\r\n\r\n" not in asked or not asked.endswith(b"}"):
                asked += talk.recv(65536)
            for part in parts():
                talk.sendall(part)
                if over.wait(gap):
                    return

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(door.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}/v1"
        finally:
            over.set()
            with contextlib.suppress(OSError):
                door.shutdown(socket.SHUT_RDWR)


def answer(address: str, pace: Pace = ANY_PACE, timeout: float = 60.0) -> str:
    with ChatClient(ModelCard("mine", "device", endpoint=address), RetryPolicy(timeout, 1, pace=pace)) as client:
        return "".join(piece.text for piece in client.stream(MESSAGES, {}, None))


def for_ever(*parts: bytes, first: bytes = HEAD) -> Callable[[], Iterable[bytes]]:
    return lambda: itertools.chain([first] if first else [], itertools.cycle(parts))


TOOL = {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"arguments": ""}}]}


@pytest.mark.parametrize(
    "parts",
    [
        for_ever(b": still here\n\n"),
        for_ever(b"\n"),
        for_ever(b"data: {", b'"choices": ['),
        for_ever(event({"role": "assistant", "content": ""})),
        for_ever(event({"content": None, "reasoning_content": ""})),
        for_ever(event(TOOL)),
        for_ever(b'data: {"choices": []}\n\n'),
        for_ever(b" ", first=HEAD.replace(b"text/event-stream", b"application/json")),
        for_ever(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n", first=b""),
        for_ever(b"x", first=b"HTTP/1.1 200 OK\r\nx-long: "),
    ],
    ids=[
        "comments",
        "lines",
        "half event",
        "empty",
        "empty thought",
        "empty call",
        "no choice",
        "blanks",
        "103",
        "head",
    ],
)
def test_an_answer_without_a_token_is_given_up(parts: Callable[[], Iterable[bytes]]) -> None:
    with sending(parts) as address, pytest.raises(ProviderError, match=r"no token within 0\.3 seconds") as error:
        answer(address, Pace(first=0.3))
    assert not error.value.unbilled and not error.value.retryable


@pytest.mark.parametrize(
    "parts",
    [
        for_ever(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n", first=b""),
        for_ever(b"x", first=b"HTTP/1.1 200 OK\r\nx-long: "),
    ],
    ids=["103", "head"],
)
def test_a_head_that_never_ends_is_silence(parts: Callable[[], Iterable[bytes]]) -> None:
    with sending(parts) as address, pytest.raises(ProviderError, match=r"no answer within 0\.3 seconds"):
        answer(address, timeout=0.3)


def test_a_refusal_that_never_ends_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scope_edge.providers.openai.transport._REFUSAL_SECONDS", 0.3)
    refusal = b'HTTP/1.1 500 Oh\r\ncontent-length: 60000\r\n\r\n{"error": "'
    with sending(for_ever(b"x", first=refusal)) as address, pytest.raises(ProviderError, match="HTTP 500"):
        answer(address)


def test_an_answer_that_only_drips_is_given_up() -> None:
    with (
        sending(for_ever(event({"content": "x"}))) as address,
        pytest.raises(ProviderError, match="less than 100000 tokens"),
    ):
        answer(address, Pace(least=1e5, pause=0.3))


@pytest.mark.parametrize(
    "delta", [{"content": "x"}, {"reasoning_content": "Hm"}, TOOL | {"function_call": {"name": "f"}}]
)
def test_the_first_token_may_be_a_thought_or_a_call(delta: dict[str, Any]) -> None:
    """Its own limit no longer holds from then on; comments may follow."""
    with (
        sending(for_ever(b": thinking\n\n", first=HEAD + event(delta))) as address,
        ChatClient(ModelCard("m", "device", endpoint=address), RetryPolicy(60, 1, pace=Pace(first=60))) as client,
    ):
        stream = client.stream(MESSAGES, {}, None)
        next(iter(stream))
        assert stream._call._token.deadline == math.inf


def test_a_slow_reader_is_not_a_slow_server() -> None:
    def parts() -> Iterator[bytes]:
        yield HEAD + event({"content": "x"}) * 2000 + event({}, "stop") + b"data: [DONE]\n\n"

    with (
        sending(parts) as address,
        ChatClient(ModelCard("m", "device", endpoint=address), RetryPolicy(60, 1, pace=Pace(60, 0.1, 60))) as client,
    ):
        stream = client.stream(MESSAGES, {}, None)
        pieces = iter(stream)
        texts = [next(pieces).text]
        for _ in range(3000):
            if stream._call._token.deadline == math.inf:
                break
            time.sleep(0.01)
        else:
            raise AssertionError("the time runs while the reader is away")
        assert texts + [one.text for one in pieces] == ["x"] * 2000
        assert stream._call._token.deadline < math.inf


def test_each_token_buys_time_and_a_pause_uses_it() -> None:
    pace = Pace(first=600, least=0.05, pause=120)
    due = pace.due(1000, None, 1)
    assert due == 1120
    # One token each 15 seconds, from a large model on a small machine: for as long as it likes.
    now = 1000.0
    for _ in range(1000):
        now += 15
        assert now < due
        due = pace.due(now, due, 1)
    assert due == now + 120
    # One each 30 seconds: its time runs out, however long it was faster before.
    for _ in range(13):
        now += 30
        due = pace.due(now, due, 1)
    assert due < now
    assert Pace(least=0).due(1000, 1100, 1) == math.inf


def test_thoughts_and_calls_are_tokens_and_labels_are_not() -> None:
    assert [tokens_in(Chunk(text)) for text in ("", "x", "x" * 40)] == [0, 1, 10]
    assert tokens_in(Chunk("", {"reasoning_content": "x" * 8})) == 2
    assert tokens_in(Chunk("", TOOL)) == 0
    assert tokens_in(Chunk("", {"tool_calls": [{"function": {"arguments": '{"a": 1}'}}]})) == 2


@functools.cache
def packed(layers: int, size: int) -> bytes:
    body = zlib.compressobj(9, wbits=31)
    blob = b"".join(body.compress(b"\n" * 2**20) for _ in range(size)) + body.flush()
    for _ in range(layers - 1):
        blob = gzip.compress(blob)
    return blob


def whole(body: bytes, encoding: str) -> Callable[[], Iterable[bytes]]:
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {len(body)}\r\n\r\n"
    return lambda: [head.encode() + body]


@pytest.mark.parametrize(
    ("layers", "encoding", "said"),
    [(1, "gzip", "longer than 16 MiB"), (2, "gzip, gzip", "packed"), (1, "br", "packed"), (2, "gzip", "not an answer")],
)
def test_a_packed_answer_takes_no_more_memory_than_any_other(layers: int, encoding: str, said: str) -> None:
    body = packed(layers, 256)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with sending(whole(body, encoding)) as address, pytest.raises(ProviderError, match=said):
        answer(address)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 * 1024


def test_a_server_is_told_not_to_pack_and_one_layer_is_read_all_the_same() -> None:
    body = event({"content": "fine"}, "stop") + b"data: [DONE]\n\n"
    for encoding, blob in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("identity", body)):
        with sending(whole(blob, encoding)) as address:
            assert answer(address) == "fine"
    with sending(whole(body, "gzip")) as address, pytest.raises(ProviderError, match="damaged"):
        answer(address)


@pytest.mark.parametrize("text", [event({"content": "fine"}, "stop") + b"data: [DONE]\n\n"])
def test_an_answer_may_come_a_byte_at_a_time(text: bytes) -> None:
    with sending(lambda: [HEAD, *(bytes([one]) for one in b"\r\n" + text)], gap=0.0) as address:
        assert answer(address, Pace(60, 0.05, 60)) == "fine"
