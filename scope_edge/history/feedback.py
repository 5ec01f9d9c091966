"""An entry of the journal judged: right or wrong, an anchor of the user's from then on; and the judgement taken back."""

from __future__ import annotations

import hmac
import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError, UsageError
from scope_edge.estimation.feedback_store import FeedbackRecord, load_feedback, record
from scope_edge.estimation.fingerprints import fingerprint_names
from scope_edge.history.entry import Feedback, typed_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from scope_edge.catalog.cards import Catalog
    from scope_edge.history import Entry, Journal
    from scope_edge.types import Floats, Vector


@dataclass(frozen=True, slots=True)
class Given:
    """What was taken in, or back.

    tokens: own tokens, None = not known. total: answers judged by now. before: None = a first word.
    known: whether the model has a fingerprint; of one that has none nothing is expected, so nothing can be corrected yet.
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
    """entries: of the journal that are gone; None = all, of one that could not be read. anchors: made of feedback.

    wiped: whether nothing of the entries is left in the files.
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
    """Judge an entry's answer; said again, it replaces what was said before.

    tokens: own tokens of the answer; None = as the journal has them, if the answer was whole. text: the query's, needed
    where the journal kept neither text nor embedding. Raises UsageError (no such entry, no answer, no or another text),
    AssetError.
    """
    entry = journal.entry(id)
    model = _judged(entry)
    if tokens is None and entry.run is not None and entry.run.ending == "complete":
        tokens = entry.run.completion_tokens
    vector, state, features = _embedding(journal, entry, text)
    card = catalog.by_id.get(model)
    factor = 1.0 if card is None else card.token_factor
    one = FeedbackRecord(
        id=entry.id,
        model=model,
        time=entry.time.timestamp(),
        vector=vector,
        state=state,
        features=features,
        correct=correct,
        tokens=math.nan if tokens is None else tokens / factor,
        prompt_tokens=_prompt_tokens(entry, model) / factor,
    )
    with journal.telling({entry.id: Feedback(correct, tokens)}):
        held = _usable()
        before = next((other.correct for other in held if other.id == one.id), None)
        said = [*(other for other in held if other.id != one.id), one]
        record(said)
    return Given(entry.id, model, correct, tokens, len(said), before, model in fingerprint_names())


def undo(journal: Journal, id: str) -> Given:
    """Take back what was said of an entry, whether or not the journal still has it. Raises UsageError, AssetError."""
    held = _usable()
    known = next((one.id for one in held if one.id == typed_id(id)), None) or journal.entry(id).id
    with journal.telling({known: None}):
        held = _usable()
        taken = next((one for one in held if one.id == known), None)
        if taken is None:
            raise UsageError(f"nothing was said of {known}, so there is nothing to take back")
        left = [one for one in held if one.id != known]
        record(left)
    return Given(known, taken.model, taken.correct, None, len(left), taken.correct)


def forget_feedback(
    journal: Journal, chosen: Callable[[FeedbackRecord], bool] | None = None
) -> tuple[FeedbackRecord, ...]:
    """Take back what was said of some answers, or all of it, a file that cannot be used included. Raises AssetError."""
    held = load_feedback()
    gone = tuple(one for one in held.said if chosen is None or chosen(one))
    if gone or (chosen is None and held.ignored is not None):
        with journal.telling(dict.fromkeys((one.id for one in gone), None)):
            record([] if chosen is None else [one for one in load_feedback().said if not chosen(one)])
    return gone


def purge(journal: Journal, *, older_than: datetime | None = None, keep_feedback: bool = False) -> Forgotten:
    """Delete entries of the journal, all or older ones, and what was learned from them. Raises AssetError."""
    purged = journal.purge(older_than=older_than)
    if keep_feedback:
        gone: tuple[FeedbackRecord, ...] = ()
    elif older_than is None:
        gone = forget_feedback(journal)
    else:
        limit = older_than.timestamp()
        gone = forget_feedback(journal, lambda one: one.time < limit)
    return Forgotten(None if purged.ids is None else len(purged.ids), len(gone), purged.wiped)


def _judged(entry: Entry) -> str:
    """The model whose answer is judged. Raises UsageError when there was none."""
    if entry.run is not None and entry.run.model is None:
        raise UsageError(f"no model answered {entry.id}, so there is nothing to judge")
    if entry.model is None:
        raise UsageError(f"{entry.id} chose no model, so there is nothing to judge")
    return entry.model


def _embedding(journal: Journal, entry: Entry, text: str | None) -> tuple[Vector, Vector, Floats]:
    """The query's unit vector, state and features: as kept, or of its text. Raises UsageError when that is another one's."""
    if text is not None:
        known = journal.hash_of(text)
        if known is None or not hmac.compare_digest(known.hex(), entry.query):
            raise UsageError(f"that is not the text of {entry.id}: the journal's hash of it is another one")
    else:
        kept = journal.embedding(entry.id)
        if kept is not None:
            return kept
        text = entry.text
    if text is None:
        raise UsageError(
            f"the journal kept neither text nor embedding of {entry.id} (settings journal_text, journal_embedding);"
            " give the query's text with --text"
        )
    from scope_edge.encoding.encoder import Encoder
    from scope_edge.estimation.difficulty import text_features
    from scope_edge.types import Query

    encoded = Encoder.load().encode(Query(text))
    return encoded.vector, encoded.state, text_features(text)


def _prompt_tokens(entry: Entry, model: str) -> float:
    if entry.run is not None and entry.run.prompt_tokens is not None:
        return entry.run.prompt_tokens
    expected = next((one.prompt_tokens for one in entry.decision.candidates if one.model == model), None)
    return math.nan if expected is None else expected


def _usable() -> tuple[FeedbackRecord, ...]:
    """What was said. Raises AssetError when it cannot be used: it is not to be written over."""
    held = load_feedback()
    if held.ignored is not None:
        raise AssetError(held.ignored)
    return held.said
