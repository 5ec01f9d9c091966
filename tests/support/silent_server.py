"""Servers that never answer: they take what is sent and see when the other side goes, or do not even take the connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

_WAIT = 30.0
# An answer that has no end, and whose head has none.
_ENDLESS = b"HTTP/1.1 200 OK\r\nx-endless: " + b"." * 10_000


@dataclass
class Silent:
    """Where it is. came, left: released once for each connection that has sent something, and that is gone."""

    port: int
    came: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    left: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def address(self, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/v1"

    def until_came(self) -> None:
        assert self.came.acquire(timeout=_WAIT), "nobody came"

    def until_left(self) -> None:
        assert self.left.acquire(timeout=_WAIT), "the connection is still there"


@contextmanager
def silent(*, dripping: bool = False) -> Iterator[Silent]:
    """One that says nothing. dripping: it sends the head of an answer that never ends, a byte now and then."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as door:
        state = Silent(door.getsockname()[1])

        def drip(one: socket.socket) -> None:
            with contextlib.suppress(OSError):
                for byte in _ENDLESS:
                    if over.wait(0.05):
                        return
                    one.sendall(bytes((byte,)))

        def take(one: socket.socket) -> None:
            with one, contextlib.suppress(OSError):
                one.recv(65536)
                state.came.release()
                if dripping:
                    threading.Thread(target=drip, args=(one,), daemon=True).start()
                while one.recv(65536):
                    pass
            state.left.release()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=take, args=(door.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield state
        finally:
            over.set()
            # Closing alone would not wake who waits in accept.
            with contextlib.suppress(OSError):
                door.shutdown(socket.SHUT_RDWR)


@contextmanager
def deaf() -> Iterator[str | None]:
    """The address of one that does not take connections, so that whoever calls waits for that; None: this system refuses them."""
    with ExitStack() as stack:
        door = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(16):
            one = stack.enter_context(socket.socket())
            one.settimeout(0.3)
            try:
                one.connect(door.getsockname())
            except TimeoutError:
                yield f"http://127.0.0.1:{door.getsockname()[1]}/v1"
                return
            except OSError:
                break
        yield None
