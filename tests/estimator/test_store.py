"""The store of installed estimators: what is written is read back, what is damaged is named and harms nothing else."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from scope_edge.errors import AssetError, UsageError
from scope_edge.estimator.store import (
    GGUF,
    MANIFEST,
    PROMPT,
    Damaged,
    Installed,
    check_gguf,
    entries,
    find_installed,
    list_installed,
    remember_gguf,
    remove_installed,
    store,
    write_manifest,
)
from scope_edge.providers.llama.messages import ModelShape, Sampling

SHAPE = ModelShape("qwen3", "Q4_K_M", 4_022_468_096, 36, 40_960, 151_936, 147_456, True)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOPE_EDGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SCOPE_EDGE_CACHE_DIR", str(tmp_path / "cache"))


def put(
    name: str, installed: str = "2026-11-20T10:00:00+00:00", weights: bytes = b"GGUF, for all the store knows"
) -> Installed:
    """An entry of the store, complete but for its weights, which the store never looks into."""
    folder = store() / name
    folder.mkdir(parents=True)
    template = "{{question}} über alles\n"
    (folder / GGUF).write_bytes(weights)
    (folder / PROMPT).write_bytes(template.encode())
    entry = Installed(
        name=name,
        folder=folder,
        sha256=hashlib.sha256(weights).hexdigest(),
        size=len(weights),
        shape=SHAPE,
        mode="direct",
        template_sha256=hashlib.sha256(template.encode()).hexdigest(),
        template_from="model card of someone/SCOPE@0123abcd",
        source="someone/SCOPE",
        revision="0123abcd",
        licence=None,
        installed=installed,
        sampling=Sampling(temperature=0.7, seed=4),
        samples=12,
    )
    write_manifest(entry)
    return entry


def test_what_was_written_is_read_back_with_nothing_lost() -> None:
    entry = put("scope")
    assert find_installed("scope") == entry
    assert list_installed() == (entry,)
    assert entry.template == "{{question}} über alles\n"


def test_an_empty_store_has_nothing_and_is_not_made() -> None:
    assert list_installed() == ()
    assert find_installed() is None
    assert find_installed("scope") is None
    assert find_installed("../../etc") is None
    assert not store().exists()


def test_the_newest_is_found_when_none_is_named() -> None:
    put("b", "2026-11-20T10:00:00+00:00")
    newest = put("a", "2026-11-21T09:00:00+00:00")
    put("c", "2026-11-19T23:00:00+00:00")
    assert find_installed() == newest
    assert [one.name for one in list_installed()] == ["a", "b", "c"]


def test_a_byte_order_mark_is_no_part_of_a_manifest() -> None:
    path = put("a").folder / MANIFEST
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert find_installed("a").name == "a"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('mode = "direct"', 'mode = "loud"'), "mode cannot be 'loud'"),
        (lambda text: text.replace("size = ", "sizes = "), "size"),
        (lambda text: text.replace("layers = 36", "layers = true"), "layers cannot be True"),
        (lambda text: text.replace("layers = 36", 'layers = "36"'), "layers cannot be '36'"),
        (lambda text: text.replace("format = 1", "format = 2"), "format 1"),
        (lambda text: text[: len(text) // 3], "manifest.toml"),
        (lambda text: "\x00" + text, "not valid TOML"),
        (lambda text: "x = " + "[" * 20_000, "not valid TOML"),
        (lambda text: "# " + "x" * 70_000, "more than 65536 bytes"),
    ],
)
def test_a_damaged_manifest_is_named_and_leaves_the_others_usable(change, said: str) -> None:  # type: ignore[no-untyped-def]
    good, bad = put("good"), put("bad", "2026-11-22T00:00:00+00:00")
    path = bad.folder / MANIFEST
    path.write_text(change(path.read_text("utf-8")), "utf-8")
    with pytest.raises(AssetError) as error:
        find_installed("bad")
    for part in (str(path), said, "scope-edge estimator remove bad"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert find_installed() == good
    damaged = next(entry for entry in entries() if isinstance(entry, Damaged))
    assert (damaged.name, damaged.problem) == ("bad", str(error.value))


def test_when_all_there_is_is_damaged_that_is_said_instead_of_nothing_installed() -> None:
    (put("bad").folder / MANIFEST).unlink()
    with pytest.raises(AssetError, match=r"manifest\.toml: cannot be read"):
        find_installed()


def test_a_changed_template_is_refused() -> None:
    entry = put("scope")
    (entry.folder / PROMPT).write_text("{{question}} Ignore that.", "utf-8")
    with pytest.raises(AssetError, match=r"prompt\.txt: was changed"):
        _ = entry.template


def test_weights_are_read_once_and_again_when_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = put("scope")
    reads: list[Path] = []
    opened = Path.open

    def counted(path: Path, *args: object, **rest: object) -> object:
        if path == entry.gguf:
            reads.append(path)
        return opened(path, *args, **rest)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", counted)
    check_gguf(entry)
    check_gguf(entry)
    assert len(reads) == 1
    stat = entry.gguf.stat()
    os.utime(entry.gguf, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    check_gguf(entry)
    assert len(reads) == 2


def test_altered_weights_are_refused_also_when_an_earlier_check_was_remembered() -> None:
    entry = put("scope")
    check_gguf(entry)
    blob = bytearray(entry.gguf.read_bytes())
    blob[3] ^= 1
    entry.gguf.write_bytes(blob)
    stat = entry.gguf.stat()
    os.utime(entry.gguf, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    with pytest.raises(AssetError, match=r"damaged \(expected sha256 .* estimator remove scope"):
        check_gguf(entry)
    entry.gguf.write_bytes(blob[:-1])
    with pytest.raises(AssetError, match=f"{entry.size - 1} bytes where {entry.size} were installed"):
        check_gguf(entry)
    entry.gguf.unlink()
    with pytest.raises(AssetError, match="cannot be read"):
        check_gguf(entry)


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    entry = put("scope")
    check_gguf(entry)
    remember_gguf(entry)
    check_gguf(entry)


def test_removing_takes_sound_and_damaged_entries_and_refuses_strangers(tmp_path: Path) -> None:
    entry, bad = put("scope"), put("bad")
    (bad.folder / MANIFEST).write_text("no manifest")
    check_gguf(entry)
    remove_installed("scope")
    remove_installed("bad")
    assert entries() == ()
    assert list(store().iterdir()) == []
    assert list((tmp_path / "cache" / "checked").iterdir()) == []
    (tmp_path / "data" / "precious").mkdir()
    for name in ("scope", "../precious", "", "."):
        with pytest.raises(UsageError, match="is installed"):
            remove_installed(name)
    assert (tmp_path / "data" / "precious").exists()


def test_an_entry_in_the_making_is_no_entry() -> None:
    entry = put("scope")
    replace(entry, name="x").folder.rename(store() / ".installing-scope")
    assert entries() == ()
