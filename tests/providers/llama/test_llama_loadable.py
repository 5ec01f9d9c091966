"""What cannot be loaded on this machine is known without starting it, for the reason it is; and it costs `route` little."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from scope_edge.providers.llama import loadable, memory
from scope_edge.providers.llama.gguf import Header
from scope_edge.providers.llama.loadable import hash_of, look_up, note_loading, unloadable, why_not
from scope_edge.providers.llama.memory import GIB, Gpu, Plan, plan_device, usable_gpus
from scope_edge.types import ModelCard


@pytest.fixture
def path(own_folders: Path, tiny_gguf: Path) -> Path:
    return Path(shutil.copy(tiny_gguf, own_folders / "mine.gguf"))


def card(path: Path | str) -> ModelCard:
    return ModelCard("mine", "device", gguf=str(path))


def test_a_sound_file_that_fits_can_be_loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not(card(path)) is None
    monkeypatch.setenv("HOME", str(path.parent))
    assert why_not(card("~/mine.gguf")) is None
    assert unloadable([card(path), ModelCard("elsewhere", "cloud")]) == {}


def test_what_is_not_there_or_damaged_cannot(path: Path) -> None:
    assert why_not(card(path.parent / "none.gguf")) == f"no file {path.parent / 'none.gguf'}"
    path.write_bytes(path.read_bytes()[:20_000])
    assert "ends in the middle" in (why_not(card(path)) or "")
    path.write_text("not a model")
    assert "not a GGUF" in (why_not(card(path)) or "")


def test_what_does_not_fit_cannot_until_a_gpu_holds_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: GIB // 4)
    monkeypatch.setattr(memory, "usable_gpus", lambda: ())
    assert "no room" in (why_not(card(path)) or "")
    monkeypatch.setattr(memory, "usable_gpus", lambda: (Gpu("nvidia", "A", 24.0, "test"),))
    assert why_not(card(path)) is None
    plan = plan_device(look_up(path).shape, path.stat().st_size)
    assert isinstance(plan, Plan) and plan.gpu_layers == -1


def test_memory_of_a_gpu_that_others_have_taken_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "scope_edge.providers.llama.memory.find_gpus", lambda: (Gpu("nvidia", "A", 24.0, "test", free_gb=0.5),)
    )
    monkeypatch.setattr("scope_edge.providers.llama.probe.installed", lambda: False)
    assert [gpu.memory_gb for gpu in usable_gpus()] == [0.5]
    # What a device model holds is counted with it, however much of it is loaded; never more than there is.
    assert [gpu.memory_gb for gpu in usable_gpus(2 * GIB / 1e9)] == [2.5]
    assert [gpu.memory_gb for gpu in usable_gpus(40.0)] == [24.0]


def test_a_header_is_read_once_and_again_when_the_file_was_touched(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> Header:
        read.append(path)
        return original(path)

    original = loadable.read_header
    monkeypatch.setattr(loadable, "read_header", counted)
    first = look_up(path)
    assert look_up(path) == first and len(read) == 1
    with path.open("ab") as file:
        file.write(bytes(32))
    assert look_up(path).size == first.size + 32 and len(read) == 2
    for cached in (path.parent / "cache" / "gguf").iterdir():
        cached.write_text("{")
    assert look_up(path).shape == first.shape


def test_a_file_is_hashed_once_and_again_when_it_was_touched(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    original = loadable.gguf_sha256
    monkeypatch.setattr(loadable, "gguf_sha256", lambda one: hashed.append(one) or original(one))
    first = hash_of(path)
    assert first == hashlib.sha256(path.read_bytes()).hexdigest()
    note_loading(path, "mine.gguf: llama.cpp cannot load it")
    assert hash_of(path) == look_up(path).sha256 == first and len(hashed) == 1, "a refusal does not forget it"
    with path.open("ab") as file:
        file.write(bytes(32))
    assert hash_of(path) != first and len(hashed) == 2


def test_a_refusal_is_remembered_until_it_loads_or_something_changes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_loading(path, "mine.gguf: llama.cpp cannot load it")
    said = why_not(card(path)) or ""
    assert "llama.cpp cannot load it" in said and "scope-edge models test mine" in said
    note_loading(path, None)
    assert why_not(card(path)) is None
    note_loading(path, "mine.gguf: llama.cpp cannot load it")
    with monkeypatch.context() as newer:
        newer.setattr(loadable, "llama_version", lambda: "99")
        assert why_not(card(path)) is None, "another llama.cpp may load it"
    assert why_not(card(path)) is not None
    with path.open("ab") as file:
        file.write(bytes(32))
    assert why_not(card(path)) is None, "another file may be loaded"
