"""The journal: entries written, found and purged.

A decision never fails because of the journal: `record` keeps the reason in `problem`, and the caller reports it. All other
methods raise.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from scope_edge.errors import AssetError, DamagedError, UsageError
from scope_edge.history.entry import (
    COLUMNS,
    RECENT,
    STEPS,
    Entry,
    Feedback,
    JournalOptions,
    embedding_columns,
    entry_of,
    new_id,
    row_of,
    typed_id,
)
from scope_edge.settings.schema import is_recorded
from scope_edge.storage import assets
from scope_edge.storage.files import write_atomically
from scope_edge.storage.sqlite import Database, SqliteStore, shred

if TYPE_CHECKING:
    import sqlite3

    from scope_edge.types import Decision, EncodedQuery, Floats, Query, Run, Vector

FOLDER, FILE, KEY = "journal", "journal.sqlite", "journal.key"
_KEY_BYTES = 32
_MEND = "`scope-edge log purge` begins it anew"
# Entries between two checks whether some are too old or too many.
_BETWEEN = 200
_DAY = 86_400
_EVER = 1_000_000  # days
# The share of all entries that is deleted at once when the file is over its limit.
_SHARE = 0.1
LAST = "last"
_EMBEDDING = ("vector", "inner_state", "multilingual", "features")
# Other entries of the same query that are named.
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Purged:
    """ids: of the deleted entries; None = all, of a journal that could not be read.

    wiped: whether the files are free of them; False = another process was reading and must end first.
    """

    ids: tuple[str, ...] | None
    wiped: bool


class Journal(SqliteStore):
    """The user's journal."""

    def __init__(self, options: JournalOptions | None = None) -> None:
        self._folder = assets.user_data_dir() / FOLDER
        super().__init__(Database(self._folder / FILE, STEPS, _MEND))
        self._options = options or JournalOptions()
        self._written = 0
        self.problem: str | None = None
        """Why the last decision could not be recorded, in one line, or None."""

    @property
    def file(self) -> str:
        """The path of the journal's file."""
        return str(self._database.path)

    def record(self, query: Query, decision: Decision, run: Run | None, *, encoded: EncodedQuery | None) -> str:
        """Record a decision and its run (None = not run); return the entry's id, or "" if nothing was recorded.

        encoded: the embedding is kept only with the setting. Never raises AssetError: see `problem`.
        """
        if not is_recorded(self._options.choice, asked=True):
            return ""
        try:
            id = self._record(query, decision, run, encoded)
        except AssetError as error:
            self.problem = f"the journal is not written: {error}"
            return ""
        self.problem = None
        return id

    def entries(
        self,
        limit: int | None = 20,
        before: str | None = None,
        model: str | None = None,
        *,
        text: str | None = None,
        since: datetime | None = None,
    ) -> tuple[Entry, ...]:
        """Return the latest entries, latest first. before: only those before the entry of this id. text: of this very query.

        Raises UsageError (no such entry), AssetError.
        """
        wanted: dict[str, Any] = {}
        if before is not None:
            wanted["number < (SELECT number FROM entries WHERE id = ?)"] = self.entry(before).id
        if model is not None:
            wanted["model = ?"] = model
        if text is not None:
            wanted["query = ?"] = self.hash_of(text) or b""
        if since is not None:
            wanted["time >= ?"] = since.timestamp()
        where = " AND ".join(wanted) or "1"
        most = -1 if limit is None else limit
        rows = self._rows(f"WHERE {where} ORDER BY number DESC LIMIT ?", (*wanted.values(), most))
        return tuple(entry_of(row, self.file) for row in rows)

    def entry(self, id: str) -> Entry:
        """Return an entry by its id, the beginning of it, or "last". Raises UsageError (no or several matches), AssetError."""
        if id == LAST:
            rows = self._rows("ORDER BY number DESC LIMIT 1", ())
        else:
            typed = typed_id(id)
            rows = self._rows("WHERE substr(id, 1, ?) = ? ORDER BY number DESC LIMIT 2", (len(typed), typed))
            rows = [row for row in rows if row[0] == typed] or rows
        if not rows or not id.strip():
            raise UsageError(f"no entry {id!r} in the journal; `scope-edge log` shows them")
        if len(rows) > 1:
            raise UsageError(f"several entries begin with {id!r}; type more of it")
        return entry_of(rows[0], self.file)

    def same_query(self, entry: Entry) -> tuple[str, ...]:
        """Return the ids of other entries of the same query, latest first. Raises AssetError."""
        with self._database.reading() as link:
            rows = link.execute(
                "SELECT id FROM entries WHERE query = ? AND id != ? ORDER BY number DESC LIMIT ?",
                (bytes.fromhex(entry.query), entry.id, _SHOWN),
            ).fetchall()
        return tuple(id for (id,) in rows)

    def embedding(self, id: str) -> tuple[Vector, Vector, Vector, Floats] | None:
        """Return a query's unit vector, state, multilingual vector and the raw features of its text; None unless all are kept.

        A release with one encoder kept no multilingual vector.
        """
        import numpy as np

        with self._database.reading() as link:
            rows = link.execute(f"SELECT {', '.join(_EMBEDDING)} FROM entries WHERE id = ?", (id,)).fetchall()
        if not rows or None in rows[0]:
            return None
        vector, state, multilingual, features = (np.frombuffer(raw, "<f4") for raw in rows[0])
        return vector, state, multilingual, features.astype(np.float64)

    def hash_of(self, text: str) -> bytes | None:
        """Return the keyed hash of a text; None without a key, and so without entries. Raises AssetError."""
        key = self._key()
        return None if key is None else _keyed_hash(text, key)

    @contextlib.contextmanager
    def updating(self, changes: Mapping[str, Feedback | None]) -> Iterator[None]:
        """Write feedback to entries, or delete it, in one transaction with the block: one process at a time.

        An entry that was purged meanwhile is no error: its feedback stays without it.
        """
        with self._database.writing() as link:
            for id, feedback in changes.items():
                values = (None, None) if feedback is None else (feedback.correct, feedback.tokens)
                link.execute("UPDATE entries SET correct = ?, tokens = ? WHERE id = ?", (*values, id))
            yield

    def purge(self, *, older_than: datetime | None = None) -> Purged:
        """Delete the entries before a time, or all of them and the key, leaving no trace in the files.

        A damaged journal can be purged as a whole: its files are overwritten. Raises AssetError.
        """
        if not self._database.path.exists():
            return Purged((), True)
        try:
            with self._database.writing() as link:
                condition, values = ("1", ()) if older_than is None else ("time < ?", (older_than.timestamp(),))
                rows = link.execute(f"SELECT id FROM entries WHERE {condition}", values).fetchall()
                link.execute(f"DELETE FROM entries WHERE {condition}", values)
                if older_than is None:
                    shred(self._folder / KEY)
            return Purged(tuple(id for (id,) in rows), self._database.wipe())
        except DamagedError:
            if older_than is not None:
                raise
        self._database.destroy(self._folder / KEY)
        return Purged(None, True)

    def _record(self, query: Query, decision: Decision, run: Run | None, encoded: EncodedQuery | None) -> str:
        columns = row_of(query, decision, run, self._options)
        if encoded is not None and self._options.embedding:
            columns |= embedding_columns(encoded)
        with self._database.writing() as link:
            # Made inside the transaction: two processes that begin together must share one key.
            key = self._key()
            if key is None:
                key = secrets.token_bytes(_KEY_BYTES)
                write_atomically(self._folder / KEY, key, private=True)
            id = _insert(link, {**columns, "query": _keyed_hash(query.text, key)})
            if self._options.embedding == "recent":
                _forget_embeddings(link)
            if self._written % _BETWEEN == 0:
                self._prune(link)
            self._written += 1
        return id

    def _prune(self, link: sqlite3.Connection) -> None:
        """Delete entries older than the settings allow, and the oldest while the file is too large."""
        days, most = self._options.days, self._options.mb * 1e6
        link.execute("DELETE FROM entries WHERE time < ?", (time.time() - min(days, _EVER) * _DAY,))
        while (count := _one(link, "SELECT count(*) FROM entries")) > 1 and _used(link) > most:
            gone = max(int(count * _SHARE), 1)
            link.execute(
                "DELETE FROM entries WHERE number IN (SELECT number FROM entries ORDER BY number LIMIT ?)", (gone,)
            )
        link.execute("PRAGMA incremental_vacuum").fetchall()

    def _rows(self, rest: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Read rows of `COLUMNS`. A journal without a file is empty: reading makes no file."""
        if not self._database.path.exists():
            return []
        with self._database.reading() as link:
            return link.execute(f"SELECT {COLUMNS} FROM entries {rest}", values).fetchall()

    def _key(self) -> bytes | None:
        """Read the key of the hashes, None before the first entry. Raises AssetError."""
        path = self._folder / KEY
        try:
            found = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AssetError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
        if len(found) != _KEY_BYTES:
            raise AssetError(
                f"{path}: damaged ({len(found)} bytes, not {_KEY_BYTES}); `scope-edge log purge` begins the journal anew"
            )
        return found


def _keyed_hash(text: str, key: bytes) -> bytes:
    # Without the key, not even a guess at the query can be confirmed. Spacing does not count: quoting in a shell changes it.
    return hmac.new(key, " ".join(text.split()).encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def _insert(link: sqlite3.Connection, columns: dict[str, Any]) -> str:
    """Insert a row under a new id; return the id."""
    names = ", ".join(columns)
    places = ", ".join("?" for _ in columns)
    while True:
        id = new_id()
        done = link.execute(
            f"INSERT INTO entries (id, {names}) VALUES (?, {places}) ON CONFLICT (id) DO NOTHING",
            (id, *columns.values()),
        )
        if done.rowcount:
            return id


def _forget_embeddings(link: sqlite3.Connection) -> None:
    """Erase the embeddings of all but the latest entries; those kept before with another setting go a few at a time."""
    link.execute(
        f"UPDATE entries SET {', '.join(f'{name} = NULL' for name in _EMBEDDING)} WHERE vector IS NOT NULL AND number IN"
        f" (SELECT number FROM entries ORDER BY number DESC LIMIT {_BETWEEN} OFFSET {RECENT})"
    )


def _used(link: sqlite3.Connection) -> int:
    """Return the bytes of the file that entries use."""
    pages = _one(link, "PRAGMA page_count") - _one(link, "PRAGMA freelist_count")
    return pages * _one(link, "PRAGMA page_size")


def _one(link: sqlite3.Connection, statement: str) -> int:
    ((value,),) = link.execute(statement)
    return int(value)
