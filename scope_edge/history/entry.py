"""An entry of the journal, and its row in the database."""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

from scope_edge.history.serialization import decision_text, read_decision, read_run, run_text
from scope_edge.types import Decision, Ending, Query, Run, run_body

if TYPE_CHECKING:
    from scope_edge.settings.schema import JournalChoice, KeepEmbedding
    from scope_edge.types import EncodedQuery

    State = Ending | Literal["routed", "no choice"]

# Easy to read out and to type (Crockford's base 32); o, i and l are read as the digits they look like.
_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
_LOOKALIKES = str.maketrans("oil", "011")
_ID_LENGTH = 6
# The latest entries, whose embeddings are kept by default.
RECENT = 20

# Format 2. A released step never changes: see storage/sqlite.py.
STEPS = (
    (
        """CREATE TABLE entries (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            time REAL NOT NULL,
            query BLOB NOT NULL,
            state TEXT NOT NULL,
            model TEXT,
            pool TEXT NOT NULL,
            profile TEXT,
            value_of_time REAL NOT NULL,
            decision TEXT NOT NULL,
            run TEXT,
            text BLOB,
            vector BLOB,
            inner_state BLOB,
            features BLOB,
            correct REAL,
            tokens REAL
        )""",
        "CREATE INDEX entries_by_time ON entries (time)",
        "CREATE INDEX entries_by_query ON entries (query)",
        "CREATE INDEX entries_by_model ON entries (model, number)",
    ),
    ("ALTER TABLE entries ADD COLUMN multilingual BLOB",),
)
COLUMNS = "id, time, query, state, model, pool, profile, value_of_time, decision, run, text, vector IS NOT NULL, correct, tokens"


@dataclass(frozen=True, slots=True)
class JournalOptions:
    """What the journal records of a decision, and for how long.

    Attributes:
        choice: no decision, those that are run, or all. text: with the query's text.
        embedding: with the query's embedding; "recent": only the latest entries keep theirs, for feedback.
        days, mb: older entries are deleted, and the oldest beyond that size.
        pool, profile, value_of_time: in force, recorded with each entry.
    """

    choice: JournalChoice = "run"
    text: bool = False
    embedding: KeepEmbedding = "recent"
    days: int = 90
    mb: int = 200
    pool: str = "default"
    profile: str | None = None
    value_of_time: float = 0.0


@dataclass(frozen=True, slots=True)
class Feedback:
    """The user's judgement of an answer. correct in [0, 1]; tokens: own tokens, None = not given."""

    correct: float
    tokens: float | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision, and its run if there was one.

    Attributes:
        time: when it was recorded, UTC. query: keyed hash of its text, hex: equal for equal texts.
        state: the run's ending; routed: chosen and not run; no choice: no model kept to the limits.
        model: the one that answered; else the choice. pool, profile: in force then.
        text: of the query; None = not kept. embedded: whether its embedding is kept.
    """

    id: str
    time: datetime
    query: str
    state: State
    model: str | None
    pool: str
    profile: str | None
    value_of_time: float
    decision: Decision
    run: Run | None
    text: str | None
    embedded: bool
    feedback: Feedback | None

    def as_dict(self) -> dict[str, Any]:
        """Return the documented JSON object of an entry (docs/json.md)."""
        return {
            "id": self.id,
            "time": self.time.isoformat(timespec="seconds"),
            "query": self.query,
            "state": self.state,
            "model": self.model,
            "pool": self.pool,
            "profile": self.profile,
            "text": self.text,
            "embedded": self.embedded,
            "feedback": None if self.feedback is None else asdict(self.feedback),
            "run": None if self.run is None else run_body(self.run),
            "decision": self.decision.as_dict(),
        }


def new_id() -> str:
    """Return a random id, one of a billion."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_ID_LENGTH))


def typed_id(text: str) -> str:
    """Normalize an id, or the beginning of one, as a user typed it."""
    return text.strip().lower().translate(_LOOKALIKES)


def row_of(query: Query, decision: Decision, run: Run | None, options: JournalOptions) -> dict[str, Any]:
    """Return the columns of a new entry, without its id, the query's hash and its embedding."""
    kept = options.text
    return {
        "time": time.time(),
        "state": run.ending if run is not None else "no choice" if decision.choice is None else "routed",
        "model": (run and run.model) or decision.choice,
        "pool": options.pool,
        "profile": options.profile,
        "value_of_time": options.value_of_time,
        "decision": decision_text(decision, with_text=kept, with_embedding=options.embedding is True),
        "run": None if run is None else run_text(run, query.text, with_text=kept),
        "text": query.text.encode("utf-8", "surrogatepass") if kept else None,
    }


def embedding_columns(encoded: EncodedQuery) -> dict[str, bytes]:
    """Return the columns of a query's vectors and of the features of its text that the map reads."""
    import numpy as np

    from scope_edge.estimation.difficulty import text_features

    return {
        "vector": np.asarray(encoded.vector, "<f4").tobytes(),
        "inner_state": np.asarray(encoded.state, "<f4").tobytes(),
        "multilingual": np.asarray(encoded.multilingual, "<f4").tobytes(),
        "features": np.asarray(text_features(encoded.query.text), "<f4").tobytes(),
    }


def entry_of(row: tuple[Any, ...], file: str) -> Entry:
    """Read an entry from a row of `COLUMNS`. Raises AssetError when it cannot be read."""
    id, written, query, state, model, pool, profile, worth, decision, run, text, embedded, correct, tokens = row
    where = f"{file}: entry {id}"
    return Entry(
        id=id,
        time=datetime.fromtimestamp(written, timezone.utc),
        query=query.hex(),
        state=state,
        model=model,
        pool=pool,
        profile=profile,
        value_of_time=worth,
        decision=read_decision(decision, where),
        run=read_run(run, where),
        text=None if text is None else text.decode("utf-8", "surrogatepass"),
        embedded=bool(embedded),
        feedback=None if correct is None else Feedback(correct, tokens),
    )
