"""A process that serves: it listens, writes a state file for the user's commands, and shuts down in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from scope_edge.catalog.endpoint import addresses_of, is_loopback
from scope_edge.errors import UsageError
from scope_edge.server.app import make_app
from scope_edge.server.auth import HEAD_BYTES, Access
from scope_edge.server.backend import Backend
from scope_edge.server.limits import IDLE_SECONDS, LimitedProtocol
from scope_edge.server.page import PageApi
from scope_edge.server.pipelines import share_arenas
from scope_edge.server.state import AppState, ServerOptions
from scope_edge.server.token import RunningServer, make_token

if TYPE_CHECKING:
    from scope_edge.settings.config import Settings

# After the grace period: to tell the clients of cut answers, and to settle and write down what they cost.
_LAST_SECONDS, _SETTLE_SECONDS = 5.0, 3.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Listening:
    """The server's address. code: opens the page once."""

    host: str
    port: int
    code: str

    @property
    def url(self) -> str:
        """The base address without /v1."""
        host = "127.0.0.1" if self.host in _EVERYWHERE else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def serve(
    settings: Settings,
    overrides: Mapping[str, Any],
    options: ServerOptions,
    ready: Callable[[Listening], None],
    until: threading.Event | None = None,
) -> bool:
    """Serve until SIGINT, SIGTERM or `until`; return whether all threads are done at the end.

    overrides: settings among the command's arguments. ready: called once the server listens. Raises UsageError (it cannot listen
    there, or would be open to the network), and what loading raises.
    """
    try:
        options.host.encode("idna")
    except UnicodeError as error:
        raise UsageError(f"--host must be an address or a name of this machine, not {options.host[:60]!r}") from error
    if not options.auth and not is_loopback(options.host):
        raise UsageError(f"--no-auth on {options.host} would let any program there spend your keys; leave it out")
    share_arenas()
    token = make_token()
    backend = Backend(settings, overrides)
    try:
        backend.check()
        if options.preload:
            backend.warm()
        return asyncio.run(_serve(backend, token, options, ready, until))
    finally:
        backend.cache.close()


async def _serve(
    backend: Backend,
    token: str,
    options: ServerOptions,
    ready: Callable[[Listening], None],
    until: threading.Event | None,
) -> bool:
    state = AppState(backend, options)
    page_api = PageApi(state, token)
    hosts = tuple(name.strip().lower().rstrip(".") for name in (*options.names, options.host))
    access = Access(token if options.auth else None, hosts, public=not is_loopback(options.host))
    config = uvicorn.Config(
        make_app(state, page_api, access),
        host=addresses_of(options.host)[0],
        port=options.port,
        http=cast(Any, partial(LimitedProtocol, state.connections)),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=int(IDLE_SECONDS),
        timeout_graceful_shutdown=int(options.grace + _LAST_SECONDS),
        backlog=1024,
    )

    def listening(host: str, port: int) -> RunningServer | None:
        record = None
        if is_loopback(host):
            # The user's commands connect to no other.
            record = RunningServer.here(host, port, time.time(), backend.settings, token)
            record.write()
        ready(Listening(options.host, port, page_api.make_code()))
        return record

    server = Server(config, state, options, listening, until)
    await server.serve()
    return server.done


class Server(uvicorn.Server):
    """uvicorn's server with a state file while it runs, and an orderly shutdown. done: whether all threads had ended by then."""

    done = True

    def __init__(
        self,
        config: uvicorn.Config,
        state: AppState,
        options: ServerOptions,
        listening: Callable[[str, int], RunningServer | None],
        until: threading.Event | None,
    ) -> None:
        super().__init__(config)
        self._state, self._options, self._listening, self._until = state, options, listening, until
        self._record: RunningServer | None = None

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and call `listening`. Raises UsageError."""
        log = logging.getLogger("uvicorn.error")
        log.disabled = True
        try:
            await super().startup(sockets)
        except SystemExit as error:
            why = str(getattr(error.__context__, "strerror", "")).rpartition(": ")[2] or "it may be taken"
            raise UsageError(
                f"cannot listen on {self._options.host}, port {self._options.port} ({why}); give another --port, or 0"
            ) from error
        finally:
            log.disabled = False
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self._record = self._listening(_EVERYWHERE.get(str(host), str(host)), int(port))

    async def on_tick(self, counter: int) -> bool:
        """Return whether to shut down; uvicorn asks ten times a second."""
        self.should_exit |= self._until is not None and self._until.is_set()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        """Refuse new requests, give running answers their time, and cut the rest."""
        if self._record is not None:
            self._record.delete()
        self._state.close_queues()
        cutting = asyncio.create_task(self._cut())
        try:
            await super().shutdown(sockets)
        finally:
            cutting.cancel()
            self.done = await self._state.end(_SETTLE_SECONDS)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let a signal end the server alone; uvicorn would raise it again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self._on_signal) for one in _SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Shut down; a second signal cuts running answers at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def _cut(self) -> None:
        until = time.monotonic() + self._options.grace
        while time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.05)
        self._state.cut()
        await asyncio.sleep(_SETTLE_SECONDS)
        self._state.abandon()
