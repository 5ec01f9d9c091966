"""The server's token and the state files of running servers, in a folder that only the user can write to.

A command reads from a state file where a server listens, and whether it would decide as the command itself: the release, cards,
pools, folders, keys, proxies and all settings that a request cannot give must be equal. They are compared by a keyed hash, which
reveals none of them.

A state file may be stale, and another program may listen on that port by now. So a command sends the token only after the server
has proved that it knows it: it answers a fresh number with an HMAC of that number and of the port it listens on. A program in
between that asked the true server for the proof would get one for another port.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scope_edge._version import __version__
from scope_edge.catalog.endpoint import is_loopback
from scope_edge.errors import AssetError
from scope_edge.settings.schema import CHECKS
from scope_edge.storage import assets
from scope_edge.storage.files import expand_user, write_atomically

if TYPE_CHECKING:
    from scope_edge.settings.config import Settings

_TOKEN_BYTES, _LONGEST_TOKEN = 32, 512
# The headers by which a server proves that it knows the token.
NONCE, PROOF = "x-scope-edge-nonce", "x-scope-edge-proof"
# Settings that a request gives, and those that concern the server or the command alone.
REQUEST_SETTINGS = (
    "alpha", "max_tokens", "max_usd", "max_seconds", "local_only", "fallback", "policy", "verify", "top_k", "pool",
    "max_answer_tokens",
)  # fmt: skip
_OWN_SETTINGS = ("profile", "provider", "threads", "keep_alive", "stick", "use_server")
# Settings of the server that a request cannot widen; those that the server's own fallback lifts.
_LIFTED = ("max_tokens", "max_usd", "max_seconds")
_LIMITS = (*_LIFTED, "max_answer_tokens", "local_only", "fallback")
_STATE_FILES, _MAX_STATE_BYTES = "running-*.json", 4096


def token_path() -> Path:
    """Return the path of the token's file."""
    return _folder() / "token"


def read_token() -> str | None:
    """Return the token; None = it is missing, or others could have read or written it. Raises AssetError."""
    path = token_path()
    try:
        if not (_is_private(path.parent) and _is_private(path)):
            return None
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise AssetError(f"{path}: cannot be read ({error}); remove it, and a server makes another") from error
    return text if 16 <= len(text) <= _LONGEST_TOKEN and text.isprintable() else None


def make_token() -> str:
    """Return the token; make it at first use. Raises AssetError."""
    _make_folder()
    token = read_token()
    if token is None:
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        write_atomically(token_path(), f"{token}\n".encode(), private=True)
    return token


def proof(token: str, nonce: str, port: int) -> str:
    """Return what a server that knows the token and listens on that port answers to a nonce."""
    return _keyed(token, f"proof {port} {nonce}")


def same(one: str, other: str) -> bool:
    """Return whether two secrets are equal, in a time that does not depend on them."""
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server's state file. host: a loopback address. started: seconds since 1970. settings: their keyed hash."""

    host: str
    port: int
    pid: int
    started: float
    settings: str
    limits: Mapping[str, Any]

    @classmethod
    def here(cls, host: str, port: int, started: float, settings: Settings, token: str) -> RunningServer:
        """Describe a server in this process."""
        limits = {name: getattr(settings, name) for name in _LIMITS}
        return cls(host, port, os.getpid(), started, _settings_hash(settings, token), limits)

    def write(self) -> None:
        """Write the state file, and delete those of servers that died. Raises AssetError."""
        for path in _make_folder().glob(_STATE_FILES):
            if _read_state(path) is None:
                with contextlib.suppress(OSError):
                    path.unlink()
        write_atomically(self._path, f"{json.dumps(asdict(self))}\n".encode(), private=True)

    def delete(self) -> None:
        """Delete the state file."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def is_compatible(self, settings: Settings, token: str) -> bool:
        """Return whether the server would decide as a process with these settings, given what a request can say."""
        limits = {name: limit for name, limit in self.limits.items() if limit is not None}
        if limits.pop("local_only") and not (settings.local_only or settings.offline):
            return False
        if limits.pop("fallback") != "cheapest" == settings.fallback and any(name in limits for name in _LIFTED):
            return False
        wanted = {name: getattr(settings, name) for name in limits}
        if any(wanted[name] is None or wanted[name] > limit for name, limit in limits.items()):
            return False
        return self.settings == _settings_hash(settings, token)

    @property
    def _path(self) -> Path:
        return _folder() / f"running-{self.pid}.json"


def find_server() -> RunningServer | None:
    """Return the running server that was started last; None = no server runs, or others could have written its file."""
    with contextlib.suppress(OSError):
        if _is_private(_folder()):
            found = filter(None, map(_read_state, _folder().glob(_STATE_FILES)))
            return max(found, key=lambda server: server.started, default=None)
    return None


def _folder() -> Path:
    return assets.user_data_dir() / "server"


def _make_folder() -> Path:
    """Return the folder, made for its owner alone. Raises AssetError: it cannot be made, or belongs to another user."""
    path = _folder()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        if not _is_ours(path.lstat()):
            raise AssetError(f"{path}: belongs to another user, or is no folder; remove it")
        if os.name == "posix":
            path.chmod(0o700)
    except OSError as error:
        raise AssetError(f"{path}: cannot be made ({error.strerror or error}); check permissions and space") from error
    return path


def _is_ours(found: os.stat_result) -> bool:
    """Return whether a folder or file is this user's, itself and no link to another."""
    return not stat.S_ISLNK(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())


def _is_private(path: Path) -> bool:
    """Return whether a folder or file is this user's, and no other user may read or write it. Raises OSError."""
    found = path.lstat()
    return _is_ours(found) and (os.name != "posix" or not found.st_mode & 0o077)


def _keyed(token: str, text: str) -> str:
    return hmac.new(token.encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _settings_hash(settings: Settings, token: str) -> str:
    """Hash all that must be equal, with the token as the key."""
    cards = settings.models.values()
    variables = {str(card["key_env"]) for card in cards if "key_env" in card}
    relative = any("gguf" in card and not expand_user(str(card["gguf"])).is_absolute() for card in cards)
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
    return _keyed(token, json.dumps(compared, sort_keys=True, default=str))


def _read_state(path: Path) -> RunningServer | None:
    """Read a state file; None = it is invalid, others could have written it, or its process is gone."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        if not _is_private(path):
            return None
        with path.open("rb") as file:
            found = RunningServer(**json.loads(file.read(_MAX_STATE_BYTES)))
        types = (("host", str), ("port", int), ("pid", int), ("started", float), ("settings", str), ("limits", dict))
        valid = all(type(getattr(found, name)) is type_ for name, type_ in types) and set(found.limits) == set(_LIMITS)
        if valid and is_loopback(found.host) and 0 < found.port < 2**16 and _is_alive(found.pid):
            return found
    return None


def _is_alive(pid: int) -> bool:
    """Return whether a process runs; True where the system cannot tell: the server's proof will."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
