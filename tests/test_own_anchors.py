"""The user's own anchor sets and fingerprints: loaded after the bundled ones, refused in one line when damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from own_set_cases import MODEL, own_set, save

from scope_edge.ability import fit_ability
from scope_edge.anchors import set_body, set_from_body
from scope_edge.assemble import load_flow
from scope_edge.config import load_settings
from scope_edge.errors import PackError
from scope_edge.fingerprints import Fingerprint, fingerprints_body, load_anchor_sets, load_fingerprints
from scope_edge.packs import write_pack
from scope_edge.prior import load_basis
from scope_edge.records import Query


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCOPE_EDGE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SCOPE_EDGE_CONFIG", str(tmp_path / "config.toml"))
    return tmp_path


def test_texts_survive_the_pack_and_are_one_a_row_or_none() -> None:
    anchors = own_set()
    assert set_from_body(set_body(anchors), "here", own=True).texts == anchors.texts
    assert set_from_body(set_body(replace(anchors, texts=())), "here").texts == ()
    with pytest.raises(PackError, match="different lengths"):
        set_from_body({**set_body(anchors), "texts": list(anchors.texts[:-1])}, "here")
    with pytest.raises(PackError, match="not a usable anchor set"):
        set_from_body({**set_body(anchors), "texts": 7}, "here")


def test_bundled_sets_have_no_text_and_are_not_the_users_own(data: Path) -> None:
    before = load_anchor_sets()
    assert all(one.texts == () and not one.own for one in before)
    save(data, own_set(), {MODEL: 1.0})
    after = load_anchor_sets()
    assert [one.name for one in after] == [*(one.name for one in before), "mine"]
    assert after[-1].own
    assert after[-1].texts[3] == "What is 3 plus 3?"


def test_a_model_is_fitted_on_bundled_and_own_outcomes_together(data: Path) -> None:
    population = load_basis().population
    before = load_fingerprints()[1][MODEL]
    save(data, own_set(), {MODEL: 0.0, "brand-new": 1.0})
    parts = load_fingerprints()[1]
    assert len(parts[MODEL]) == len(before) + 1
    worse, new = fit_ability(parts[MODEL], population), fit_ability(parts["brand-new"], population)
    assert worse.measured == fit_ability(before, population).measured + 40
    assert worse.mean[0] < fit_ability(before, population).mean[0] < new.mean[0]


def test_measuring_a_bundled_set_again_replaces_what_was_known_there(data: Path) -> None:
    first = load_fingerprints()[1][MODEL][0]
    again = replace(first, correct=np.zeros(len(first.anchors)))
    write_pack(data / "fingerprints" / "again.pack", "fingerprints", fingerprints_body({first.anchors.name: [again]}))
    parts = load_fingerprints()[1][MODEL]
    assert [one.anchors.name for one in parts].count(first.anchors.name) == 1
    assert next(one for one in parts if one.anchors.name == first.anchors.name).correct.sum() == 0


def test_own_anchors_do_not_move_what_alpha_means(data: Path) -> None:
    query, settings = Query("How many primes are there below one hundred?"), load_settings({"alpha": 0.6})
    before = load_flow(settings).route(query, settings.preference())
    save(data, own_set(rows=250), {"of-no-pool": 1.0})
    after = load_flow(settings).route(query, settings.preference())
    assert [row.utility for row in after.candidates] == [row.utility for row in before.candidates]
    assert after.flip_above == before.flip_above


@pytest.mark.parametrize("folder", ["anchors", "fingerprints"])
def test_a_damaged_pack_of_the_users_is_one_line_that_names_it(data: Path, folder: str) -> None:
    save(data, own_set(), {MODEL: 1.0})
    path = data / folder / "mine.pack"
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(blob)
    with pytest.raises(PackError) as error:
        load_flow(load_settings())
    assert str(path) in str(error.value)
    assert "scope-edge estimator anchors" in str(error.value)
    assert "\n" not in str(error.value)


def test_outcomes_on_a_set_that_was_deleted_are_left_out(data: Path) -> None:
    before = load_fingerprints()[1][MODEL]
    save(data, own_set(), {MODEL: 1.0, "stranger": 0.0})
    (data / "anchors" / "mine.pack").unlink()
    sets, fingerprints = load_fingerprints()
    assert [one.anchors.name for one in fingerprints[MODEL]] == [one.anchors.name for one in before]
    assert "stranger" not in fingerprints and "mine" not in {one.name for one in sets}
    assert load_flow(load_settings()).route(Query("What is 2 plus 2?"), load_settings().preference()).choice


def test_packs_that_do_not_fit_are_refused(data: Path) -> None:
    anchors = own_set()
    save(data, own_set(rows=39), {})
    save_only = data / "fingerprints" / "mine.pack"
    rows = [Fingerprint(MODEL, anchors, np.ones(40), np.ones(40))]
    write_pack(save_only, "fingerprints", fingerprints_body({"mine": rows}))
    with pytest.raises(PackError, match="does not fit anchor set 'mine'"):
        load_fingerprints()
    write_pack(
        data / "anchors" / "mine.pack",
        "anchor-sets",
        {"sets": [set_body(replace(anchors, traits=anchors.traits[:, 1:]))]},
    )
    with pytest.raises(PackError, match="another encoder or map"):
        load_anchor_sets()
    taken = replace(anchors, name="zeroeval")
    write_pack(data / "anchors" / "mine.pack", "anchor-sets", {"sets": [set_body(taken)]})
    with pytest.raises(PackError, match="another anchor set 'zeroeval'"):
        load_anchor_sets()
