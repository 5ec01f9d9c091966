"""Limits for running a chat template, which Jinja's sandbox does not set: time, and memory where the system can limit it (Linux).

A template that holds the interpreter in native code beyond the time stops the worker's beat, and the parent ends the worker.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

# A real template takes milliseconds and a few megabytes.
SECONDS = 5.0
MEMORY_BYTES = 256 * 2**20
# Sent to this process's own main thread. It has no other use while a template runs.
_SIGNAL = signal.SIGABRT


class TooSlowError(BaseException):
    """The time is over. Not an Exception: a template's code may catch those."""


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Run a block, of the main thread, within the limits. Raises TooSlowError or MemoryError in it."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("only the main thread can be interrupted")
    timer = threading.Timer(SECONDS, _thread.interrupt_main, (_SIGNAL,))
    timer.daemon = True
    before = signal.signal(_SIGNAL, _stop)
    timer.start()
    try:
        with _limited_memory():
            yield
    finally:
        timer.cancel()
        timer.join()
        signal.signal(_SIGNAL, before)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise TooSlowError


@contextlib.contextmanager
def _limited_memory() -> Iterator[None]:
    """Let this process take `MEMORY_BYTES` more than it has."""
    if sys.platform != "linux":
        yield
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_BYTES
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if soft == resource.RLIM_INFINITY else min(soft, most), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
