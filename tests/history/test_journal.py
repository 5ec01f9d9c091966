"""The journal: decisions and what became of them are found again, the query is not, and nothing of it can fail a decision."""

from __future__ import annotations

import hashlib
import re
import stat
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from journal_cases import OTHER, QUERY, decided, recorded, run_of
from repository import ROOT

from scope_edge.errors import AssetError, DamagedError, UsageError
from scope_edge.factory import open_journal
from scope_edge.history import Journal
from scope_edge.history.entry import RECENT, STEPS, Feedback
from scope_edge.history.serialization import without
from scope_edge.settings.config import Settings
from scope_edge.storage.sqlite import Database
from scope_edge.types import Attempt, Query

TEXT = QUERY.encode()
KEPT = {"journal_text": True, "journal_embedding": True}


@pytest.fixture(autouse=True)
def folder(own_folders: Path) -> Path:
    return own_folders / "data" / "journal"


def open_(**settings: object) -> Journal:
    return open_journal(Settings(**settings))  # type: ignore[arg-type]


def raw(folder: Path) -> bytes:
    """Every byte of the journal's files."""
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


def holds(found: bytes, made: bytes) -> bool:
    """Whether bytes hold any piece of these: a long value is cut where a page of the file ends."""
    return any(made[i : i + 64] in found for i in range(0, len(made), 64))


def aged(folder: Path, id: str, days: float) -> None:
    """Make an entry so many days older."""
    with Database(folder / "journal.sqlite", STEPS, "").writing() as link:
        link.execute("UPDATE entries SET time = time - ? WHERE id = ?", (days * 86_400, id))


def test_a_decision_and_its_run_are_found_again() -> None:
    encoded, decision = decided()
    decision = replace(decision, warnings=("mind this",), degraded=("and that",), query_id="q-17")
    run = run_of(decision)
    journal = open_(pool="default", profile="work", value_of_time=0.01, **KEPT)
    before = datetime.now(timezone.utc)
    id = journal.record(encoded.query, decision, run, encoded=encoded)
    entry = open_().entry(id)
    assert (entry.id, entry.state, entry.model) == (id, "complete", decision.choice)
    assert (entry.pool, entry.profile, entry.value_of_time) == ("default", "work", 0.01)
    assert before <= entry.time <= datetime.now(timezone.utc)
    assert entry.run == run and entry.text == QUERY and entry.embedded and entry.feedback is None
    found = entry.decision
    assert replace(found, candidates=()) == replace(decision, candidates=())
    assert [one.model for one in found.candidates] == [one.model for one in decision.candidates]
    for ours, theirs in zip(found.candidates, decision.candidates, strict=True):
        for name in (
            "p_correct",
            "p_low",
            "p_high",
            "tokens",
            "tokens_hi",
            "prompt_tokens",
            "usd",
            "usd_hi",
            "utility",
        ):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=6e-3), name
    kept = journal.embedding(id)
    assert kept is not None
    for vector, made in zip(kept, (encoded.vector, encoded.state, encoded.multilingual), strict=False):
        assert np.array_equal(vector, made)


def test_a_journal_that_knows_one_encoder_still_opens_and_goes_on(folder: Path) -> None:
    with open_(journal_embedding=True) as journal:
        old = recorded(journal)
    path = folder / "journal.sqlite"
    with Database(path, STEPS, "").reading() as link:
        link.execute("ALTER TABLE entries DROP COLUMN multilingual")
        link.execute("PRAGMA user_version = 1")
    journal = open_(journal_embedding=True)
    new = recorded(journal)
    assert journal.entry(old).embedded and journal.embedding(old) is None
    assert journal.embedding(new) is not None
    assert [one.id for one in journal.entries()] == [new, old]


