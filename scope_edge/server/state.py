"""The state files of running servers, one a server, in a folder that only the user can write to.

A command reads from them where a server listens, and whether it would decide as the command itself: the release, cards, pools,
folders, keys, proxies and all settings that a request cannot give must be equal. They are compared by a keyed hash, which
reveals none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from scope_edge._version import __version__
from scope_edge.catalog.endpoint import is_loopback
from scope_edge.server.asgi import unless_disconnected
from scope_edge.server.bridge import PieceSource, ThreadBridge
from scope_edge.server.connections import Connections, connection_limit
from scope_edge.server.metrics import Metrics
from scope_edge.server.queue_limit import RequestQueue
from scope_edge.server.token import folder, is_ours, is_private, keyed, own_folder, write_private
from scope_edge.settings.schema import CHECKS
from scope_edge.storage import assets

if TYPE_CHECKING:
    from starlette.requests import Request

    from scope_edge.server.backend import Backend
    from scope_edge.settings.config import Settings
    from scope_edge.types import Decision, Run

# What all endpoints share: the desk, threads and queues, metrics, and the latest answers.

Result = TypeVar("Result")
_RECENT = 50
# Work that runs no model takes milliseconds; answers, which may take minutes, must not delay it.
_QUICK = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a server.

    Attributes:
        at_once: answers under way. waiting: requests in the queue. body_bytes: of a request.
        connections: open at once; fewer if the system allows the process fewer open files.
    """

    at_once: int = 64
    waiting: int = 256
    body_bytes: int = 32 * 2**20
    connections: int = 512


class Service:
    """Lives in the event loop; its threads do what blocks."""

    def __init__(self, desk: Backend, bounds: Bounds) -> None:
        self.desk, self.bounds, self.metrics = desk, bounds, Metrics()
        self.connections = Connections(connection_limit(bounds.connections, bounds.at_once), self.metrics)
        self.answers, self._quick = RequestQueue(bounds.at_once, bounds.waiting), RequestQueue(_QUICK, bounds.waiting)
        self._threads = ThreadPoolExecutor(bounds.at_once, "answer")
        self._bridges: set[ThreadBridge[Any]] = set()
        self._abandoned: list[asyncio.Future[Any]] = []
        self.recent: deque[Mapping[str, Any]] = deque(maxlen=_RECENT)

    async def quickly(self, request: Request, work: Callable[..., Result], *given: Any) -> Result:
        """Run a function that runs no model, in a thread. Raises Problem, ClientDisconnect and what the function raises."""

        async def in_turn() -> Result:
            async with self._quick.turn():
                return await anyio.to_thread.run_sync(partial(work, *given))

        return await unless_disconnected(request.receive, in_turn())

    @asynccontextmanager
    async def reading(self, source: PieceSource[Result]) -> AsyncIterator[ThreadBridge[Result]]:
        """Hold a turn and a thread that reads the source; at the end, wait until the thread is free. Raises Problem."""
        async with self.answers.turn():
            bridge = ThreadBridge(source, self._threads)
            self._bridges.add(bridge)
            try:
                yield bridge
            finally:
                await bridge.end()
                self._bridges.discard(bridge)

    def close_queues(self) -> None:
        """Refuse all requests that do not have a turn yet."""
        self.answers.close()
        self._quick.close()

    def cut(self) -> None:
        """End the answers under way."""
        for bridge in self._bridges:
            bridge.cut()

    def abandon(self) -> None:
        """Stop waiting for threads that hang."""
        for bridge in self._bridges:
            bridge.abandon()
            self._abandoned.append(bridge.thread)

    async def end(self, seconds: float) -> bool:
        """End everything, waiting at most so many seconds for threads; return whether all are done."""
        self.cut()
        waiting = [bridge.thread for bridge in self._bridges]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)
        self.abandon()
        done = all(one.done() for one in self._abandoned)
        await asyncio.get_running_loop().run_in_executor(None, self.desk.close)
        self._threads.shutdown(wait=False, cancel_futures=True)
        return done

    def ran(self, name: str, decision: Decision, run: Run, id: str | None) -> None:
        """Note an answer, complete or not, to a request for the model `name`."""
        self.metrics.ran(run)
        row = next((one for one in decision.candidates if one.model == run.model), None)
        fields = {name: getattr(run, name) for name in ("model", "where", "usd", "seconds", "ending")}
        p_correct = None if row is None else row.p_correct
        self.recent.appendleft({"time": time.time(), "id": id, "asked": name, "p_correct": p_correct, **fields})

    def gauges(self) -> dict[str, float]:
        """Return present values for the metrics."""
        loaded, sequences = self.desk.loaded()
        return {
            "running": self.answers.running,
            "waiting": self.answers.waiting + self._quick.waiting,
            "connections": len(self.connections),
            "conversations": len(self.desk.conversations),
            "device_models_loaded": len(loaded),
            "device_sequences": sequences,
        }


