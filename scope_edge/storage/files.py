"""Atomic writes, file hashes and stamps, and free space."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scope_edge.errors import AssetError

_BLOCK = 4 * 1024 * 1024
# Left free on the disk: a disk filled to the last byte troubles every other program.
_SPARE = 64 * 2**20


def expand_user(path: str | Path) -> Path:
    """Return a path with the home directory for a leading ~; unchanged where that is unknown, unlike `Path.expanduser`."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def read_whole(path: Path, most: int) -> bytes:
    """Return a file's content. Raises OSError: unreadable, not a regular file (a device never ends), over `most` bytes."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a folder has its own error
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        # No more than the file has: a buffer of the size that is asked for is made at once.
        raw = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    if len(raw) > most:
        raise OSError(errno.EFBIG, f"more than {most} bytes", str(path))
    return raw


def write_atomically(path: Path, blob: bytes, *, private: bool = False) -> None:
    """Replace `path` by `blob` in one step: see `whole_file`. Raises AssetError."""
    with whole_file(path, private=private) as temporary:
        temporary.write_bytes(blob)


@contextlib.contextmanager
def whole_file(target: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield an empty temporary file beside `target`; it replaces `target` when the block succeeds, else it is removed.

    No reader ever sees half a file, not even after a crash. private: only the user may read it, from the first byte on.
    Raises AssetError when it cannot be written (an OSError from the block included).
    """
    import tempfile  # only for writing: routing reads

    if target.exists() and not target.is_file():
        raise AssetError(f"{target}: cannot be written (not a regular file); give another path")
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)  # mode 0600
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if not private:
            mask = os.umask(0o022)  # it can only be read by setting it
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
        temporary.replace(target)
    except OSError as error:
        raise AssetError(
            f"{target}: cannot be written ({error.strerror or error}); check the folder's permissions and space"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(target: Path, patience: float = 10.0) -> Iterator[None]:
    """Keep other processes and threads that use this out of the block, by a lock file beside `target`, which stays there.

    Raises AssetError: the lock file cannot be made, or is held by another process for `patience` seconds.
    """
    path = target.with_name(f".{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise AssetError(
            f"{target}: cannot be written ({error.strerror or error}); check the folder's permissions and space"
        ) from error
    with file:
        end = time.monotonic() + patience
        while not _try_lock(file.fileno()):
            if time.monotonic() > end:
                raise AssetError(f"{target}: another process has been changing it for {patience:g} seconds; try again")
            time.sleep(0.01)
        yield


def _try_lock(handle: int) -> bool:
    """Lock a file until its handle is closed; False = it is locked."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        # Some network folders know no locks: better an edit that may be lost than none.
    return True


def file_sha256(path: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """Return the sha256 of a file of any size, hex: see `file_digest`."""
    return file_digest(path, hashlib.sha256(), progress)


def file_digest(path: Path, digest: Any, progress: Callable[[int, int], None] | None = None) -> str:
    """Feed a file of any size to a hash of hashlib's; return it in hex. Raises OSError.

    progress: called with (bytes read, total bytes).
    """
    done, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(done, size)
    return str(digest.hexdigest())


def file_stamp(path: Path) -> dict[str, int]:
    """Return what changes when a file does. Raises OSError."""
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino}


def check_space(folder: Path, size: int, what: str) -> None:
    """Raise AssetError, beginning with `what`, when the disk of a folder (existing or not) has no room for `size` bytes."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    if free < size + _SPARE:
        raise AssetError(
            f"{what}: needs {in_words(size)}, the disk of {there} has {in_words(free)} free; make room, or point"
            " SCOPE_EDGE_CACHE_DIR and SCOPE_EDGE_DATA_DIR at another disk"
        )


def in_words(size: int) -> str:
    """Return bytes in words: "2.5 GB", "12 MB" (thousands, as disks are sold)."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
