"""Memory returned to the system, with glibc alone.

By default glibc keeps an arena of freed memory for each of up to eight threads a core, and what loading needed for a moment.
"""

from __future__ import annotations

import contextlib
import sys

_ARENA_MAX, _ARENAS = -8, 2


def share_arenas() -> None:
    """Let all threads share two arenas; call it before there are threads."""
    _glibc("mallopt", _ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Return free memory; takes milliseconds."""
    _glibc("malloc_trim", 0)


def _glibc(function: str, *numbers: int) -> None:
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(AttributeError, OSError):
            getattr(ctypes.CDLL(None), function)(*numbers)
