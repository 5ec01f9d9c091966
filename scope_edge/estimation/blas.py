"""One thread for linear algebra, unless the user asks for more: the matrices here are small, and waiting threads spin on a busy machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib import import_module

# Libraries read these when they are loaded.
VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def chosen() -> bool:
    """Return whether the user set one of the variables: then all of them stay as they are."""
    return any(os.environ.get(name) for name in VARIABLES)


def default_to_one() -> None:
    """Set the variables for this process and its children. For programs, before numpy is imported; a library must not."""
    if not chosen():
        os.environ.update(dict.fromkeys(VARIABLES, "1"))


@contextlib.contextmanager
def one_thread(*libraries: str) -> Iterator[None]:
    """Limit linear algebra to one thread in the block. Without threadpoolctl, which scikit-learn brings, nothing changes.

    libraries: modules to import first: one that is loaded later is not limited.
    """
    try:
        for name in libraries:
            import_module(name)
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with contextlib.nullcontext() if chosen() else threadpool_limits(1):
        yield
