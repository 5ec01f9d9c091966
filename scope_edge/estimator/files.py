"""Large files that appear whole or not at all, and the space they need."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scope_edge.errors import AssetError

# Left free on the disk besides the file: a disk filled to the last byte troubles everything else on it.
_SPARE = 64 * 2**20


@contextlib.contextmanager
def whole_file(target: Path, size: int) -> Iterator[Path]:
    """A temporary file beside `target`, put in its place when the block ends well and removed when it does not.

    Args:
        size: bytes it is going to have; checked against the free space first, so that a long job does not end in a full disk.

    Raises:
        AssetError: too little space, or the file cannot be written (an OSError from the block included).
    """
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_space(target, size)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise AssetError(
            f"{target}: cannot be written ({error.strerror or error}); check the folder's permissions and space"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _check_space(target: Path, size: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < size + _SPARE:
        raise AssetError(
            f"{target}: needs {in_words(size)}, its disk has {in_words(free)} free; make room or name another folder"
        )


def in_words(size: int) -> str:
    """Bytes as a person says them: "2.5 GB", "12 MB" (thousands, as disks are sold)."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _umask() -> int:
    """The process's file mode mask; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