def test_what_was_not_run_and_what_had_no_choice_are_told_apart() -> None:
    encoded, decision = decided()
    none = replace(decision, choice=None, where=None, feasible=False)
    journal = open_()
    ids = [journal.record(encoded.query, one, None, encoded=None) for one in (decision, none)]
    failed = journal.record(
        encoded.query, decision, run_of(decision, model=None, where=None, ending="failed"), encoded=None
    )
    states = [(journal.entry(id).state, journal.entry(id).model) for id in (*ids, failed)]
    assert states == [("routed", decision.choice), ("no choice", None), ("failed", decision.choice)]


def test_nothing_of_the_query_is_on_the_disk_unless_asked_for(folder: Path) -> None:
    encoded, decision = decided()
    told = replace(
        decision, candidates=(replace(decision.candidates[0], rationale=f"it says {QUERY}"), *decision.candidates[1:])
    )
    run = run_of(decision, attempts=(Attempt("m", "cloud", f'400: cannot read "{QUERY}" here'),))
    journal = open_(journal_embedding=False)
    id = journal.record(encoded.query, told, run, encoded=encoded)
    found = raw(folder)
    assert not any(holds(found, made) for made in (TEXT, encoded.vector.tobytes(), encoded.multilingual.tobytes()))
    assert all(one.anchor.encode() not in found for one in decision.neighbors)
    digests = [hashlib.new(name, QUERY.encode()) for name in ("md5", "sha1", "sha256")]
    assert all(one.digest() not in found and one.hexdigest().encode() not in found for one in digests)
    entry = journal.entry(id)
    assert entry.text is None and not entry.embedded and journal.embedding(id) is None
    assert entry.run is not None and entry.run.attempts[0].error == '400: cannot read "[...]" here'
    assert [one.category for one in entry.decision.neighbors] == [one.category for one in decision.neighbors]


@pytest.mark.parametrize(
    ("settings", "text", "vector"),
    [
        ({}, False, True),
        ({"journal_text": True, "journal_embedding": False}, True, False),
        ({"journal_embedding": True}, False, True),
    ],
)
def test_text_and_embedding_are_asked_for_each_on_its_own(
    folder: Path, settings: dict[str, bool], text: bool, vector: bool
) -> None:
    journal = open_(**settings)
    id = recorded(journal)
    entry, found = journal.entry(id), raw(folder)
    assert (entry.text == QUERY, TEXT in found) == (text, text)
    for made in (decided()[0].vector, decided()[0].multilingual):
        assert (entry.embedded, holds(found, made.tobytes())) == (vector, vector)


def test_by_default_only_the_latest_entries_keep_their_embedding(folder: Path) -> None:
    kept = open_(journal_embedding=True)
    old = [recorded(kept) for _ in range(3)]
    journal = open_()
    ids = [recorded(journal) for _ in range(RECENT)]
    assert all(journal.entry(id).embedded for id in ids) and not any(journal.entry(id).embedded for id in old)
    recorded(journal)
    assert journal.embedding(ids[0]) is None and journal.embedding(ids[1]) is not None
    vector, state, multilingual, features = journal.embedding(ids[-1]) or (None,) * 4
    assert vector is not None and state is not None and features is not None
    assert vector.tobytes() == decided()[0].vector.astype("<f4").tobytes()
    assert multilingual is not None
    with Database(folder / "journal.sqlite", STEPS, "").reading() as link:
        ((left,),) = link.execute("SELECT count(multilingual) FROM entries")
    assert left == RECENT
    (names,) = {one.anchor for one in journal.entry(ids[-1]).decision.neighbors}
    assert names == "", "the nearest anchors would outlive the embedding"


