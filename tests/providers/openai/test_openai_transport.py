"""A call is ended from any thread at any time; connections survive what has come whole; a forked process has its own."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chat_server import Call, Handler, Said, Server, completion, running, serving
from silent_server import deaf, silent

from scope_edge.errors import NoAnswerError, ProviderError
from scope_edge.providers.openai.client import ChatClient, RetryPolicy
from scope_edge.types import ModelCard

pytest.importorskip("httpx_sse")
from scope_edge.providers.openai import transport

TEXT = "one two three four"
MESSAGES = [{"role": "user", "content": "Hello?"}]


class Meter:
    """Allows every call."""

    def begin(self) -> bool:
        return True

    def unbilled(self) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(lambda *_: Said(TEXT, 12, 4)) as made:
        yield made


def client(address: str, timeout: float = 600.0) -> ChatClient:
    return ChatClient(ModelCard("mine", "device", endpoint=address), RetryPolicy(timeout, attempts=1))


def failure(act: Callable[[], Any], end: Callable[[], None]) -> ProviderError | NoAnswerError:
    """What `act` raises, in a thread, once `end` was called."""
    raised: list[ProviderError | NoAnswerError] = []

    def run() -> None:
        with pytest.raises((ProviderError, NoAnswerError)) as error:
            act()
        raised.append(error.value)

    thread = threading.Thread(target=run)
    thread.start()
    end()
    thread.join(30)
    assert not thread.is_alive()
    return raised[0]


def test_a_call_is_ended_while_it_connects() -> None:
    with deaf() as address:
        if address is None:
            pytest.skip("this system refuses connections that are not taken")
        with client(address) as made:
            stream = made.stream(MESSAGES, {}, None)

            def end() -> None:
                time.sleep(0.2)
                stream.close()

            error = failure(lambda: list(stream), end)
    assert isinstance(error, ProviderError) and str(error) == "the call was ended" and error.unbilled


def test_a_call_is_ended_while_the_server_is_silent() -> None:
    with silent() as mute, client(mute.address()) as made:
        stream = made.stream(MESSAGES, {}, None)

        def end() -> None:
            mute.until_came()
            stream.close()

        error = failure(lambda: list(stream), end)
        mute.until_left()
    assert isinstance(error, ProviderError) and not error.unbilled, "what was sent may be billed"


def test_a_call_ended_before_it_begins_is_not_made(server: Server) -> None:
    with client(server.address) as made:
        stream = made.stream(MESSAGES, {}, None)
        stream.close()
        with pytest.raises(ProviderError, match="ended") as error:
            list(stream)
    assert error.value.unbilled and server.calls == []


def test_closing_the_client_ends_its_calls_and_forbids_others() -> None:
    with silent() as mute:
        made = client(mute.address())

        def end() -> None:
            mute.until_came()
            made.close()

        failure(lambda: made.ask("Hello?", 5, Meter()), end)
        mute.until_left()
        with pytest.raises(ProviderError, match="closed"):
            list(made.stream(MESSAGES, {}, None))


def test_an_answer_without_end_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_BYTES", 100)
    with client(server.address) as made:
        with pytest.raises(NoAnswerError, match="longer than"):
            made.ask("Hello?", 5, Meter())
        with pytest.raises(ProviderError, match="longer than"):
            list(made.stream(MESSAGES, {}, None))


def test_a_head_without_end_is_refused() -> None:
    class Endless(Handler):
        """Sends more headers than an answer has."""

        def answer(self, call: Call, raw: bytes) -> None:
            self.send(200, b"{}", **{f"x_{number}": "." * 1000 for number in range(500)})

    with running(Endless) as server, client(server.address) as made:
        stream = made.stream(MESSAGES, {}, None)
        with pytest.raises(ProviderError, match="the connection broke"):
            list(stream)


def test_what_is_missing_after_the_last_words_does_not_spoil_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unending(Handler):
        """Leaves the connection open after the last words, without usage or an end."""

        def answer(self, call: Call, raw: bytes) -> None:
            self.send_answer(call, completion("m", Said(TEXT, 12, 4)), events=7, stalls=True)

    monkeypatch.setattr("scope_edge.providers.openai.stream._USAGE_SECONDS", 0.2)
    with running(Unending) as server, client(server.address) as made:
        stream = made.stream(MESSAGES, {}, None)
        assert "".join(piece.text for piece in stream) == TEXT
    assert (stream.finish, stream.prompt_tokens, stream.completion_tokens) == ("stop", None, None)


def test_threads_share_a_client_and_its_connections() -> None:
    ports: set[Any] = set()

    class Counting(Handler):
        """Notes the connections it is called over."""

        def answer(self, call: Call, raw: bytes) -> None:
            ports.add(self.client_address)
            self.send_answer(call, completion("m", Said(call.prompt, 12, 4)))

    with running(Counting) as server, client(server.address) as made:
        came: list[str] = []

        def ask(name: str) -> None:
            came.extend(made.ask(f"{name}{number}", 5, Meter()).text for number in range(10))

        threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(came) == sorted(f"{name}{number}" for name in "abcd" for number in range(10))
    assert len(ports) <= 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_calls_over_connections_of_its_own(server: Server) -> None:
    with client(server.address) as made:
        assert made.ask("Hello?", 5, Meter()).text == TEXT
        child = os.fork()
        if child == 0:
            said = made.ask("Hello?", 5, Meter()).text
            made.close()
            os._exit(0 if said == TEXT else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert made.ask("Hello?", 5, Meter()).text == TEXT


def test_an_endpoint_where_nothing_listens_is_told_in_the_systems_own_words() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with client(address) as made, pytest.raises(ProviderError) as error:
            list(made.stream(MESSAGES, {}, None))
    assert str(error.value) == f"no connection ({os.strerror(errno.ECONNREFUSED)})"


def test_threads_that_call_first_at_once_share_one_event_loop() -> None:
    # In a process of its own: this one has its loop already.
    script = """
