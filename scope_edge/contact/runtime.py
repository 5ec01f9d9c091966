"""The note of a server that runs: on which loopback address, in a folder of the user's that nobody else can write to."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from scope_edge.chat.endpoints import is_loopback
from scope_edge.contact.token import folder, is_ours, is_private, own_folder, write_private

FILE = "running.json"
_MOST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Running:
    """A server. host: a loopback address. pid: of its process. started: seconds since 1970."""

    host: str
    port: int
    pid: int
    started: float


def note(running: Running) -> None:
    """Write down that it runs; the latest is the one that commands use. Raises AssetError."""
    write_private(own_folder() / FILE, json.dumps(asdict(running)) + "\n")


def forget(running: Running) -> None:
    """Take the note away, unless another server has written its own since."""
    if find() == running:
        with contextlib.suppress(OSError):
            (folder() / FILE).unlink()


def find() -> Running | None:
    """The server that is noted; None: there is none, its process is gone, or the note could be somebody else's."""
    path = folder() / FILE
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        if not (is_ours(path.parent) and is_private(path.parent) and is_ours(path) and is_private(path)):
            return None
        found = Running(**json.loads(_read(path)))
        kinds = (isinstance(found.host, str), type(found.port) is int, type(found.pid) is int)
        if all(kinds) and is_loopback(found.host) and 0 < found.port < 2**16 and _alive(found.pid):
            return found
    return None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES)


def _alive(pid: int) -> bool:
    """Whether there is such a process; where that cannot be asked, its proof will tell."""
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