def test_the_same_query_is_known_again_and_only_with_the_key(folder: Path) -> None:
    journal = open_()
    first, other, again = recorded(journal), recorded(journal, OTHER), recorded(journal)
    assert [one.id for one in journal.entries(text=f"  {QUERY.replace(' ', '  ')} ")] == [again, first]
    assert journal.same_query(journal.entry(first)) == (again,)
    assert journal.entries(text="something else") == ()
    before = journal.entry(other).query
    (folder / "journal.key").unlink()
    third = recorded(journal, OTHER)
    assert journal.entry(third).query != before
    assert journal.entries(text=QUERY) == ()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_its_files_are_for_their_owner_alone(folder: Path) -> None:
    recorded(open_())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert set(modes.values()) == {0o600} and {"journal.key", "journal.sqlite"} <= set(modes)


def test_ids_are_short_typeable_and_may_be_cut_short() -> None:
    journal = open_()
    ids = [recorded(journal) for _ in range(40)]
    assert len(set(ids)) == 40 and all(re.fullmatch("[0-9a-hjkmnp-tv-z]{6}", id) for id in ids)
    assert journal.entry(ids[3].upper()).id == journal.entry(f" {ids[3]}").id == ids[3]
    assert journal.entry("last").id == ids[-1]
    assert journal.entry(ids[5][:5]).id.startswith(ids[5][:5])
    twins = next(a for a in "0123456789abcdefghjkmnpqrstvwxyz" if sum(id.startswith(a) for id in ids) > 1)
    with pytest.raises(UsageError, match="several entries begin with"):
        journal.entry(twins)
    for stranger in ("zzzzzz", "", "%", "';--"):
        with pytest.raises(UsageError, match="no entry"):
            journal.entry(stranger)


def test_entries_come_latest_first_a_page_at_a_time(folder: Path) -> None:
    journal = open_()
    ids = [recorded(journal) for _ in range(7)]
    other = recorded(journal, model="gemma-2-2b-it", where="device")
    newest = [other, *reversed(ids)]
    assert [one.id for one in journal.entries()] == newest
    assert [one.id for one in journal.entries(3)] == newest[:3]
    assert [one.id for one in journal.entries(3, newest[2])] == newest[3:6]
    assert [one.id for one in journal.entries(model="gemma-2-2b-it")] == [other]
    aged(folder, ids[0], 2)
    since = datetime.now(timezone.utc) - timedelta(days=1)
    assert [one.id for one in journal.entries(since=since)] == newest[:-1]
    with pytest.raises(UsageError, match="no entry"):
        journal.entries(3, "zzzzzz")