import threading
from scope_edge.providers.openai import transport
start, found = threading.Barrier(8), []
def first():
    start.wait()
    found.append(transport._portal())
threads = [threading.Thread(target=first) for _ in range(8)]
[one.start() for one in threads]
[one.join() for one in threads]
print(len({id(one) for one in found}), sum(one.name == "endpoints" for one in threading.enumerate()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of open files to lower")
def test_without_a_file_descriptor_a_call_fails_at_once_and_the_next_one_works() -> None:
    script = """
import os, resource, sys
from scope_edge.errors import ProviderError
from scope_edge.providers.openai import transport
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
try:
    transport._portal()
except ProviderError as error:
    print(error.unbilled, error.retryable, "Too many open files" in str(error))
[os.close(one) for one in taken]
print(transport._portal() is transport._portal())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True"] * 4


def test_an_event_loop_that_cannot_start_for_any_reason_fails_the_call_and_is_tried_again() -> None:
    script = """
import sys, threading
from scope_edge.errors import ProviderError
from scope_edge.providers.openai import transport
real = transport.anyio.run
def broken(serve):
    raise ZeroDivisionError
threading.excepthook = lambda found: None  # the traceback on standard error
transport.anyio.run = broken
for _ in range(2):
    try:
        transport._portal()
    except ProviderError as error:
        print(error.unbilled, error.retryable)
    transport.anyio.run = real
    sys.modules["anyio._backends._asyncio"] = None
del sys.modules["anyio._backends._asyncio"]
print(transport._portal() is transport._portal())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True"] * 5


def test_an_event_loop_that_starts_too_late_fails_the_call_and_ends() -> None:
    script = """
import threading
from scope_edge.errors import ProviderError
from scope_edge.providers.openai import transport
real, go = transport.anyio.run, threading.Event()
transport.anyio.run = lambda serve: (go.wait(), real(serve))
transport._START_SECONDS = 0.01
try:
    transport._portal()
except ProviderError as error:
    print(error.unbilled, error.retryable)
(late,) = [one for one in threading.enumerate() if one.name == "endpoints"]
go.set()
late.join(30)
transport._START_SECONDS = 20.0
print(not late.is_alive(), transport._portal() is transport._portal())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True"] * 4 and done.stderr == ""


def test_a_slow_reader_slows_the_server_down() -> None:
    sent, over = [0], threading.Event()
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n' % (b"x" * 8192)

    def endless(listener: socket.socket) -> None:
        talk, _ = listener.accept()
        with talk:
            talk.recv(65536)
            talk.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            talk.settimeout(0.5)
            # Until the client has read nothing for half a second: then the buffers of both ends are full.
            with contextlib.suppress(OSError):
                while sent[0] < 5000:
                    talk.sendall(event)
                    sent[0] += 1
            over.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=endless, args=(listener,), daemon=True).start()
        with client(f"http://127.0.0.1:{listener.getsockname()[1]}/v1") as made:
            pieces = iter(made.stream(MESSAGES, {}, None))
            next(pieces)
            assert over.wait(60)
    assert sent[0] < 5000


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that were looked up; a hostile resolver answers with an address elsewhere."""
    names: list[str] = []
    look_up = socket.getaddrinfo

    def hostile(host: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(host, str) and not host.replace(".", "").isdigit() and ":" not in host:
            names.append(host)
            host = "192.0.2.1"
        return look_up(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hostile)
    return names


@pytest.mark.parametrize("host", ["localhost", "models.localhost", "MODELS.LOCALHOST", "localhost."])
def test_a_name_of_this_machine_is_not_resolved(server: Server, host: str, resolved: list[str]) -> None:
    with client(server.address.replace("127.0.0.1", host)) as made:
        assert "".join(piece.text for piece in made.stream(MESSAGES, {}, None)) == TEXT
    assert resolved == [] and len(server.calls) == 1


def test_a_call_that_must_stay_here_sends_nothing_to_another_machine(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "is_loopback", lambda host: host == "localhost")
    there = client(server.address.replace("127.0.0.1", "localhost"))
    with there as made, pytest.raises(ProviderError, match="not this machine") as error:
        list(made.stream(MESSAGES, {}, None))
    assert error.value.unbilled and server.calls == []
