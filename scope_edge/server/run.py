"""A process that serves: bound, noted for the user's commands, and ended so that nobody is left with half an answer unsaid."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from scope_edge.chat.endpoints import is_loopback
from scope_edge.contact.token import make_token
from scope_edge.errors import UsageError
from scope_edge.server.app import make_app
from scope_edge.server.desk import Desk
from scope_edge.server.doors import IDLE_SECONDS, Guest
from scope_edge.server.guard import HEAD_BYTES, Access, allowed_hosts
from scope_edge.server.page import PageApi
from scope_edge.server.service import Bounds, Service
from scope_edge.server.state import ServerState, forget, limits_of, note, settings_hash
from scope_edge.server.thrift import share_pools

if TYPE_CHECKING:
    from scope_edge.config import Settings
    from scope_edge.server.doors import Doors

# After the grace: for cut answers to be said to be, settled and written down.
_LAST_SECONDS, _SETTLE_SECONDS = 5.0, 3.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Options:
    """How to serve.

    Attributes:
        host, port: to listen on; port 0 = any that is free. names: Host headers that are answered beside loopback's.
        auth: whether the token is demanded. grace: seconds that running answers have when the server is to end.
        preload: what decisions take is loaded before it listens, not with the first of them.
    """

    host: str = "127.0.0.1"
    port: int = 8743
    names: tuple[str, ...] = ()
    auth: bool = True
    grace: float = 10.0
    bounds: Bounds = field(default_factory=Bounds)
    preload: bool = False


@dataclass(frozen=True, slots=True)
class Listening:
    """Where it is. code: opens the page once."""

    host: str
    port: int
    code: str

    @property
    def url(self) -> str:
        """The base address, /v1 not included."""
        host = "127.0.0.1" if self.host in _EVERYWHERE else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


Ready = Callable[[Listening], None]


def serve(
    settings: Settings,
    overrides: Mapping[str, Any],
    options: Options,
    ready: Ready,
    until: threading.Event | None = None,
) -> bool:
    """Serve until SIGINT, SIGTERM, or `until`; whether all threads are done at the end.

    overrides: the settings among arguments. ready: told where, once it listens. Raises UsageError (it cannot be bound, it
    would be open to the network), and what loading raises.
    """
    if not options.auth and not is_loopback(options.host):
        raise UsageError(f"--no-auth on {options.host} would let anybody there spend your keys; leave it out")
    share_pools()
    token = make_token()
    desk = Desk(settings, overrides)
    try:
        desk.check()
        if options.preload:
            desk.warm()
        return asyncio.run(_serve(desk, token, options, ready, until))
    finally:
        desk.close()


async def _serve(desk: Desk, token: str, options: Options, ready: Ready, until: threading.Event | None) -> bool:
    service = Service(desk, options.bounds)
    page_api = PageApi(service, token)
    access = Access(token if options.auth else None, allowed_hosts((*options.names, options.host)), _is_public(options))
    server = Server(_config(make_app(service, page_api, access), service.doors, options), service, options, token)
    watch = None if until is None else asyncio.create_task(_watch(until, server))

    def listening(host: str, port: int) -> None:
        ready(Listening(host, port, page_api.codes.make()))

    try:
        return await server.run_until_told(listening)
    finally:
        if watch is not None:
            watch.cancel()


async def _watch(until: threading.Event, server: Server) -> None:
    while not until.is_set():
        await asyncio.sleep(0.1)
    server.should_exit = True


def _is_public(options: Options) -> bool:
    return not is_loopback(options.host)


def _config(app: Any, doors: Doors, options: Options) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        http=cast(Any, partial(Guest, doors)),
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


class Server(uvicorn.Server):
    """Uvicorn's, noted while it runs, and ended in order."""

    def __init__(self, config: uvicorn.Config, service: Service, options: Options, token: str) -> None:
        super().__init__(config)
        self._service, self._options, self._token = service, options, token
        self._state: ServerState | None = None
        self._ready: Callable[[str, int], None] = lambda host, port: None
        self._done = True

    async def run_until_told(self, ready: Callable[[str, int], None]) -> bool:
        """Serve; whether all threads were done at the end."""
        self._ready = ready
        await self.serve()
        return self._done

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and say where. Raises UsageError."""
        log = logging.getLogger("uvicorn.error")
        log.disabled = True
        try:
            await super().startup(sockets)
        except SystemExit as error:
            why = str(getattr(error.__context__, "strerror", "")).rpartition(": ")[2] or "it may be taken"
            raise UsageError(
                f"{self._options.host}, port {self._options.port}, cannot be listened on ({why}); give another --port, or 0"
            ) from error
        finally:
            log.disabled = False
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self._note(str(host), int(port))
        self._ready(self._options.host, int(port))

    async def shutdown(self, sockets: Any = None) -> None:
        """Let nobody else in, give running answers their time, and cut what is left."""
        self._forget()
        self._service.close_doors()
        cutting = asyncio.create_task(self._cut())
        try:
            await super().shutdown(sockets)
        finally:
            cutting.cancel()
            self._done = await self._service.end(_SETTLE_SECONDS)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A signal ends the server and no more: what follows is the command's to say."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self._told) for one in _SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _told(self, number: int, frame: FrameType | None) -> None:
        """The second time, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def _cut(self) -> None:
        until = time.monotonic() + self._options.grace
        while time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.05)
        self._service.cut()
        await asyncio.sleep(_SETTLE_SECONDS)
        self._service.abandon()

    def _note(self, host: str, port: int) -> None:
        """Write the state file, unless the server does not listen on loopback: the user's commands connect to nothing else."""
        if host in _EVERYWHERE:
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"
        if is_loopback(host):
            settings = self._service.desk.settings
            made = settings_hash(settings, self._token)
            self._state = ServerState(host, port, os.getpid(), time.time(), made, limits_of(settings))
            note(self._state)

    def _forget(self) -> None:
        if self._state is not None:
            forget(self._state)
