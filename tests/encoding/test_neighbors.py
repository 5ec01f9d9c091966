"""Choosing and caching an index: HNSW agrees with exact search, and no state of its cache can crash or mislead."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_edge.encoding.nearest import EXACT_BELOW, ExactIndex, build_index, pack_vectors
from scope_edge.errors import AssetError, UsageError
from scope_edge.storage.packs import read_pack, write_pack

hnswlib = pytest.importorskip("hnswlib")
from scope_edge.encoding.hnsw import GraphParameters  # noqa: E402

N, D = 1_500, 16
QUICK = GraphParameters(links=8, width_build=40, width_search=40)


def embeddings(seed: int, n: int = N, d: int = D) -> Any:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((40, d))[rng.integers(40, size=n)] + 0.5 * rng.standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


VECTORS = embeddings(0)
QUERIES = embeddings(1, 40)


def recall(index: Any, vectors: Any = VECTORS, queries: Any = QUERIES, k: int = 10) -> float:
    exact = ExactIndex(vectors)
    return float(np.mean([len(set(index.search(q, k)[0]) & set(exact.search(q, k)[0])) / k for q in queries]))


def hnsw(cache: Path | None, vectors: Any = VECTORS, identity: str = "bank-1", p: GraphParameters = QUICK) -> Any:
    return build_index(vectors, "hnsw", cache_dir=cache, identity=identity, parameters=p)


def state(cache: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in cache.iterdir()}


def graph_file(cache: Path) -> Path:
    (path,) = cache.glob("hnsw-*.bin")
    return path


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True)


def test_auto_is_exact_below_the_limit_and_a_graph_above() -> None:
    large = embeddings(2, EXACT_BELOW, 8)
    assert build_index(large[:-1], "auto", cache_dir=None, identity="small").kind == "exact"
    index = build_index(large, "auto", cache_dir=None, identity="large", parameters=QUICK)
    assert (index.kind, index.note, len(index)) == ("hnsw", None, EXACT_BELOW)


@pytest.mark.parametrize("vectors", [VECTORS, pack_vectors(VECTORS)], ids=["float32", "packed"])
def test_either_kind_can_be_forced(vectors: Any) -> None:
    exact = build_index(vectors, "exact", cache_dir=None, identity="x")
    graph = build_index(vectors, "hnsw", cache_dir=None, identity="x")
    assert (exact.kind, graph.kind) == ("exact", "hnsw")
    assert recall(exact) >= 0.95
    assert recall(graph) >= 0.95


def test_the_default_graph_finds_99_of_100_neighbors() -> None:
    vectors, queries = embeddings(3, 6_000, 32), embeddings(4, 100, 32)
    assert recall(build_index(vectors, "hnsw", cache_dir=None, identity="x"), vectors, queries) >= 0.99


def test_a_graph_answers_in_the_same_form_as_exact_search() -> None:
    graph, exact = hnsw(None), ExactIndex(VECTORS)
    for query in QUERIES:
        ids, similarities = graph.search(query, 5)
        assert (ids.dtype, similarities.dtype) == (np.int64, np.float32)
        assert (np.diff(similarities) <= 0).all()
        np.testing.assert_allclose(similarities, VECTORS[ids] @ query, atol=1e-5)
    twins = np.repeat(VECTORS[:300], 3, axis=0)
    ids, _ = hnsw(None, twins).search(twins[30], 3)
    assert ids.tolist() == [30, 31, 32]
    assert graph.search(QUERIES[0], 0)[0].tolist() == exact.search(QUERIES[0], 0)[0].tolist() == []


@pytest.mark.parametrize("k", [N - 1, N, 10 * N])
def test_k_near_or_above_the_number_of_vectors(k: int) -> None:
    sparse = hnsw(None, p=GraphParameters(links=2, width_build=4, width_search=4))
    expected = ExactIndex(VECTORS).search(QUERIES[0], k)
    ids, similarities = sparse.search(QUERIES[0], k)
    assert len(ids) == min(k, N)
    assert len(set(ids.tolist())) == len(ids)
    np.testing.assert_allclose(similarities, expected[1], atol=1e-5)


def test_a_cached_graph_is_used_again(tmp_path: Path) -> None:
    first = hnsw(tmp_path / "made" / "on demand")
    before = state(tmp_path / "made" / "on demand")
    second = hnsw(tmp_path / "made" / "on demand")
    assert state(tmp_path / "made" / "on demand") == before
    assert len(before) == 2
    assert first.note is second.note is None
    for query in QUERIES:
        assert first.search(query, 10)[0].tolist() == second.search(query, 10)[0].tolist()


@pytest.mark.parametrize(
    "changed",
    [
        {"identity": "bank-2"},
        {"vectors": embeddings(5)},
        {"vectors": embeddings(0, N - 1)},
        {"p": GraphParameters(links=9, width_build=40, width_search=40)},
    ],
    ids=["identity", "other vectors under the same identity", "number", "parameters"],
)
def test_a_stale_cache_is_rebuilt_and_replaced(tmp_path: Path, changed: dict[str, Any]) -> None:
    hnsw(tmp_path)
    before = state(tmp_path)
    index = hnsw(tmp_path, **changed)
    assert recall(index, changed.get("vectors", VECTORS)) >= 0.9
    after = state(tmp_path)
    assert len(after) == 2
    assert not set(before.values()) & set(after.values())
    hnsw(tmp_path, **changed)
    assert state(tmp_path) == after


@pytest.fixture(scope="module")
def good_cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("good")
    hnsw(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_survives(cache: Path) -> None:
    """The index works, and so does the cache it leaves behind."""
    assert recall(hnsw(cache)) >= 0.9
    after = state(cache)
    assert recall(hnsw(cache)) >= 0.9
    assert state(cache) == after


@given(st.sampled_from(["graph", "sidecar"]), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, good_cache: dict[str, bytes], which: str, where: float, bit: int
) -> None:
    cache = tmp_path_factory.mktemp("flipped")
    for name, blob in good_cache.items():
        damaged = bytearray(blob)
        if name.endswith(".bin") == (which == "graph"):
            damaged[int(where * len(blob))] ^= 1 << bit
        (cache / name).write_bytes(damaged)
    before = state(cache)
    assert_survives(cache)
    assert state(cache) != before


@pytest.mark.parametrize("target", ["graph", "sidecar"])
@pytest.mark.parametrize(
    "change",
    [
        lambda blob: b"",
        lambda blob: blob[:-1],
        lambda blob: blob[: len(blob) // 2],
        lambda blob: blob + b"\0",
        lambda blob: blob + b"\0" * 200_000,
        lambda blob: b"GGUF" + os.urandom(len(blob) - 4),
        None,
    ],
    ids=["empty", "one short", "half", "one more", "oversized", "foreign", "missing"],
)
def test_a_cache_file_that_is_not_what_it_was(
    tmp_path: Path, good_cache: dict[str, bytes], target: str, change: Any
) -> None:
    for name, blob in good_cache.items():
        hit = name.endswith(".bin") == (target == "graph")
        if not hit or change is not None:
            (tmp_path / name).write_bytes(change(blob) if hit else blob)
    assert_survives(tmp_path)


def test_a_whole_but_wrong_sidecar_is_not_believed(tmp_path: Path, good_cache: dict[str, bytes]) -> None:
    for name, blob in good_cache.items():
        (tmp_path / name).write_bytes(blob)
    body = read_pack(tmp_path / "hnsw.pack", "hnsw-cache")
    for change in (
        {"sha256": "0" * 64},
        {"sha256": 7},
        {"size": 1},
        {"size": "big"},
        {"file": "gone.bin"},
        {"file": 3},
        {"library": "hnswlib 0.1"},
    ):
        write_pack(tmp_path / "hnsw.pack", "hnsw-cache", {**body, **change})
        assert_survives(tmp_path)
    write_pack(tmp_path / "hnsw.pack", "bank", body)
    assert_survives(tmp_path)


def test_a_folder_that_cannot_be_made_leaves_an_index_without_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    index = hnsw(tmp_path / "file" / "cache")
    assert recall(index) >= 0.9
    assert index.note is not None
    assert "could not be cached" in index.note
    assert "\n" not in index.note


def test_a_full_disk_leaves_no_half_graph(tmp_path: Path) -> None:
    # hnswlib does not report failing writes; the limit makes them fail as a full disk does.
    code = """
        import resource, sys
        import numpy as np
        from pathlib import Path
        from scope_edge.encoding.nearest import build_index
        vectors = np.eye(64, dtype=np.float32)[np.arange(640) % 64]
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        index = build_index(vectors, "hnsw", cache_dir=Path(sys.argv[1]), identity="x")
        print(index.note, index.search(vectors[3], 1)[1])
    """
    done = run(code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "could not be cached" in done.stdout
    assert "[1.]" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_read_and_not_written(tmp_path: Path) -> None:
    hnsw(tmp_path)
    tmp_path.chmod(0o555)
    try:
        assert hnsw(tmp_path).note is None
        assert "could not be cached" in hnsw(tmp_path, identity="bank-2").note
    finally:
        tmp_path.chmod(0o755)


def test_processes_may_build_the_cache_at_once(tmp_path: Path) -> None:
    code = """
        import sys
        import numpy as np
        from pathlib import Path
        from scope_edge.encoding.hnsw import GraphParameters
        from scope_edge.encoding.nearest import build_index
        vectors, cache = np.load(sys.argv[1]), Path(sys.argv[2])
        sys.stdin.readline()
        for _ in range(4):
            index = build_index(vectors, "hnsw", cache_dir=cache, identity="bank-1",
                                parameters=GraphParameters(links=8, width_build=40, width_search=40))
            assert index.note is None, index.note
            assert index.search(vectors[7], 1)[0][0] == 7
    """
    np.save(tmp_path / "vectors.npy", VECTORS)
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "vectors.npy"), str(cache)]
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True) for _ in range(3)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        _, errors = child.communicate(timeout=300)
        assert child.returncode == 0, errors
    assert_survives(cache)
    assert {path.suffix for path in cache.iterdir()} == {".bin", ".pack"}


BLOCKED = """
    import sys
    sys.modules["hnswlib"] = None
    import numpy as np
    from scope_edge.errors import MissingExtraError
    from scope_edge.encoding.nearest import EXACT_BELOW, build_index
    vectors = np.eye(8, dtype=np.float32)[np.arange(EXACT_BELOW) % 8]
    index = build_index(vectors, "auto", cache_dir=None, identity="x")
    print(index.kind, index.search(vectors[5], 2)[0].tolist(), index.note)
    try:
        build_index(vectors[:100], "hnsw", cache_dir=None, identity="x")
    except MissingExtraError as error:
        print(error.exit_code, error)
