"""Memory that is not used, given back to the system: the C library would keep it for a process that may never want it again.

Of glibc alone; elsewhere nothing is done. Every thread that comes gets a pool of its own there, up to eight a core, and what one
has freed no other can have: a server of many threads would hold ten times what it uses. And loading takes several times what stays.
"""

from __future__ import annotations

import contextlib
import sys

_ARENA_MAX = -8
_POOLS = 2


def share_pools() -> None:
    """Let threads share a few pools of memory. To be called before there are any."""
    _glibc("mallopt", _ARENA_MAX, _POOLS)


def give_back() -> None:
    """Return what is free. Takes milliseconds."""
    _glibc("malloc_trim", 0)


def _glibc(function: str, *numbers: int) -> None:
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(AttributeError, OSError):
            getattr(ctypes.CDLL(None), function)(*numbers)
