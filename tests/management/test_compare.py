"""Two models compared: pairs where there are pairs, expectations where there are none, and never more certainty than that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from own_set_cases import own_set, save

from scope_edge.errors import UsageError
from scope_edge.estimation.anchors import set_body
from scope_edge.estimation.fingerprints import Fingerprint, fingerprints_body, load_fingerprints
from scope_edge.estimation.irt import IrtEstimator, load_irt_model
from scope_edge.factory import open_catalog
from scope_edge.management.compare import FEW, Comparison, compare, paired
from scope_edge.settings.config import load_settings
from scope_edge.storage.packs import write_pack

A, B = "qwen2.5-7b-instruct", "gemma-2-2b-it"
CARDS = '[models.one]\nwhere = "cloud"\n[models.two]\nwhere = "cloud"\n'


@pytest.fixture(autouse=True)
def data(own_folders: Path) -> Path:
    (own_folders / "config.toml").write_text(CARDS)
    return own_folders / "data"


def compared(a: str, b: str) -> Comparison:
    return compare(open_catalog(load_settings()), a, b)


def test_the_interval_is_that_of_agresti_and_min() -> None:
    n, b, c = 100, 25, 10
    gaps = np.array([1.0] * b + [-1.0] * c + [0.0] * (n - b - c))
    mean, low, high = paired(np.maximum(gaps, 0), np.maximum(-gaps, 0))
    total, first, second = n + 2, b + 0.5, c + 0.5
    middle = (first - second) / total
    half = 1.959964 / total * (first + second - (first - second) ** 2 / total) ** 0.5
    assert mean == pytest.approx(0.15) and (low, high) == pytest.approx((middle - half, middle + half))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draw, truth, covered = np.random.default_rng(3), 0.2, 0
    for _ in range(2000):
        shared = draw.random(18) < 0.5  # both right or both wrong, on half of the anchors
        a, b = (draw.random(18) < 0.5 + 0.2 * sign for sign in (1, -1))
        _, low, high = paired(np.where(shared, 1.0, a), np.where(shared, 1.0, b))
        covered += low <= truth <= high
    assert covered / 2000 > 0.93


def test_one_pair_or_equal_models_show_nothing() -> None:
    for a, b in (([1.0], [0.0]), ([1.0] * 50, [1.0] * 50)):
        _, low, high = paired(np.array(a), np.array(b))
        assert -1 <= low < 0 < high <= 1


def test_bundled_models_are_compared_by_category_on_what_both_answered() -> None:
    found = compared(A, B)
    fingerprints = load_fingerprints()[1]
    first, second = ({one.anchors.name: one for one in fingerprints[model]} for model in (A, B))
    for row in found.shared:
        one, other = first[row.anchor_set], second[row.anchor_set]
        both = np.isfinite(one.correct) & np.isfinite(other.correct)
        if row.category is not None:
            both &= np.array([category == row.category for category in one.anchors.categories])
        assert row.anchors == both.sum() > 0
        assert row.difference == pytest.approx(one.correct[both].mean() - other.correct[both].mean())
        assert row.low <= row.difference <= row.high or row.anchors < 5
        assert row.better == (A if row.low > 0 else B if row.high < 0 else None)
    assert {row.anchor_set for row in found.shared} == set(first) & set(second)
    whole = {row.anchor_set: row for row in found.shared if row.category is None}
    for name, row in whole.items():
        parts = [one.anchors for one in found.shared if one.anchor_set == name and one.category is not None]
        assert sum(parts) == row.anchors


def test_swapped_it_says_the_same_the_other_way_round() -> None:
    one, other = compared(A, B), compared(B, A)
    for row, back in zip(one.shared, other.shared, strict=True):
        assert (row.low, row.high, row.better) == pytest.approx((-back.high, -back.low, back.better))
    assert [row.better for row in one.expected] == [row.better for row in other.expected]


def test_what_is_expected_agrees_with_the_prior() -> None:
    basis = load_irt_model()
    fingerprints = load_fingerprints()[1]
    from scope_edge.factory import open_catalog

    cards = open_catalog(load_settings()).pool([A, B])
    table = IrtEstimator(basis, cards, fingerprints, coverage=0.9).table(
        basis.by_set.places, np.ones(len(basis.by_set))
    )
    for row in compared(A, B).expected:
        number = basis.domains.index(row.anchor_set)
        a, b = table.p_correct[basis.by_set.sets == number].mean(axis=0)
        # Calibration, learned on other models, comes on top there.
        assert (row.a, row.b) == pytest.approx((a, b), abs=0.15)
        assert row.low < row.difference < row.high


def test_models_measured_on_different_anchors_are_said_to_be(data: Path) -> None:
    save(data, own_set("mine"), {"one": 1.0})
    save(data, own_set("other"), {"two": 0.0})
    found = compared("one", "two")
    assert found.shared == () and found.expected
    (note,) = found.notes
    assert "different anchors" in note and "40 of mine" in note and "40 of other" in note


def test_a_few_shared_anchors_are_said_to_be_few(data: Path) -> None:
    anchors = own_set("mine")
    rows = [
        Fingerprint("one", anchors, np.ones(40), np.ones(40)),
        Fingerprint("two", anchors, np.ones(40), np.ones(40)),
    ]
    rows[0].correct[FEW // 2 :] = np.nan
    write_pack(data / "anchors" / "mine.pack", "anchor-sets", {"sets": [set_body(anchors)]})
    write_pack(data / "fingerprints" / "mine.pack", "fingerprints", fingerprints_body({"mine": rows}))
    found = compared("one", "two")
    assert any(f"only {FEW // 2} anchors" in note for note in found.notes)
    assert {row.better for row in found.shared} == {None}
    wide = [row.high - row.low for row in found.expected]
    assert min(wide) > min(row.high - row.low for row in compared(A, B).expected)


def test_who_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="two models"):
        compared(A, A)
    with pytest.raises(UsageError, match="one has no fingerprint; `scope-edge fingerprint one`"):
        compared(A, "one")
    with pytest.raises(UsageError, match="unknown model"):
        compared(A, "nobody")
