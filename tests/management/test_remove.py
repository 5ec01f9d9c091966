"""Taking away what was measured and imported: nothing is left that points to what is gone, and bundled things stay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from own_set_cases import MODEL, own_set, save

from scope_edge.errors import UsageError
from scope_edge.estimation.anchors import set_body
from scope_edge.estimation.fingerprints import Fingerprint, fingerprints_body, load_anchor_sets, load_fingerprints
from scope_edge.factory import load_pipeline
from scope_edge.management.remove import forget, list_sets, own_sets_of, remove_set
from scope_edge.settings.config import load_settings
from scope_edge.storage.packs import write_pack


@pytest.fixture(autouse=True)
def data(own_folders: Path) -> Path:
    return own_folders / "data"


def test_a_set_goes_with_the_fingerprints_on_it_and_the_others_stay(data: Path) -> None:
    save(data, own_set("mine"), {MODEL: 1.0, "stranger": 0.0})
    save(data, own_set("other"), {MODEL: 1.0})
    gone = remove_set("mine")
    assert set(gone.fingerprints) == {(MODEL, "mine"), ("stranger", "mine")}
    assert {path.name for path in gone.files} == {"mine.pack"} and len(gone.files) == 2
    assert "mine" not in {one.name for one in load_anchor_sets()}
    assert own_sets_of(MODEL) == ("other",) and own_sets_of("stranger") == ()
    assert load_pipeline(load_settings()).pool


def test_packs_of_several_keep_what_is_not_meant(data: Path) -> None:
    first, second = own_set("first"), own_set("second", rows=30)
    write_pack(data / "anchors" / "both.pack", "anchor-sets", {"sets": [set_body(first), set_body(second)]})
    parts = {
        one.name: [Fingerprint(m, one, np.full(len(one), p), np.full(len(one), 9.0)) for m, p in models.items()]
        for one, models in ((first, {"a": 1.0, "b": 0.5}), (second, {"a": 0.25}))
    }
    write_pack(data / "fingerprints" / "both.pack", "fingerprints", fingerprints_body(parts))
    assert forget("a", "first").fingerprints == (("a", "first"),)
    found = load_fingerprints()[1]
    assert [(one.anchors.name, one.correct[0], one.tokens[0]) for one in found["a"]] == [("second", 0.25, 9.0)]
    assert [(one.anchors.name, one.correct[0]) for one in found["b"]] == [("first", 0.5)]
    remove_set("first")
    assert {one.name for one in load_anchor_sets() if one.own} == {"second"}
    assert "b" not in load_fingerprints()[1] and own_sets_of("a") == ("second",)


def test_what_a_deleted_file_left_is_listed_and_can_be_taken_away(data: Path) -> None:
    save(data, own_set(), {MODEL: 1.0})
    (data / "anchors" / "mine.pack").unlink()
    left = {one.name: one for one in list_sets()}["mine"]
    assert left.anchors is None and left.measured == (MODEL,) and left.problem
    remove_set("mine")
    assert "mine" not in {one.name for one in list_sets()} and not list((data / "fingerprints").iterdir())


def test_a_damaged_set_is_listed_and_can_be_taken_away(data: Path) -> None:
    save(data, own_set(), {MODEL: 1.0})
    path = data / "anchors" / "mine.pack"
    path.write_bytes(path.read_bytes()[:-1])
    problem = {one.name: one for one in list_sets()}["mine"].problem
    assert problem is not None and str(path) in problem
    remove_set("mine")
    assert load_pipeline(load_settings()).pool and not path.exists()


def test_bundled_things_stay(data: Path) -> None:
    names = {one.name for one in list_sets() if not one.own}
    assert {"core-250", "zeroeval"} <= names
    for name in names:
        with pytest.raises(UsageError, match="is bundled and stays"):
            remove_set(name)
    with pytest.raises(UsageError, match="bundled ones stay"):
        forget(MODEL)
    with pytest.raises(UsageError, match="did you mean core-250"):
        remove_set("core-25")


def test_answers_stay_unless_they_are_meant_too(data: Path) -> None:
    journals = data / "fingerprinting"
    journals.mkdir(parents=True)
    for name, model in {"a-1": "a", "a-2": "a", "a-b-1": "a-b"}.items():
        (journals / f"{name}.jsonl").write_text(json.dumps({"format": 1, "model": model}) + "\n")
    (journals / "a-3.jsonl").write_text("damaged")
    save(data, own_set(), {"a": 1.0})
    gone = forget("a")
    assert {path.name for path in gone.left} == {"a-1.jsonl", "a-2.jsonl"} and len(list(journals.iterdir())) == 4
    assert len(forget("a", answers=True).files) == 2
    assert {path.name for path in journals.iterdir()} == {"a-3.jsonl", "a-b-1.jsonl"}
    with pytest.raises(UsageError, match="no fingerprint of yours"):
        forget("a", answers=True)
