"""Whether a server would decide as this process would: the same cards, pools, folders, keys and way out.

What a single call may ask for goes along with the call. All else must be equal, and is compared by a keyed hash: a key that is in
the environment of one and not of the other would make them answer differently, and neither tells the other its keys.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scope_edge import __version__, assets
from scope_edge.allowed import CHECKS
from scope_edge.contact.token import keyed

if TYPE_CHECKING:
    from scope_edge.config import Settings

# What is the server's own: who started it has said how much of the machine it takes. The last is the caller's alone.
_SERVERS = ("provider", "threads", "keep_alive", "use_server")
CARRIED = tuple(key for key in CHECKS if key not in _SERVERS)


def standing(settings: Settings, token: str) -> str:
    """Equal where two processes of the same user would decide and ask alike."""
    variables = {str(card["key_env"]) for card in settings.models.values() if "key_env" in card}
    proxies = {name.lower(): value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    here = [
        __version__,
        {id: dict(card) for id, card in settings.models.items()},
        {name: list(ids) for name, ids in settings.pools.items()},
        [str(path.resolve()) for path in (assets.user_data_dir(), assets.user_cache_dir(), assets.bundled_root())],
        # A gguf may be named by a path from here.
        str(Path.cwd())
        if any("gguf" in card and not _absolute(card["gguf"]) for card in settings.models.values())
        else "",
        {name: os.environ.get(name, "") for name in sorted(variables)},
        proxies,
    ]
    return keyed(token, json.dumps(here, sort_keys=True, default=str))


def carried(settings: Settings) -> dict[str, Any]:
    """The settings that go along with a call."""
    return {key: getattr(settings, key) for key in CARRIED}


def received(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that came with a call, checked. Raises UsageError."""
    return {key: None if values[key] is None else CHECKS[key](key, values[key]) for key in CARRIED if key in values}


def _absolute(gguf: object) -> bool:
    return Path(str(gguf)).expanduser().is_absolute()
