"""The user's SQLite files: private, shared by processes and threads, intact after a crash. Only this file imports sqlite3.

A file is in WAL mode: readers and a writer do not wait for each other, and committed data survives the process, however
it ends. Writers take turns (BEGIN IMMEDIATE); a writer that has waited for `patience` seconds raises an error. A power
failure may lose the last transactions that were not durable; it damages nothing.

Migrations: `steps` are lists of statements; step n turns format n into format n+1, and PRAGMA user_version counts. A released
step never changes; another one follows it. A file of a newer release is left alone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError, DamagedError

if TYPE_CHECKING:
    from typing_extensions import Self

# "SEdg": marks a file as ours.
APPLICATION = 0x53456467
_AT_ONCE = 1 << 24
_BESIDE = ("-wal", "-shm", "-journal")
_SETTINGS = (
    "secure_delete = ON",  # deleted rows are overwritten with zeros
    "temp_store = MEMORY",  # VACUUM would copy the rest into a file elsewhere
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "auto_vacuum = INCREMENTAL",
)
# Connections of a process that forked, or to a file that was replaced: closing them could touch a file in use.
_ABANDONED: list[sqlite3.Connection] = []


class Database:
    """One file, opened on first use. Threads and forked processes may share it.

    mend: how a user can repair an unusable file; it ends the one-line error.
    """

    def __init__(self, path: Path, steps: Sequence[Sequence[str]], mend: str, *, patience: float = 5.0) -> None:
        self.path, self._steps, self._mend, self._patience = path, steps, mend, patience
        self._lock = threading.RLock()
        self._link: sqlite3.Connection | None = None
        self._opened_as: tuple[int, tuple[int, int] | None] = (0, None)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection, for statements that change nothing. Raises AssetError, DamagedError."""
        with self._lock, self._translated():
            yield self._connection()

    @contextlib.contextmanager
    def writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a transaction, committed at the end of the block, or undone if the block raises. Raises as `reading`.

        durable: it is on the disk when this returns, and survives a power failure.
        """
        with self._lock, self._translated():
            link = self._connection()
            link.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            with _transaction(link):
                yield link

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._link is not None and self._opened_as == self._now():
                self._link.close()
            elif self._link is not None:
                _ABANDONED.append(self._link)
            self._link = None

    def wipe(self) -> bool:
        """Erase deleted rows from the file and its log; return False while another process is reading.

        In the file they are zeros already. The log holds earlier copies of pages: it is restarted, overwritten with zeros
        over all its length, and cut off.
        """
        with self._lock, self._translated():
            link = self._connection()
            if not self._overwrite_log(link):
                return False
            link.execute("VACUUM")
            return _checkpoint(link, "TRUNCATE")

    def _overwrite_log(self, link: sqlite3.Connection) -> bool:
        if not _checkpoint(link, "RESTART"):
            return False
        size = Path(f"{self.path}-wal").stat().st_size
        with _transaction(link):
            link.execute("CREATE TABLE zeros (zeros BLOB)")
            for _ in range(0, size, _AT_ONCE):
                link.execute("INSERT INTO zeros VALUES (zeroblob(?))", (min(size, _AT_ONCE),))
        link.execute("DROP TABLE zeros")
        return True

    def destroy(self, *others: Path) -> None:
        """Overwrite and delete the file, all that SQLite keeps beside it, and `others`. Raises AssetError.

        For an unusable file: another process that has it open would go on writing to the deleted file.
        """
        with self._lock, self._translated():
            self.close()
            for path in (*(Path(f"{self.path}{end}") for end in (*_BESIDE, "")), *others):
                shred(path)

    def _connection(self) -> sqlite3.Connection:
        """Return the connection; open another in a forked child and when the file was replaced."""
        if self._link is None or self._opened_as != self._now():
            self.close()
            self._link = self._open()
            self._opened_as = self._now()
        return self._link

    def _now(self) -> tuple[int, tuple[int, int] | None]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return os.getpid(), None
        return os.getpid(), (found.st_dev, found.st_ino)

    def _open(self) -> sqlite3.Connection:
        make_private(self.path.parent)
        until = time.monotonic() + self._patience
        while True:
            link = sqlite3.connect(self.path, timeout=self._patience, isolation_level=None, check_same_thread=False)
            with contextlib.ExitStack() as unless_usable:
                unless_usable.callback(link.close)
                try:
                    self._set_up(link)
                    unless_usable.pop_all()
                    return link
                except sqlite3.OperationalError as error:
                    # Switching to WAL does not wait for others who do the same.
                    if not _is_busy(error) or time.monotonic() > until:
                        raise
            time.sleep(0.01)

    def _set_up(self, link: sqlite3.Connection) -> None:
        link.execute("PRAGMA application_id")  # fails on a file that is no database, before anything is changed
        if sys.platform != "win32":
            self.path.chmod(0o600)  # by its name: opening the file would drop SQLite's locks on it
        for setting in _SETTINGS:
            link.execute(f"PRAGMA {setting}")
        if self._version(link) == len(self._steps):
            return
        link.execute("PRAGMA journal_mode = WAL")
        with _transaction(link):
            for step in self._steps[self._version(link) :]:
                for statement in step:
                    link.execute(statement)
            link.execute(f"PRAGMA application_id = {APPLICATION}")
            link.execute(f"PRAGMA user_version = {len(self._steps)}")

    def _version(self, link: sqlite3.Connection) -> int:
        """Return the file's format. Raises DamagedError: not ours, or newer."""
        ((version,),) = link.execute("PRAGMA user_version")
        ((application,),) = link.execute("PRAGMA application_id")
        ((tables,),) = link.execute("SELECT count(*) FROM sqlite_master")
        if application != APPLICATION and (application or version or tables):
            raise DamagedError(f"{self.path}: not a file of scope-edge's; {self._mend}")
        if version > len(self._steps):
            raise DamagedError(
                f"{self.path}: format {version}, this release knows {len(self._steps)}; update scope-edge, or {self._mend}"
            )
        return int(version)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                raise AssetError(
                    f"{self.path}: other processes have kept it busy for {self._patience:g} s; try again"
                ) from error
            raise AssetError(
                f"{self.path}: cannot be used ({error}); check permissions and space, or {self._mend}"
            ) from error
        except sqlite3.Error as error:
            raise DamagedError(f"{self.path}: damaged ({error}); {self._mend}") from error
        except OSError as error:
            raise AssetError(
                f"{self.path}: cannot be used ({error.strerror or error}); check permissions and space"
            ) from error


