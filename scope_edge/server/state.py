"""The state files of running servers, one a server, in a folder that only the user can write to.

A command reads from them where a server listens, and whether it would decide as the command itself: the release, cards, pools,
folders, keys, proxies and all settings that a request cannot give must be equal. They are compared by a keyed hash, which
reveals none of them.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scope_edge import __version__, assets
from scope_edge.allowed import CHECKS
from scope_edge.chat.endpoints import is_loopback
from scope_edge.contact.token import folder, is_ours, is_private, keyed, own_folder, write_private

if TYPE_CHECKING:
    from scope_edge.config import Settings

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
