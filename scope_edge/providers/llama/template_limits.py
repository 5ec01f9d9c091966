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


class TooSlowError(BaseException):
    """The time is over. Not an Exception: a template's code may catch those."""


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Run a block, of the main thread, within the limits. Raises TooSlowError or MemoryError in it, ValueError elsewhere."""
    with _limited_memory(), _limited_time():
        yield


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    """Interrupt the main thread when the time is over; the signals have no other use in a worker."""
    if sys.platform == "win32":
        before = signal.signal(signal.SIGBREAK, _stop)
        timer = threading.Timer(SECONDS, _thread.interrupt_main, (signal.SIGBREAK,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            signal.signal(signal.SIGBREAK, before)
    else:
        before = signal.signal(signal.SIGALRM, _stop)
        # The system's own timer: a thread would not run while native code holds the interpreter, as long multiplications do.
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


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
