"""Bank and core sets as bundled: no question text, complete, searchable; damaged ones refused in one line."""

from __future__ import annotations

import numpy as np
import pytest

from scope_edge.encoding.encoder import Encoder
from scope_edge.errors import AssetError, PackError
from scope_edge.estimation.anchors import BANK, CORE, Bank, load_bank, set_body, set_from_body
from scope_edge.estimation.fingerprints import (
    FINGERPRINTS,
    fingerprint_names,
    fingerprints_body,
    load_anchor_sets,
    load_fingerprints,
    slice_of,
)
from scope_edge.estimation.irt import MAP
from scope_edge.factory import open_catalog
from scope_edge.settings.config import Settings
from scope_edge.storage import assets
from scope_edge.storage.packs import unpack, write_pack
from scope_edge.types import Query

PACKS = ((BANK, "bank"), (CORE, "anchor-sets"), (FINGERPRINTS, "fingerprints"), (MAP, "map"))


@pytest.fixture(scope="module")
def bank() -> Bank:
    return load_bank("exact")


def test_neighbors_are_of_the_same_kind_as_the_query(bank: Bank) -> None:
    encoder = Encoder.load()
    law = encoder.encode(Query("A landlord fails to repair the roof. May the tenant withhold rent under common law?"))
    code = encoder.encode(
        Query("What does this return?\ndef f(xs):\n    return [x for x in xs if x % 2]\nf([1, 2, 3])")
    )
    assert [n.category for n in bank.nearest(law.vector, 5)].count("mmlu_pro/law") >= 3
    assert [n.category for n in bank.nearest(code.vector, 5)].count("zeroeval/code-reasoning") >= 3


def test_neighbors_come_nearest_first_and_as_many_as_asked(bank: Bank) -> None:
    vector = np.zeros(384, np.float32)
    vector[3] = 1
    found = bank.nearest(vector, 25)
    assert len(found) == 25
    assert [n.similarity for n in found] == sorted((n.similarity for n in found), reverse=True)


def test_the_packs_stay_small() -> None:
    assert sum(assets.manifest()[name].size for name, _ in PACKS) <= 14_500_000


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [s for k, v in value.items() for s in _strings(k) + _strings(v)]
    if isinstance(value, (list, tuple)):
        return [s for v in value for s in _strings(v)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize(("name", "kind"), PACKS)
def test_no_pack_holds_a_question(name: str, kind: str) -> None:
    # Ids, categories, models and set names only: nothing as long as a sentence.
    for text in _strings(unpack(assets.read(name), kind, name)):
        assert len(text.split()) <= 2
        assert len(text) < 120


def test_core_sets_are_ordered_and_cover_their_set() -> None:
    for anchors in load_anchor_sets():
        assert 100 <= len(anchors) == len(set(anchors.ids)) <= 250
        assert np.linalg.norm(anchors.vectors, axis=1) == pytest.approx(1, abs=1e-3)
        assert (anchors.discrimination > 0).all()
        # The first tenth already spans several categories if there are many, so a short run is not about one field.
        assert len(set(anchors.categories[:25])) >= min(3, len(set(anchors.categories)) - 2)


def test_every_model_with_a_card_has_a_fingerprint_and_the_other_way_round() -> None:
    cards = {card.id for card in open_catalog(Settings()).cards}
    assert set(fingerprint_names()) == cards


def test_outcomes_are_shares_or_missing_and_lengths_positive_or_missing() -> None:
    for parts in load_fingerprints()[1].values():
        for one in parts:
            known = one.correct[~np.isnan(one.correct)]
            assert len(known) >= 25
            assert ((known >= 0) & (known <= 1)).all()
            assert (one.tokens[~np.isnan(one.tokens)] > 0).all()


def test_a_slice_leaves_out_what_was_not_measured() -> None:
    parts = load_fingerprints()[1]["qwen2.5-7b-instruct"]
    found = slice_of("qwen2.5-7b-instruct", parts, parts[0].anchors.vectors[0], 50)
    assert len(found.neighbors) == len(found.outcomes) == 50
    assert all(outcome.correct is not None for outcome in found.outcomes)


def test_an_anchor_set_survives_its_pack() -> None:
    anchors = load_anchor_sets()[0]
    again = set_from_body(set_body(anchors), "here")
    assert again.ids == anchors.ids
    assert again.difficulty == pytest.approx(anchors.difficulty)
    body = set_body(anchors)
    with pytest.raises(PackError, match="different lengths"):
        set_from_body({**body, "difficulty": body["difficulty"][:-1]}, "here")
    with pytest.raises(PackError, match="traits"):
        set_from_body({k: v for k, v in body.items() if k != "traits"}, "here")


@pytest.fixture
def copied_assets(tmp_path, monkeypatch):  # type: ignore[no-untyped-def]
    """A writable copy of the bundled files, in use."""
    for name in assets.manifest():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((assets.bundled_root() / name).read_bytes())
    for name in ("models/manifest.toml", "anchors/manifest.toml"):
        (tmp_path / name).write_bytes((assets.bundled_root() / name).read_bytes())
    monkeypatch.setenv("SCOPE_EDGE_ASSETS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "load"), [(BANK, load_bank), (CORE, load_anchor_sets), (FINGERPRINTS, load_fingerprints)]
)
def test_a_damaged_bundled_pack_is_named(copied_assets, name, load) -> None:  # type: ignore[no-untyped-def]
    blob = bytearray((copied_assets / name).read_bytes())
    blob[len(blob) // 2] ^= 1
    (copied_assets / name).write_bytes(blob)
    with pytest.raises(AssetError, match=name) as error:
        load()
    assert "\n" not in str(error.value)


def test_fingerprints_of_another_anchor_set_are_refused(copied_assets, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    name = load_anchor_sets()[0].name
    rows = [parts[0] for parts in load_fingerprints()[1].values() if parts[0].anchors.name == name]
    body = fingerprints_body({name: rows})
    body["sets"][name]["correct"] = body["sets"][name]["correct"][:, :-1]
    write_pack(copied_assets / FINGERPRINTS, "fingerprints", body)
    monkeypatch.setattr(assets, "read", lambda wanted: (copied_assets / wanted).read_bytes())
    with pytest.raises(PackError, match=name):
        load_fingerprints()
