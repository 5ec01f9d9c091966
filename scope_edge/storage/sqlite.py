"""SQLite files of the user's: private to them, shared by processes and threads, whole after a crash. The only room with sqlite3.

A file is in WAL mode: readers and a writer do not wait for each other, and what was committed outlives the process, however
that ends. Writers take turns (BEGIN IMMEDIATE); one that has waited for `patience` seconds gives up with an error. A power
failure may cost the last transactions, unless they were asked to be durable; it damages nothing.

How a file grows with releases: `steps` are lists of statements; step n makes format n+1 of format n, and PRAGMA user_version
counts. A step that was released is never changed, only followed by another. A file of a newer release is left alone.
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

# "SEdg": tells a file of ours from any other program's.
APPLICATION = 0x53456467
_AT_ONCE = 1 << 24
_BESIDE = ("-wal", "-shm", "-journal")
_SETTINGS = (
    "secure_delete = ON",  # what is deleted is overwritten with zeros
    "temp_store = MEMORY",  # VACUUM would copy what is left into a file elsewhere
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "auto_vacuum = INCREMENTAL",
)
# Connections of a process that forked, or to a file that was replaced: closing them could touch what is in use.
_ABANDONED: list[sqlite3.Connection] = []


class Database:
    """One file, opened when it is first used. Threads may share it, and so may what a process forks into.

    mend: what a user can do about a file that cannot be used; it ends the error's one line.
    """

    def __init__(self, path: Path, steps: Sequence[Sequence[str]], mend: str, *, patience: float = 5.0) -> None:
        self.path, self._steps, self._mend, self._patience = path, steps, mend, patience
        self._lock = threading.RLock()
        self._link: sqlite3.Connection | None = None
        self._opened_as: tuple[int, tuple[int, int] | None] = (0, None)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for a statement that changes nothing. Raises AssetError, DamagedError."""
        with self._lock, self._translated():
            yield self._connection()

    @contextlib.contextmanager
    def writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction, committed at the end of the block, or undone if the block raises. Raises as `reading`.

        durable: it is on the disk when this returns, and outlives a power failure.
        """
        with self._lock, self._translated():
            link = self._connection()
            link.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            link.execute("BEGIN IMMEDIATE")
            try:
                yield link
                link.execute("COMMIT")
            finally:
                if link.in_transaction:
                    link.rollback()

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self._lock:
            if self._link is not None and self._opened_as == self._now():
                self._link.close()
            elif self._link is not None:
                _ABANDONED.append(self._link)
            self._link = None

    def wipe(self) -> bool:
        """Leave nothing of what was deleted, neither in the file nor in its log; False while somebody else is reading.

        Deleted rows are zeros already. The log holds pages as they were before: it is begun anew, overwritten with zeros
        over all its length, and cut off.
        """
        with self._lock, self._translated():
            link = self._connection()
            if not self._log_overwritten(link):
                return False
            link.execute("VACUUM")
            return _checkpoint(link, "TRUNCATE")

    def _log_overwritten(self, link: sqlite3.Connection) -> bool:
        """Begin the log anew and write zeros over all of it."""
        if not _checkpoint(link, "RESTART"):
            return False
        log = Path(f"{self.path}-wal")
        link.execute("BEGIN IMMEDIATE")
        try:
            link.execute("CREATE TABLE zeros (zeros BLOB)")
            for _ in range(0, log.stat().st_size, _AT_ONCE):
                link.execute("INSERT INTO zeros VALUES (zeroblob(?))", (min(log.stat().st_size, _AT_ONCE),))
            link.execute("COMMIT")
        finally:
            if link.in_transaction:
                link.rollback()
        link.execute("DROP TABLE zeros")
        return True

    def destroy(self, *others: Path) -> None:
        """Overwrite and delete the file, all that SQLite keeps beside it, and `others`. Raises AssetError.

        For a file that cannot be used: another process that has it open would go on writing to what is gone.
        """
        with self._lock, self._translated():
            self.close()
            for path in (*(Path(f"{self.path}{end}") for end in (*_BESIDE, "")), *others):
                shred(path)

    def _connection(self) -> sqlite3.Connection:
        """The connection: made anew in a forked child, and when the file is another one by now."""
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
        link.execute("PRAGMA application_id")  # fails for what is no database, before anything is changed
        if sys.platform != "win32":
            # By its name: opening the file to do so would drop SQLite's locks on it.
            self.path.chmod(0o600)
        for setting in _SETTINGS:
            link.execute(f"PRAGMA {setting}")
        if self._version(link) == len(self._steps):
            return
        link.execute("PRAGMA journal_mode = WAL")
        link.execute("BEGIN IMMEDIATE")
        try:
            for step in self._steps[self._version(link) :]:
                for statement in step:
                    link.execute(statement)
            link.execute(f"PRAGMA application_id = {APPLICATION}")
            link.execute(f"PRAGMA user_version = {len(self._steps)}")
            link.execute("COMMIT")
        finally:
            if link.in_transaction:
                link.rollback()

    def _version(self, link: sqlite3.Connection) -> int:
        """The format of the file. Raises DamagedError: not ours, or newer."""
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
    """What is kept in one file. Threads may share one; processes may each have their own.

    Nothing is read or made before it is used, so opening one cannot fail. A context manager: its end lets go of the file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        self._database.close()


def make_private(folder: Path) -> None:
    """Make a folder that only the user may look into. Raises AssetError when it is somebody else's, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform == "win32":
        return
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise AssetError(f"{folder}: belongs to another user; remove it, or point SCOPE_EDGE_DATA_DIR elsewhere")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def shred(path: Path) -> None:
    """Overwrite a file with zeros and delete it; none is fine. What a disk keeps behind its own back, nobody can reach."""
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


def _checkpoint(link: sqlite3.Connection, mode: str) -> bool:
    """Move the log into the file; whether all of it could be."""
    ((busy, _, _),) = link.execute(f"PRAGMA wal_checkpoint({mode})")
    return not busy


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return "locked" in str(error) or "busy" in str(error)
