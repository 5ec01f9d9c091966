"""The notes of servers that run: on which loopback address, in a folder of the user's that nobody else can write to."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from scope_edge.chat.endpoints import is_loopback
from scope_edge.contact.token import folder, is_ours, is_private, own_folder, write_private

# One a server: two may run, and the end of one must not hide the other.
_NOTES = "running-*.json"
_MOST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Running:
    """A server. host: a loopback address. pid: of its process. started: seconds since 1970."""

    host: str
    port: int
    pid: int
    started: float


def note(running: Running) -> None:
    """Write down that it runs. Notes of servers that went without taking theirs away go. Raises AssetError."""
    place = own_folder()
    for path in place.glob(_NOTES):
        if _found(path) is None:
            with contextlib.suppress(OSError):
                path.unlink()
    write_private(_note_of(running), json.dumps(asdict(running)) + "\n")


def forget(running: Running) -> None:
    """Take its note away."""
    with contextlib.suppress(OSError):
        _note_of(running).unlink()


def find() -> Running | None:
    """The server that was started last, of those that run; None: there is none, or its note could be somebody else's."""
    with contextlib.suppress(OSError):
        if is_ours(folder()) and is_private(folder()):
            notes = filter(None, map(_found, folder().glob(_NOTES)))
            return max(notes, key=lambda running: running.started, default=None)
    return None


def _note_of(running: Running) -> Path:
    return folder() / f"running-{running.pid}.json"


def _found(path: Path) -> Running | None:
    """What a note says; None: it makes no sense, could be somebody else's, or its process is gone."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        if not (is_ours(path) and is_private(path)):
            return None
        found = Running(**json.loads(_read(path)))
        kinds = (
            isinstance(found.host, str),
            type(found.port) is int,
            type(found.pid) is int,
            type(found.started) is float,
        )
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
