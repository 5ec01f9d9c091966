"""Slow and idle clients cannot keep others out: connections are limited, make room, and are closed in the end."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from chat_server import Said, faulty, serving
from cli_cases import QUERY
from serve_cases import LARGE, Served, served, settings

pytest.importorskip("httpx")
if any(find_spec(name) is None for name in ("uvicorn", "starlette", "prometheus_client")):
    pytest.skip("the extra `server` is not installed", allow_module_level=True)

import uvicorn

from scope_edge.server import limits
from scope_edge.server.limits import Connections, LimitedProtocol, connection_limit
from scope_edge.server.state import Metrics

TEXT = "There are 25 primes below one hundred."
BODY = {"model": LARGE, "stream": True, "messages": [{"role": "user", "content": QUERY}]}
GET = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"


def idle(server: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def is_closed(one: socket.socket) -> bool:
    try:
        return one.recv(1) == b""
    except ConnectionError:
        return True


def test_idle_connections_make_room_and_take_no_more_files_than_they_may(tmp_path: Path) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        served(tmp_path, "--connections", "16", settings=settings(model, model)) as server,
        ExitStack() as stack,
    ):
        process = psutil.Process(server.process.pid)
        before = process.num_fds() if sys.platform != "win32" else 0
        flood = [stack.enter_context(idle(server)) for _ in range(200)]
        # A head that has begun and does not go on is no better than silence.
        for one in flood[-8:]:
            one.sendall(b"GET / HTTP/1.1\r\n")
        assert server.ask(model=LARGE).text == TEXT
        assert all(is_closed(one) for one in flood[: 200 - 16])
        assert server.metric("connections") <= 16 and server.metric("connections_cut_total") >= 200 - 16
        if sys.platform != "win32":
            # Beside the connections: the event loop of the calls to models (3), one such call, the journal and the ledger.
            assert process.num_fds() <= before + 16 + 12
    assert server.errors.read_text() == ""


def test_when_all_connections_are_busy_the_next_is_told_when_to_come_again(tmp_path: Path) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        faulty(model, ["stalls", "stalls"]) as front,
        served(tmp_path, "--connections", "2", settings=settings(model, front)) as server,
    ):
        working = [server.begin("POST", "/v1/chat/completions", BODY) for _ in range(2)]
        assert all(answer.read1(10) for _, answer in working)
        refused = server.ask("x" * 100_000, model=LARGE)
        assert refused.status == 503 and refused.json["error"]["code"] == "crowded"
        assert refused.json["error"]["type"] == "api_error"
        assert int(refused.headers["retry-after"]) >= 1 and len(front.calls) == 2
        for connection, answer in working:
            answer.close()
            connection.close()
        server.until(lambda: server.call("GET", "/health").status == 200)
        assert server.ask(model=LARGE).text == TEXT


@contextmanager
def small(most: int, app: Any) -> Iterator[int]:
    """The port of a small server with our connections, in this process."""
    kind: Any = partial(LimitedProtocol, Connections(most, Metrics().connections_cut))
    config = uvicorn.Config(app, port=0, http=kind, ws="none", lifespan="off", loop="asyncio", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),), daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        port: int = server.servers[0].sockets[0].getsockname()[1]
        yield port
    finally:
        server.should_exit = True
        thread.join(30)


async def ok(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def test_a_head_that_comes_in_drops_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(limits, "IDLE_SECONDS", 0.0)
    with small(8, ok) as port, socket.create_connection(("127.0.0.1", port), timeout=0.05) as one:
        one.sendall(GET)
        assert one.recv(4096).startswith(b"HTTP/1.1 200")
        with pytest.raises(ConnectionError):
            one.sendall(b"GET / HTTP/1.1\r\n")
            for _ in range(600):
                one.sendall(b"x")
                try:
                    if one.recv(1) == b"":
                        raise ConnectionResetError
                except TimeoutError:
                    pass


def test_a_client_that_does_not_read_is_hung_up_on_and_its_answer_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEND_SECONDS", 0.2)
    ended = threading.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        async def write() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})

        writing = asyncio.ensure_future(write())
        while (await receive())["type"] != "http.disconnect":
            pass
        writing.cancel()
        ended.set()

    with small(8, endless) as port, socket.create_connection(("127.0.0.1", port), timeout=30) as one:
        one.sendall(GET)
        assert ended.wait(30)
        with pytest.raises(ConnectionError):
            while one.recv(65536):
                pass
            raise ConnectionResetError


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_no_more_connections_than_there_may_be_files(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    raised = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    assert connection_limit(512, at_once=64) == 512 and raised[0][0] > 512 and raised[0][1] == 4096, "it is raised"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 512))
    assert 100 < connection_limit(512, at_once=16) < 512, "as far as it may be"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    assert connection_limit(512, at_once=16) == 1
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert connection_limit(512, at_once=16) == 512
