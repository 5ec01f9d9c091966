"""The user's SQLite files: private, shared by processes and threads, whole after a crash, never read by a release too old."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scope_edge.errors import AssetError, DamagedError
from scope_edge.storage.sqlite import Database, make_private, shred

STEPS = (("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)",),)
MEND = "do this"
SECRET = "what nobody else is to read " * 20

WRITER = """
import sys
from pathlib import Path
from scope_edge.storage.sqlite import Database
database = Database(Path(sys.argv[1]), (("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)",),), "mend", patience=60)
for i in range(int(sys.argv[2])):
    with database.writing() as link:
        link.execute("INSERT INTO notes (text) VALUES (?)", (str(i),))
    print(i, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "private" / "notes.sqlite"


def open_(path: Path, steps: tuple[tuple[str, ...], ...] = STEPS, patience: float = 5.0) -> Database:
    return Database(path, steps, MEND, patience=patience)


def add(database: Database, text: str = "a note") -> None:
    with database.writing() as link:
        link.execute("INSERT INTO notes (text) VALUES (?)", (text,))


def texts(database: Database) -> list[str]:
    with database.reading() as link:
        return [text for (text,) in link.execute("SELECT text FROM notes ORDER BY id")]


def writer(path: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(count)], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_files_and_folder_are_for_their_owner_alone_whatever_the_mask(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    before = os.umask(0)
    try:
        database = open_(path)
        add(database)
    finally:
        os.umask(before)
    files = list(path.parent.iterdir())
    assert {file.name for file in files} == {"notes.sqlite", "notes.sqlite-wal", "notes.sqlite-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(AssetError, match="belongs to another user"):
        make_private(folder)


def test_a_transaction_is_whole_or_not_at_all(path: Path) -> None:
    database = open_(path)
    with pytest.raises(ZeroDivisionError), database.writing() as link:
        link.execute("INSERT INTO notes (text) VALUES ('half')")
        1 / 0  # noqa: B018
    add(database, "whole")
    assert texts(database) == ["whole"]


def test_processes_that_begin_together_lose_nothing(path: Path) -> None:
    writers = [writer(path, 40) for _ in range(6)]
    for one in writers:
        one.communicate()
    assert [one.returncode for one in writers] == [0] * 6
    assert len(texts(open_(path))) == 240


def test_threads_share_one(path: Path) -> None:
    database = open_(path)
    threads = [threading.Thread(target=lambda: [add(database) for _ in range(25)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts(database)) == 200


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_what_was_committed_outlives_a_killed_process(path: Path) -> None:
    one = writer(path, 100_000)
    assert one.stdout is not None
    written = [one.stdout.readline() for _ in range(50)]
    one.send_signal(signal.SIGKILL)
    one.wait()
    one.stdout.close()
    database = open_(path)
    found = texts(database)
    assert found[:50] == [line.strip() for line in written]
    assert found == [str(i) for i in range(len(found))]
    add(database, "goes on")
    assert texts(database)[-1] == "goes on"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_child_has_a_connection_of_its_own(path: Path) -> None:
    database = open_(path)
    add(database, "parent")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for _ in range(20):
                add(database, "child")
            code = 0
        finally:
            os._exit(code)
    for _ in range(20):
        add(database, "parent")
    assert os.waitpid(child, 0)[1] == 0
    assert sorted(texts(database)) == ["child"] * 20 + ["parent"] * 21
    with database.reading() as link:
        assert link.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_file_of_an_older_release_is_brought_up_and_keeps_what_it_has(path: Path) -> None:
    add(open_(path), "old")
    newer = open_(path, (*STEPS, ("ALTER TABLE notes ADD COLUMN mood TEXT", "UPDATE notes SET mood = 'calm'")))
    add(newer, "new")
    with newer.reading() as link:
        assert link.execute("SELECT text, mood FROM notes ORDER BY id").fetchall() == [("old", "calm"), ("new", None)]


def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    add(open_(path), "old")
    with pytest.raises(AssetError):
        add(open_(path, (*STEPS, ("ALTER TABLE notes ADD COLUMN mood TEXT", "no such statement"))))
    assert texts(open_(path)) == ["old"]
    with open_(path).reading() as link:
        assert link.execute("PRAGMA user_version").fetchall() == [(1,)]


def test_a_file_of_a_newer_release_is_left_alone(path: Path) -> None:
    add(open_(path, (*STEPS, ("ALTER TABLE notes ADD COLUMN mood TEXT",))))
    with pytest.raises(
        DamagedError, match=r"notes\.sqlite: format 2, this release knows 1; update scope-edge, or do this"
    ):
        add(open_(path))


def test_another_programs_file_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as link:
        link.execute("CREATE TABLE bookmarks (url TEXT)")
    link.close()
    before = path.read_bytes()
    with pytest.raises(DamagedError, match="not a file of scope-edge's; do this"):
        add(open_(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["noise", "cut", "flipped"])
def test_a_damaged_file_is_one_line_that_says_what_to_do(path: Path, damage: str) -> None:
    database = open_(path)
    for _ in range(200):
        add(database, SECRET)
    database.close()
    blob = bytearray(path.read_bytes())
    if damage == "noise":
        blob = bytearray(b"\x01noise" * 4000)
    elif damage == "cut":
        del blob[len(blob) // 2 + 100 :]
    else:
        blob[4096:] = bytes(255 - byte for byte in blob[4096:])
    path.write_bytes(blob)
    with pytest.raises(DamagedError) as error:
        texts(open_(path))
    assert str(error.value).startswith(f"{path}: damaged (") and str(error.value).endswith("; do this")
    assert "\n" not in str(error.value)
    open_(path).destroy()
    assert list(path.parent.iterdir()) == []


def test_one_that_is_busy_says_so_and_is_not_damaged(path: Path) -> None:
    holder = open_(path)
    with holder.writing() as link:
        link.execute("INSERT INTO notes (text) VALUES ('held')")
        with pytest.raises(AssetError, match="kept it busy") as error:
            add(open_(path, patience=0.05))
    assert not isinstance(error.value, DamagedError)
    assert texts(holder) == ["held"]


def test_a_file_that_was_taken_away_is_made_anew(path: Path) -> None:
    database = open_(path)
    add(database, "gone")
    open_(path).destroy()
    add(database, "here")
    assert texts(open_(path)) == ["here"]
    database.close()
    assert texts(open_(path)) == ["here"]


def test_deleted_rows_are_nowhere_in_file_or_log(path: Path) -> None:
    database, other = open_(path), open_(path)
    for _ in range(50):
        add(database, SECRET)
    assert texts(other)
    raw = path.read_bytes() + Path(f"{path}-wal").read_bytes()
    assert SECRET.encode() in raw, "the secret is not on the disk: nothing would be proven"
    with database.writing() as link:
        link.execute("DELETE FROM notes")
    assert database.wipe()
    left = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"nobody else" not in left
    assert Path(f"{path}-wal").stat().st_size == 0
    assert texts(other) == []


def test_the_log_is_overwritten_before_it_is_cut_off(path: Path) -> None:
    database, log = open_(path), Path(f"{path}-wal")
    for _ in range(50):
        add(database, SECRET)
    with database.writing() as link:
        link.execute("DELETE FROM notes")
    size = log.stat().st_size
    assert b"nobody else" in log.read_bytes()
    with database.reading() as link:
        assert database._overwrite_log(link)
    assert log.stat().st_size >= size and b"nobody else" not in log.read_bytes()


def test_wiping_says_when_somebody_still_reads(path: Path) -> None:
    database = open_(path, patience=0.05)
    for _ in range(5):
        add(database, SECRET)
    with open_(path).reading() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM notes").fetchone()
        with database.writing() as link:
            link.execute("DELETE FROM notes")
        assert not database.wipe()
        reader.execute("COMMIT")
    assert database.wipe()


def test_a_shredded_file_is_zeros_under_any_other_name(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"secret" * 1000)
    other.hardlink_to(file)
    shred(file)
    assert not file.exists() and other.read_bytes() == bytes(6000)
    shred(file)