"""


def test_without_hnswlib_auto_is_exact_and_says_so_and_hnsw_is_refused() -> None:
    done = run(BLOCKED)
    assert done.returncode == 0, done.stderr
    degraded, refused = done.stdout.splitlines()
    assert degraded.startswith("exact [5, 13] exact search over 20000 vectors as hnswlib is not installed")
    assert refused.startswith("2 index hnsw needs hnswlib, which is not installed; pip install")


def test_hnswlib_is_imported_only_when_a_graph_is_wanted() -> None:
    code = """
        import sys
        import numpy as np
        from scope_edge.encoding.nearest import build_index
        build_index(np.eye(8, dtype=np.float32), "auto", cache_dir=None, identity="x")
        assert "hnswlib" not in sys.modules
    """
    assert run(code).returncode == 0


def test_bad_vectors_and_kinds_are_refused() -> None:
    broken = VECTORS.copy()
    broken[3, 2] = np.nan
    for kind in ("auto", "exact", "hnsw"):
        with pytest.raises(AssetError, match="vectors bank-1: vector 3 of 1500 has values that are not finite"):
            build_index(broken, kind, cache_dir=None, identity="bank-1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="choose auto, exact or hnsw"):
        build_index(VECTORS, "fast", cache_dir=None, identity="bank-1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not finite"):
        hnsw(None).search(broken[3], 3)
