"""Feedback on entries of the journal: a judged answer becomes an anchor of the user's, until the feedback is undone."""

from __future__ import annotations

import hmac
import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError, UsageError
from scope_edge.estimation.feedback_store import FeedbackRecord, load_feedback, record
from scope_edge.estimation.fingerprints import fingerprint_names
from scope_edge.history.entry import RECENT, Feedback, typed_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from scope_edge.catalog.cards import Catalog
    from scope_edge.history import Entry, Journal
    from scope_edge.types import Floats, Vector


@dataclass(frozen=True, slots=True)
class Given:
    """Feedback that was recorded or undone.

    tokens: own tokens, None = unknown. total: answers judged so far. before: the replaced judgement, None at first.
    known: whether the model has a fingerprint; without one, no estimate can be corrected yet.
    """

    id: str
    model: str
    correct: float
    tokens: float | None
    total: int
    before: float | None
    known: bool = True


@dataclass(frozen=True, slots=True)
class Forgotten:
    """entries: how many were deleted; None = all, of an unreadable journal. anchors: deleted anchors made of feedback.

    wiped: whether the files are free of the entries.
    """

    entries: int | None
    anchors: int
    wiped: bool


def give(
    journal: Journal,
    catalog: Catalog,
    id: str,
    correct: float,
    *,
    tokens: float | None = None,
    text: str | None = None,
) -> Given:
    """Judge an entry's answer, replacing an earlier judgement.

    tokens: own tokens of the answer; None = the journal's number, if the answer was complete. text: the query's, needed if
    the journal kept neither text nor embedding. Raises UsageError (no such entry, no answer, missing or wrong text),
    AssetError.
    """
    entry = journal.entry(id)
    model = _judged(entry)
    if tokens is None and entry.run is not None and entry.run.ending == "complete":
        tokens = entry.run.completion_tokens
    vector, state, multilingual, features = _embedding(journal, entry, text)
    card = catalog.by_id.get(model)
    factor = 1.0 if card is None else card.token_factor
    one = FeedbackRecord(
        id=entry.id,
        model=model,
        time=entry.time.timestamp(),
        vector=vector,
        state=state,
        multilingual=multilingual,
        features=features,
        correct=correct,
        tokens=math.nan if tokens is None else tokens / factor,
        prompt_tokens=_prompt_tokens(entry, model) / factor,
    )
    with journal.updating({entry.id: Feedback(correct, tokens)}):
        kept = _usable()
        before = next((other.correct for other in kept if other.id == one.id), None)
        records = [*(other for other in kept if other.id != one.id), one]
        record(records)
    return Given(entry.id, model, correct, tokens, len(records), before, model in fingerprint_names())


def undo(journal: Journal, id: str) -> Given:
    """Undo the feedback on an entry, whether or not the journal still has it. Raises UsageError, AssetError."""
    known = next((one.id for one in _usable() if one.id == typed_id(id)), None) or journal.entry(id).id
    with journal.updating({known: None}):
        kept = _usable()
        undone = next((one for one in kept if one.id == known), None)
        if undone is None:
            raise UsageError(f"{known} has no feedback to undo")
        record([one for one in kept if one.id != known])
    return Given(known, undone.model, undone.correct, None, len(kept) - 1, undone.correct)


def forget_feedback(
    journal: Journal, chosen: Callable[[FeedbackRecord], bool] | None = None
) -> tuple[FeedbackRecord, ...]:
    """Delete the chosen feedback, or all of it, an unusable file included. Raises AssetError."""
    held = load_feedback()
    gone = tuple(one for one in held.said if chosen is None or chosen(one))
    if gone or (chosen is None and held.ignored is not None):
        with journal.updating(dict.fromkeys((one.id for one in gone), None)):
            record([] if chosen is None else [one for one in load_feedback().said if not chosen(one)])
    return gone


def purge(journal: Journal, *, older_than: datetime | None = None, keep_feedback: bool = False) -> Forgotten:
    """Delete entries of the journal, all or older ones, and their feedback. Raises AssetError."""
    purged = journal.purge(older_than=older_than)
    limit = math.inf if older_than is None else older_than.timestamp()
    chosen = None if older_than is None else lambda one: one.time < limit
    gone = () if keep_feedback else forget_feedback(journal, chosen)
    return Forgotten(None if purged.ids is None else len(purged.ids), len(gone), purged.wiped)


def _judged(entry: Entry) -> str:
    """Return the model whose answer is judged. Raises UsageError when it is missing."""
    if entry.run is not None and entry.run.model is None:
        raise UsageError(f"no model answered {entry.id}, so there is nothing to judge")
    if entry.model is None:
        raise UsageError(f"{entry.id} chose no model, so there is nothing to judge")
    return entry.model


def _embedding(journal: Journal, entry: Entry, text: str | None) -> tuple[Vector, Vector, Vector, Floats]:
    """Return the query's vectors and features as `Journal.embedding` does, as kept or of its text.

    Raises UsageError for a wrong or missing text.
    """
    if text is not None:
        known = journal.hash_of(text)
        if known is None or not hmac.compare_digest(known.hex(), entry.query):
            raise UsageError(f"that is not the text of {entry.id}: the journal's hash of it is another one")
    elif (kept := journal.embedding(entry.id)) is not None:
        return kept
    else:
        text = entry.text
    if text is None and entry.embedded:
        raise UsageError(
            f"{entry.id} was recorded by a release with another encoder, and the journal has no text to encode again"
            " (setting journal_text); give the query's text with --text"
        )
    if text is None:
        raise UsageError(
            f"the journal has neither text nor embedding of {entry.id} (settings journal_text, journal_embedding; by default"
            f" only the latest {RECENT} entries keep their embedding); give the query's text with --text"
        )
    from scope_edge.encoding.encoder import Encoder
    from scope_edge.estimation.difficulty import text_features
    from scope_edge.types import Query

    encoded = Encoder.load().encode(Query(text))
    return encoded.vector, encoded.state, encoded.multilingual, text_features(text)


def _prompt_tokens(entry: Entry, model: str) -> float:
    if entry.run is not None and entry.run.prompt_tokens is not None:
        return entry.run.prompt_tokens
    expected = next((one.prompt_tokens for one in entry.decision.candidates if one.model == model), None)
    return math.nan if expected is None else expected


def _usable() -> tuple[FeedbackRecord, ...]:
    """Return the feedback. Raises AssetError when its file is unusable: it must not be overwritten."""
    held = load_feedback()
    if held.ignored is not None:
        raise AssetError(held.ignored)
    return held.said