# Settings that a request gives, and those that are the server's or the command's own business.
REQUEST_SETTINGS = (
    "alpha", "max_tokens", "max_usd", "max_seconds", "local_only", "fallback", "policy", "verify", "top_k", "pool",
)  # fmt: skip
_OWN_SETTINGS = ("profile", "provider", "threads", "keep_alive", "stick", "use_server")
# Settings of the server that a request cannot widen.
_LIMITS = ("max_tokens", "max_usd", "max_seconds", "local_only")
_FILES = "running-*.json"
_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ServerState:
    """A running server. host: a loopback address. started: seconds since 1970. settings: their keyed hash."""

    host: str
    port: int
    pid: int
    started: float
    settings: str
    limits: Mapping[str, Any]


def note(state: ServerState) -> None:
    """Write a server's state file, and delete those of servers that died. Raises AssetError."""
    for path in own_folder().glob(_FILES):
        if _read(path) is None:
            with contextlib.suppress(OSError):
                path.unlink()
    write_private(_file_of(state), json.dumps(asdict(state)) + "\n")


def forget(state: ServerState) -> None:
    """Delete a server's state file."""
    with contextlib.suppress(OSError):
        _file_of(state).unlink()


def find_server() -> ServerState | None:
    """Return the running server that was started last; None = none runs, or others could have written its file."""
    with contextlib.suppress(OSError):
        if is_ours(folder()) and is_private(folder()):
            found = filter(None, map(_read, folder().glob(_FILES)))
            return max(found, key=lambda state: state.started, default=None)
    return None


def limits_of(settings: Settings) -> dict[str, Any]:
    """The limits that no request to a server can widen."""
    return {name: getattr(settings, name) for name in _LIMITS}


def is_compatible(state: ServerState, settings: Settings, token: str) -> bool:
    """Whether the server would decide as a process with these settings, given what a request can say."""
    limits = dict(state.limits)
    if limits.pop("local_only") and not (settings.local_only or settings.offline):
        return False
    wanted = {name: getattr(settings, name) for name in limits}
    if any(limit is not None and (wanted[name] is None or wanted[name] > limit) for name, limit in limits.items()):
        return False
    return state.settings == settings_hash(settings, token)


def settings_hash(settings: Settings, token: str) -> str:
    """Hash all that must be equal, with the token as the key."""
    variables = {str(card["key_env"]) for card in settings.models.values() if "key_env" in card}
    relative = [card["gguf"] for card in settings.models.values() if "gguf" in card and not _is_absolute(card["gguf"])]
    compared = [
        __version__,
        {name: getattr(settings, name) for name in CHECKS if name not in (*REQUEST_SETTINGS, *_OWN_SETTINGS)},
        {id: dict(card) for id, card in settings.models.items()},
        {name: list(ids) for name, ids in settings.pools.items()},
        [str(path.resolve()) for path in (assets.user_data_dir(), assets.user_cache_dir(), assets.bundled_root())],
        str(Path.cwd()) if relative else "",
        {name: os.environ.get(name, "") for name in sorted(variables)},
        {name.lower(): value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
    ]
    return keyed(token, json.dumps(compared, sort_keys=True, default=str))


def _is_absolute(gguf: object) -> bool:
    return Path(str(gguf)).expanduser().is_absolute()


def _file_of(state: ServerState) -> Path:
    return folder() / f"running-{state.pid}.json"


def _read(path: Path) -> ServerState | None:
    """Read a state file; None = it is invalid, others could have written it, or its process is gone."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        if not (is_ours(path) and is_private(path)):
            return None
        with path.open("rb") as file:
            found = ServerState(**json.loads(file.read(_MAX_BYTES)))
        types = (("host", str), ("port", int), ("pid", int), ("started", float), ("settings", str), ("limits", dict))
        valid = all(type(getattr(found, name)) is type_ for name, type_ in types) and set(found.limits) == set(_LIMITS)
        if valid and is_loopback(found.host) and 0 < found.port < 2**16 and _is_alive(found.pid):
            return found
    return None


def _is_alive(pid: int) -> bool:
    """Whether a process runs; where the system cannot tell, the server's proof will."""
    if os.name != "posix":
        return True
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
