"""Packed vectors and the exact searches: the same answer as a scan of everything, for any data; errors in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_edge.encoding.nearest import ExactIndex, PackedIndex, check_vectors, from_body, pack_vectors
from scope_edge.errors import AssetError, PackError, UsageError
from scope_edge.storage.packs import read_pack, write_pack


def unit(rows: Any) -> Any:
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def embeddings(seed: int, n: int, d: int, *, clusters: int = 7, spread: float = 0.5, copies: int = 0) -> Any:
    """Vectors as encoders make them: a common direction, clusters, variance falling along hidden axes, some repeated."""
    rng = np.random.default_rng(seed)
    fall = np.arange(1, d + 1) ** -0.5
    turn, _ = np.linalg.qr(rng.standard_normal((d, d)))
    centres = rng.standard_normal((clusters, d)) * fall + 0.5 * fall
    rows = centres[rng.integers(clusters, size=n)] + spread * rng.standard_normal((n, d)) * fall
    if copies and n:
        rows[rng.integers(n, size=copies)] = rows[rng.integers(n, size=copies)]
    return unit(rows @ turn.T)


def oracle(vectors: Any, query: Any, k: int) -> tuple[list[int], Any]:
    """The whole scan in float64, ordered in Python."""
    similarities = (np.asarray(vectors, np.float64) * np.asarray(query, np.float64)).sum(axis=1)
    order = sorted(range(len(similarities)), key=lambda i: (-similarities[i], i))[:k]
    return order, similarities[order]


shapes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "n": st.one_of(st.integers(1, 60), st.integers(1_000, 4_000)),
        "d": st.one_of(st.integers(1, 6), st.sampled_from([24, 48])),
        "clusters": st.sampled_from([1, 3, 40]),
        "spread": st.sampled_from([0.001, 0.3, 3.0]),
        "copies": st.sampled_from([0, 5, 500]),
    }
)
FAR = st.sampled_from(["member", "close", "anywhere"])


def query_for(vectors: Any, where: str, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    row = vectors[rng.integers(len(vectors))]
    noise = rng.standard_normal(len(row))
    return {"member": row, "close": unit(row + 0.3 * unit(noise)), "anywhere": unit(noise)}[where]


@given(shapes, FAR, st.sampled_from([1, 3, 10, 100, 5_000]))
def test_plain_scan_is_the_oracle(shape: dict[str, Any], where: str, k: int) -> None:
    vectors = embeddings(**shape)
    query = query_for(vectors, where, shape["seed"])
    ids, similarities = ExactIndex(vectors).search(query, k)
    expected, values = oracle(vectors, query, k)
    assert ids.tolist() == expected
    np.testing.assert_allclose(similarities, values, atol=1e-6)


@given(shapes, FAR, st.sampled_from([1, 3, 10, 100, 5_000]))
def test_packed_search_is_the_oracle_over_the_packed_vectors(shape: dict[str, Any], where: str, k: int) -> None:
    vectors = embeddings(**shape)
    query = query_for(vectors, where, shape["seed"])
    packed = pack_vectors(vectors)
    ids, similarities = PackedIndex(packed).search(query, k)
    turned = packed.rotation @ query
    codes, columns = packed.codes(np.arange(len(packed))).astype(np.float64), packed.columns
    # Sums in another order may swap rows that differ by less than float64 rounding; equal rows never swap.
    values = (codes * (turned * columns).astype(np.float64)).sum(axis=1) * packed.rows
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert ids.tolist() == expected
    unpacked = packed.unpack() @ query
    np.testing.assert_allclose(similarities, unpacked[ids], atol=2e-6)
    if len(ids) < len(packed):
        assert np.delete(unpacked, ids).max() <= similarities[-1] + 2e-6


def test_ties_go_to_the_lower_row() -> None:
    vectors = np.repeat(embeddings(1, 400, 24), 5, axis=0)
    query = unit(vectors[100] + 0.1 * vectors[7])
    for index in (ExactIndex(vectors), PackedIndex(pack_vectors(vectors))):
        ids, similarities = index.search(query, 15)
        assert ids.tolist()[:5] == [100, 101, 102, 103, 104]
        for a, b in zip(range(14), range(1, 15), strict=True):
            assert (similarities[a], -ids[a]) >= (similarities[b], -ids[b])


@pytest.mark.parametrize("n", [0, 1, 3])
def test_few_vectors_and_large_k(n: int) -> None:
    vectors = embeddings(2, n, 12) if n else np.empty((0, 12), np.float32)
    for index in (ExactIndex(vectors), PackedIndex(pack_vectors(vectors))):
        assert len(index) == n
        for k in (0, 1, 100):
            ids, similarities = index.search(embeddings(3, 1, 12)[0], k)
            assert len(ids) == len(similarities) == min(k, n)
            assert ids.dtype == np.int64
            assert similarities.dtype == np.float32


def test_similarities_are_cosines() -> None:
    vectors = embeddings(4, 2_000, 48)
    for index in (ExactIndex(vectors), PackedIndex(pack_vectors(vectors))):
        ids, similarities = index.search(vectors[5], 2_000)
        assert ids[0] == 5
        assert similarities[0] == pytest.approx(1, abs=1e-3)
        assert -1 <= similarities.min() <= similarities.max() <= 1
        assert np.linalg.norm(pack_vectors(vectors).unpack(), axis=1) == pytest.approx(1, abs=1e-5)


def test_packing_keeps_vectors_and_their_neighbors() -> None:
    vectors, queries = embeddings(5, 3_000, 96, clusters=30), embeddings(6, 50, 96, clusters=30)
    packed = pack_vectors(vectors)
    assert (packed.unpack() * vectors).sum(axis=1).min() > 0.999
    exact, index = ExactIndex(vectors), PackedIndex(packed)
    shared = [len(set(exact.search(q, 10)[0].tolist()) & set(index.search(q, 10)[0].tolist())) for q in queries]
    assert np.mean(shared) >= 9.5


def test_packed_vectors_survive_a_pack(tmp_path: Path) -> None:
    packed = pack_vectors(embeddings(7, 1_500, 24))
    write_pack(tmp_path / "bank.pack", "bank", packed.body())
    again = from_body(read_pack(tmp_path / "bank.pack", "bank"), "bank.pack")
    query = embeddings(8, 1, 24)[0]
    ids, similarities = PackedIndex(again).search(query, 10)
    expected, values = PackedIndex(packed).search(query, 10)
    assert ids.tolist() == expected.tolist()
    assert similarities.tolist() == values.tolist()


@pytest.mark.parametrize("name", ["rotation", "columns", "rows", "rests", "block0", "block3"])
def test_a_body_that_does_not_fit_is_refused(name: str) -> None:
    body = pack_vectors(embeddings(9, 100, 24)).body()
    for wrong in (None, 7, "text", body[name][:-1], body[name].astype(np.float64), body[name][None]):
        with pytest.raises(PackError, match=r"bank\.pack: .*get a fresh copy"):
            from_body({**body, name: wrong}, "bank.pack")
    with pytest.raises(PackError, match=name):
        from_body({key: value for key, value in body.items() if key != name}, "bank.pack")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_bad_vectors_are_named(bad: float) -> None:
    vectors = embeddings(10, 50, 12)
    vectors[31, 3] = bad
    for take in (pack_vectors, lambda rows: check_vectors(rows, "bank")):
        with pytest.raises(AssetError, match="vector 31 of 50 has"):
            take(vectors)


def test_vectors_must_be_unit_rows() -> None:
    vectors = embeddings(11, 50, 12)
    vectors[4] *= 2
    with pytest.raises(AssetError, match=r"bank: vector 4 of 50 has norm 2, expected norm 1"):
        check_vectors(vectors, "bank")
    with pytest.raises(AssetError, match="one vector a row"):
        check_vectors(vectors[0], "bank")


def test_bad_queries_are_refused() -> None:
    vectors = embeddings(12, 50, 12)
    broken = vectors[0].copy()
    broken[1] = np.nan
    for index in (ExactIndex(vectors), PackedIndex(pack_vectors(vectors))):
        with pytest.raises(UsageError, match="not finite"):
            index.search(broken, 3)
        with pytest.raises(UsageError, match=r"\(5,\).*12 dimensions"):
            index.search(vectors[0][:5], 3)


def test_packed_vectors_are_values() -> None:
    packed = pack_vectors(embeddings(13, 10, 12))
    with pytest.raises(dataclasses.FrozenInstanceError):
        packed.rows = packed.rows  # type: ignore[misc]
