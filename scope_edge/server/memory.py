"""Memory returned to the system, with glibc alone: it keeps freed memory, in an arena for each of up to eight threads a core."""

from __future__ import annotations

import contextlib
import sys

_ARENA_MAX = -8


def share_arenas() -> None:
    """Let all threads share two arenas; call it before there are threads."""
    _glibc("mallopt", _ARENA_MAX, 2)


def give_back() -> None:
    """Return free memory; takes milliseconds."""
    _glibc("malloc_trim", 0)


def _glibc(function: str, *numbers: int) -> None:
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(AttributeError, OSError):
            getattr(ctypes.CDLL(None), function)(*numbers)