def test_off_writes_nothing_and_looking_makes_no_file(folder: Path) -> None:
    encoded, decision = decided()
    assert open_(journal="off").record(encoded.query, decision, run_of(decision), encoded=encoded) == ""
    assert open_().entries() == ()
    assert not folder.exists()


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from journal_cases import recorded
from scope_edge.factory import open_journal
from scope_edge.settings.config import Settings
journal = open_journal(Settings())
print(" ".join(recorded(journal) for _ in range(25)))
"""


@pytest.mark.long
def test_processes_that_begin_together_share_one_key_and_lose_nothing() -> None:
    here = str(ROOT / "tests" / "support")
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, here], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    ids = [id for one in writers for id in one.communicate()[0].split()]
    assert len(set(ids)) == 100
    entries = open_().entries(None)
    assert {one.id for one in entries} == set(ids)
    assert len({one.query for one in entries}) == 1


@pytest.mark.parametrize("what", ["journal.sqlite", "journal.key", "folder"])
def test_whatever_is_wrong_with_it_a_decision_is_only_told_why(folder: Path, what: str) -> None:
    encoded, decision = decided()
    if what == "folder":
        folder.parent.mkdir(parents=True)
        folder.write_bytes(b"in the way")
    else:
        with open_() as journal:
            recorded(journal)
        (folder / what).write_bytes(b"not what it was" * 500)
    journal = open_()
    assert journal.record(encoded.query, decision, run_of(decision), encoded=None) == ""
    assert journal.problem is not None
    assert journal.problem.startswith("the journal is not written: ") and str(folder) in journal.problem
    assert "\n" not in journal.problem and ("log purge" in journal.problem or what == "folder")
    if what == "journal.sqlite":
        with pytest.raises(DamagedError):
            journal.entries()
    if what != "folder":
        assert journal.purge().wiped
        recorded(journal)


def test_a_value_the_database_cannot_hold_fails_no_decision() -> None:
    encoded, decision = decided()
    journal = open_(pool=None)
    assert journal.record(encoded.query, decision, None, encoded=None) == "" and journal.problem
    text = "\ud800 half a character, and a NUL \0"
    for kept in (False, True):
        id = (mine := open_(journal_text=kept)).record(Query(text), decision, None, encoded=None)
        assert mine.entry(id).text == (text if kept else None)


def test_old_entries_go_and_the_oldest_when_there_are_too_many(folder: Path) -> None:
    old, kept = recorded(open_()), recorded(open_())
    aged(folder, old, 8)
    new = recorded(open_(journal_days=7))
    assert {one.id for one in open_().entries()} == {kept, new}
    encoded, decision = decided()
    long = Query("x" * 400_000)
    ids = [open_(journal_mb=2, journal_text=True).record(long, decision, None, encoded=None) for _ in range(12)]
    left = [one.id for one in open_().entries()]
    assert left == list(reversed(ids))[: len(left)] and 1 <= len(left) < 8
    assert (folder / "journal.sqlite").stat().st_size < 4_000_000
    assert encoded.query.text == QUERY


def test_purging_all_leaves_no_byte_of_an_entry(folder: Path) -> None:
    with open_(**KEPT) as journal:
        ids = [recorded(journal) for _ in range(30)]
        vector, found = decided()[0].vector.tobytes(), raw(folder)
        assert all(id.encode() in found for id in ids) and TEXT in found and holds(found, vector)
        assert set(journal.purge().ids or ()) == set(ids)
        found = raw(folder)
        assert not any(id.encode() in found for id in ids) and TEXT not in found
        assert not holds(found, vector)
        assert not (folder / "journal.key").exists()
        assert journal.entries() == ()
        assert recorded(journal)


def test_purging_by_age_keeps_what_is_younger(folder: Path) -> None:
    journal = open_(**KEPT)
    old, new = recorded(journal, OTHER), recorded(journal)
    aged(folder, old, 40)
    assert journal.purge(older_than=datetime.now(timezone.utc) - timedelta(days=30)).ids == (old,)
    assert [one.id for one in journal.entries()] == [new]
    found = raw(folder)
    assert b"Danish" not in found and TEXT in found
    assert [one.id for one in journal.entries(text=QUERY)] == [new], "the key stays with the entries that stay"


def test_purging_what_was_never_written_makes_nothing(folder: Path) -> None:
    assert open_().purge().ids == ()
    assert not folder.exists()


def test_feedback_stands_beside_its_entry_and_only_if_what_goes_along_succeeds() -> None:
    journal = open_()
    id = recorded(journal)
    with journal.updating({id: Feedback(1.0, 55.0)}):
        pass
    assert journal.entry(id).feedback == Feedback(1.0, 55.0)
    with pytest.raises(AssetError), journal.updating({id: None}):
        raise AssetError("the pack could not be written")
    assert journal.entry(id).feedback == Feedback(1.0, 55.0)


@pytest.mark.parametrize(
    ("query", "message", "left"),
    [
        ("tell me a long secret of mine", "bad request: tell me a long secret of mine!", "bad request: [...]!"),
        ("tell me a long secret of mine", "bad: 'me a long secret of' at 3", "bad: '[...]' at 3"),
        ("tell me a long secret of mine", "503 from the server", "503 from the server"),
        ("hello", "cannot say hello twice: hello", "cannot say [...] twice: [...]"),
        ("a", "a bad gateway", "a bad gateway"),
        ("secret", "", ""),
    ],
)
def test_what_an_error_quotes_of_a_query_is_left_out(query: str, message: str, left: str) -> None:
    assert without(query, message) == left
