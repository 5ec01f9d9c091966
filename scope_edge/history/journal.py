"""Entries written, found and purged. What goes wrong with the journal never makes a decision fail.

`record` notes why nothing was written (`problem`), and the caller says so; everything else raises, for there somebody asked
for the journal itself.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scope_edge.errors import AssetError, DamagedError, UsageError
from scope_edge.history.entry import (
    COLUMNS,
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
from scope_edge.storage import assets
from scope_edge.storage.files import write_atomically
from scope_edge.storage.sqlite import Database, SqliteStore, shred

if TYPE_CHECKING:
    import sqlite3

    from scope_edge.types import Decision, EncodedQuery, Floats, Query, Run, Vector

# The keyed hash of a query: who has the key knows a query again; who has not cannot even confirm a guess by it.

_BYTES = 32


def keyed_hash(text: str, key: bytes) -> bytes:
    """HMAC-SHA-256 of a text, however its words are spaced: quoting in a shell changes no more than that."""
    return hmac.new(key, " ".join(text.split()).encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def read_key(path: Path) -> bytes | None:
    """The key; None = there is none yet. Raises AssetError."""
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    if len(found) != _BYTES:
        raise AssetError(
            f"{path}: damaged ({len(found)} bytes, not {_BYTES}); `scope-edge log purge` begins the journal anew"
        )
    return found


def make_key(path: Path) -> bytes:
    """Write a new key, for the user alone; the caller sees to it that no other process makes one meanwhile. Raises AssetError."""
    key = secrets.token_bytes(_BYTES)
    write_atomically(path, key, private=True)
    return key


FOLDER, FILE, KEY = "journal", "journal.sqlite", "journal.key"
_MEND = "`scope-edge log purge` begins it anew"
# Entries between two looks at whether some are too old or too many.
_BETWEEN = 200
_DAY = 86_400
_EVER = 1_000_000  # days
# Of all entries, the share that goes at once when the file is over its limit.
_SHARE = 0.1
LAST = "last"
# Other entries of the same query that are named.
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Purged:
    """ids: of the entries that are gone; None = all, of a journal that could not be read.

    wiped: whether nothing of them is left in the files; False = another process was reading, and has to be ended first.
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
        """Why the last decision could not be recorded, in one line; None when it could."""

    @property
    def file(self) -> str:
        """Where it is."""
        return str(self._database.path)

    def record(self, query: Query, decision: Decision, run: Run | None, *, encoded: EncodedQuery | None) -> str:
        """Write down a decision and what became of it; its id, or "" where nothing is written down.

        run: None = nothing was run. encoded: the query's embedding is kept only if the user wants it kept. Never raises for
        anything the journal lacks: see `problem`.
        """
        if self._options.choice == "off":
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
        """The latest entries, latest first. before: an entry's id; those written before it. text: those of this very query.

        Raises UsageError (no such entry), AssetError.
        """
        wanted: list[tuple[str, Any]] = []
        if before is not None:
            wanted.append(("number < (SELECT number FROM entries WHERE id = ?)", self.entry(before).id))
        if model is not None:
            wanted.append(("model = ?", model))
        if text is not None:
            wanted.append(("query = ?", self.hash_of(text) or b""))
        if since is not None:
            wanted.append(("time >= ?", since.timestamp()))
        where = " AND ".join(condition for condition, _ in wanted) or "1"
        rows = self._rows(f"WHERE {where} ORDER BY number DESC LIMIT ?", (*(v for _, v in wanted), _most(limit)))
        return tuple(entry_of(row, self.file) for row in rows)

    def entry(self, id: str) -> Entry:
        """One entry, by its id, the beginning of it, or "last". Raises UsageError (none, or several), AssetError."""
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
        """The ids of other entries of the same query, latest first. Raises AssetError."""
        with self._database.reading() as link:
            rows = link.execute(
                "SELECT id FROM entries WHERE query = ? AND id != ? ORDER BY number DESC LIMIT ?",
                (bytes.fromhex(entry.query), entry.id, _SHOWN),
            ).fetchall()
        return tuple(id for (id,) in rows)

    def embedding(self, id: str) -> tuple[Vector, Vector, Floats] | None:
        """A query's unit vector, state and the raw features of its text, as they were kept; None = they were not."""
        import numpy as np

        with self._database.reading() as link:
            rows = link.execute("SELECT vector, inner_state, features FROM entries WHERE id = ?", (id,)).fetchall()
        if not rows or rows[0][0] is None:
            return None
        vector, state, features = (np.frombuffer(raw, "<f4") for raw in rows[0])
        return vector, state, features.astype(np.float64)

    def hash_of(self, text: str) -> bytes | None:
        """The keyed hash of a text; None while there is no key, so that no entry can be of it. Raises AssetError."""
        key = read_key(self._folder / KEY)
        return None if key is None else keyed_hash(text, key)

    @contextlib.contextmanager
    def telling(self, changes: Mapping[str, Feedback | None]) -> Iterator[None]:
        """Write feedback beside entries, or take it away; the block goes along with it, in one process at a time.

        An entry that was purged in the meantime is no error: what was learned from it stays without it.
        """
        with self._database.writing() as link:
            for id, feedback in changes.items():
                values = (None, None) if feedback is None else (feedback.correct, feedback.tokens)
                link.execute("UPDATE entries SET correct = ?, tokens = ? WHERE id = ?", (*values, id))
            yield

    def purge(self, *, older_than: datetime | None = None) -> Purged:
        """Delete the entries written before a moment, or all of them, and the key with them; nothing of them is left.

        All of a journal that is damaged can be purged, too: its files are overwritten. Raises AssetError.
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
            # Made while nobody else writes: two processes that begin together must have one key.
            key = read_key(self._folder / KEY) or make_key(self._folder / KEY)
            id = _inserted(link, {**columns, "query": keyed_hash(query.text, key)})
            if self._written % _BETWEEN == 0:
                self._prune(link)
            self._written += 1
        return id

    def _prune(self, link: sqlite3.Connection) -> None:
        """Let go of what is older than the settings allow, and of the oldest while there is too much."""
        days, most = self._options.days, self._options.mb * 1e6
        link.execute("DELETE FROM entries WHERE time < ?", (time.time() - min(days, _EVER) * _DAY,))
        while (count := _one(link, "SELECT count(*) FROM entries")) > 1 and _used(link) > most:
            gone = max(int(count * _SHARE), 1)
            link.execute(
                "DELETE FROM entries WHERE number IN (SELECT number FROM entries ORDER BY number LIMIT ?)", (gone,)
            )
        link.execute("PRAGMA incremental_vacuum").fetchall()

    def _rows(self, rest: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Rows of `COLUMNS`. A journal that was never written is empty: looking makes no file."""
        if not self._database.path.exists():
            return []
        with self._database.reading() as link:
            found: list[tuple[Any, ...]] = link.execute(f"SELECT {COLUMNS} FROM entries {rest}", values).fetchall()
        return found


def _inserted(link: sqlite3.Connection, columns: dict[str, Any]) -> str:
    """Write a row under an id that no other has."""
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


def _used(link: sqlite3.Connection) -> int:
    """Bytes that entries take in the file."""
    pages = _one(link, "PRAGMA page_count") - _one(link, "PRAGMA freelist_count")
    return pages * _one(link, "PRAGMA page_size")


def _one(link: sqlite3.Connection, statement: str) -> int:
    ((value,),) = link.execute(statement)
    return int(value)


def _most(limit: int | None) -> int:
    return -1 if limit is None else limit