class SqliteStore:
    """A context manager over one file. Threads may share one; processes may each have their own.

    The file is opened on first use, so making one cannot fail.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._database.close()


def make_private(folder: Path) -> None:
    """Make a folder that only the user may read. Raises AssetError when it belongs to another user, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform == "win32":
        return
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise AssetError(f"{folder}: belongs to another user; remove it, or point SCOPE_EDGE_DATA_DIR elsewhere")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def shred(path: Path) -> None:
    """Overwrite a file with zeros and delete it, if it exists. Copies that the disk itself keeps are out of reach."""
    try:
        with path.open("r+b") as file:
            left = path.stat().st_size
            while left > 0:
                left -= file.write(bytes(min(left, _AT_ONCE)))
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        return
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _transaction(link: sqlite3.Connection) -> Iterator[None]:
    link.execute("BEGIN IMMEDIATE")
    try:
        yield
        link.execute("COMMIT")
    finally:
        if link.in_transaction:
            link.rollback()


def _checkpoint(link: sqlite3.Connection, mode: str) -> bool:
    """Move the log into the file; return whether all of it was moved."""
    ((busy, _, _),) = link.execute(f"PRAGMA wal_checkpoint({mode})")
    return not busy


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return "locked" in str(error) or "busy" in str(error)
