"""The user's own anchor sets and fingerprints: loaded after the bundled ones, refused in one line when damaged."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from own_set_cases import MODEL, own_set, save

from scope_edge.cli.render.decision import shown
from scope_edge.encoding import nearest
from scope_edge.encoding.encoder import Encoder
from scope_edge.encoding.nearest import Kind, build_index, pack_vectors
from scope_edge.errors import PackError
from scope_edge.estimation.ability import fit_ability
from scope_edge.estimation.anchors import (
    BUNDLED,
    AnchorSet,
    Bank,
    load_bank,
    load_bank_vectors,
    set_body,
    set_from_body,
)
from scope_edge.estimation.fingerprints import Fingerprint, fingerprints_body, load_anchor_sets, load_fingerprints
from scope_edge.estimation.irt import load_irt_model
from scope_edge.factory import load_pipeline
from scope_edge.settings.config import load_settings
from scope_edge.storage.packs import write_pack
from scope_edge.types import Query


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


def test_multilingual_vectors_survive_the_pack_and_stay_unknown_where_they_are() -> None:
    anchors = own_set()
    assert anchors.multilingual is None and set_from_body(set_body(anchors), "here").multilingual is None
    made = np.random.default_rng(0).standard_normal((len(anchors), 512)).astype(np.float16).astype(np.float32)
    again = set_from_body(set_body(replace(anchors, multilingual=made)), "here").multilingual
    assert again is not None and again.dtype == np.float32 and np.array_equal(again, made)
    few = replace(anchors, multilingual=made).take([3, 1]).multilingual
    assert few is not None and np.array_equal(few, made[[3, 1]])
    assert anchors.take([3, 1]).multilingual is None
    for broken in (made[:-1], made[:, 1:], 7):
        with pytest.raises(PackError, match="not a usable anchor set"):
            set_from_body({**set_body(anchors), "multilingual": broken}, "here")


def test_bundled_sets_have_no_text_and_are_not_the_users_own(data: Path) -> None:
    before = load_anchor_sets()
    assert all(one.texts == () and not one.own for one in before)
    save(data, own_set(), {MODEL: 1.0})
    after = load_anchor_sets()
    assert [one.name for one in after] == [*(one.name for one in before), "mine"]
    assert after[-1].own
    assert after[-1].texts[3] == "What is 3 plus 3?"


def test_a_model_is_fitted_on_bundled_and_own_outcomes_together(data: Path) -> None:
    population = load_irt_model().population
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


def far_from_the_bank(name: str, rows: int) -> AnchorSet:
    """A user's set whose embeddings are of real texts, each turned a little so that no two are the same."""
    one, bank = own_set(name, 1).take([0] * rows), load_bank_vectors()
    noise = np.random.default_rng(7).standard_normal((rows, bank.shape[1])) * 0.02
    vectors = bank[np.arange(rows) * 5 % len(bank)] + noise
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return replace(one, ids=tuple(f"{name}/{i}" for i in range(rows)), vectors=unit)


def test_neighbors_are_found_among_bundled_and_own_anchors_and_say_where_from() -> None:
    mine, plain = far_from_the_bank("mine", 200), load_bank("exact")
    both = load_bank("auto", own=[mine])
    assert len(both) == len(plain) + 200 and both.note is None
    for row in (0, 7, 199):
        vector = mine.vectors[row]
        first, *rest = both.nearest(vector, 11)
        assert (first.anchor, first.category, first.source) == (mine.ids[row], mine.categories[row], "mine")
        bundled = [one for one in rest if one.source == BUNDLED]
        assert bundled == [*plain.nearest(vector, len(bundled))]
        similarity = plain.nearest(vector, 1)[0].similarity
        assert both.similarity(vector, (first, *rest)) == both.similarity(vector, (first,)) == similarity


def test_with_enough_anchors_of_ones_own_a_graph_finds_what_exact_search_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hnswlib")
    real = load_bank_vectors()[::3]
    ids, packed = [f"bundled/{i}" for i in range(3_000)], pack_vectors(real[:3_000])
    mine = replace(far_from_the_bank("mine", 1_000), vectors=real[3_000:4_000])

    def bank(kind: Kind) -> Bank:
        index = build_index(packed, kind, own=mine.vectors, cache_dir=tmp_path, identity="some of the bank")
        return Bank(ids, ids, index, [mine], build_index(packed, "exact", cache_dir=None, identity=""))

    monkeypatch.setattr(nearest, "EXACT_BELOW", 4_001)
    exact = bank("auto")
    assert not list(tmp_path.iterdir()), "one fewer than the graph begins at"
    monkeypatch.setattr(nearest, "EXACT_BELOW", 4_000)
    graph = bank("auto")
    assert len(list(tmp_path.glob("hnsw-*.bin"))) == 1
    shared = 0
    sources = set()
    for vector in real[4_000:4_200]:
        found, true = graph.nearest(vector, 10), exact.nearest(vector, 10)
        # The bank has near copies: which of two equally near ones is found does not matter.
        shared += sum(one.similarity >= true[-1].similarity - 1e-4 for one in found)
        sources |= {one.source for one in found}
        assert graph.similarity(vector, found) == pytest.approx(exact.similarity(vector, true), abs=1e-4)
    assert shared >= 0.99 * 10 * 200
    assert sources == {BUNDLED, "mine"}


def test_own_neighbors_are_in_the_decision_and_change_no_estimate(data: Path) -> None:
    query, settings = Query("How many primes are there below one hundred?"), load_settings()
    before = load_pipeline(settings).route(query, settings.preference())
    assert {one.source for one in before.neighbors} == {BUNDLED}
    encoder = Encoder.load()
    mine = own_set(rows=3)
    vectors = np.array([encoder.encode(Query(f"{query.text} {word}")).vector for word in ("Say it.", "Ok?", "Now.")])
    save(data, replace(mine, vectors=vectors), {"of-no-pool": 1.0})
    after = load_pipeline(settings).route(query, settings.preference())
    assert [one.source for one in after.neighbors[:3]] == ["mine"] * 3
    assert after.as_dict()["neighbors"][0]["source"] == "mine"
    assert [one.evidence for one in after.candidates] == [one.evidence for one in before.candidates]
    text = shown(after, explain=True, width=200, value_of_time=0)
    assert re.search(r"^ +0\.9\d\d  .*  mine +mine/0$", text, re.MULTILINE)


def test_own_anchors_do_not_move_what_alpha_means(data: Path) -> None:
    query, settings = Query("How many primes are there below one hundred?"), load_settings({"alpha": 0.6})
    before = load_pipeline(settings).route(query, settings.preference())
    save(data, own_set(rows=250), {"of-no-pool": 1.0})
    after = load_pipeline(settings).route(query, settings.preference())
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
        load_pipeline(load_settings())
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
    assert load_pipeline(load_settings()).route(Query("What is 2 plus 2?"), load_settings().preference()).choice


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
