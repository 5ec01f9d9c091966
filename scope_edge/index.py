"""Nearest anchors of a query: exact search below 20,000 vectors, an HNSW graph above, behind one interface.

The graph (Malkov and Yashunin, arXiv 1603.09320; library hnswlib, an optional extra) takes a while to build, so it is
cached. hnswlib trusts its files: one flipped bit ends the process. So a cached graph is copied to a private file while
its sha256 is taken, and hnswlib is shown that copy, only when the hash is the one written down at building.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import struct
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

import numpy as np

from scope_edge.errors import MissingExtraError, PackError, UsageError
from scope_edge.packs import read_pack, write_pack
from scope_edge.vectors import ExactIndex, PackedIndex, PackedVectors, best, check_query, check_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from scope_edge.records import Vector
    from scope_edge.vectors import Ids

Kind = Literal["auto", "exact", "hnsw"]

# Below this many vectors exact search is as fast as the graph, and needs no building.
EXACT_BELOW = 20_000
_SIDECAR = "hnsw.pack"
_KIND = "hnsw-cache"
_SIDECAR_BYTES = 64 * 1024
_INSTALL = 'pip install "scope-edge[hnsw]"'


class Index(Protocol):
    """Something that finds the nearest of n unit vectors.

    Attributes:
        kind: "exact" or "hnsw". note: what the user should know about it (slower than asked, not cached), or None.
    """

    kind: str
    note: str | None

    def __len__(self) -> int: ...

    def search(self, vector: Vector, k: int) -> tuple[Ids, Vector]:
        """The k nearest vectors to a unit vector: row numbers (k,) int64 and cosines (k,) float32, best first.

        Ties are ordered by lower row number. With k above n, all n come back.
        Raises UsageError when `vector` has another length or holds values that are not finite.
        """
        ...


@dataclass(frozen=True, slots=True)
class GraphParameters:
    """links: neighbors kept per vector; width_build, width_search: how many candidates are followed at a time.

    The defaults are the cheapest found to reach 0.99 of the true ten nearest at 100,000 vectors (docs/benchmarks.md).
    """

    links: int = 24
    width_build: int = 200
    width_search: int = 256
    seed: int = 100


def build_index(
    vectors: Vector | PackedVectors,
    kind: Kind,
    *,
    cache_dir: Path | None,
    identity: str,
    parameters: GraphParameters | None = None,
) -> Index:
    """The index for these unit vectors, shape (n, d): "auto" picks by n, "exact" and "hnsw" force one.

    Args:
        cache_dir: where to keep a graph between runs; None = nowhere. A folder that cannot be written is no error.
        identity: names these vectors and no others (a hash); a graph cached under another identity is rebuilt.

    Raises MissingExtraError when "hnsw" is asked for and hnswlib is not installed, AssetError when vectors are not finite
    or not of norm 1, UsageError for another kind.
    """
    if kind not in ("auto", "exact", "hnsw"):
        raise UsageError(f"index {kind!r} is not known; choose auto, exact or hnsw")
    if not isinstance(vectors, PackedVectors):
        vectors = check_vectors(vectors, f"vectors {identity}")
    if kind == "exact" or len(vectors) == 0 or (kind == "auto" and len(vectors) < EXACT_BELOW):
        return _exact(vectors, None)
    try:
        import hnswlib
    except ImportError as error:
        if kind == "hnsw":
            raise MissingExtraError(f"index hnsw needs hnswlib, which is not installed; {_INSTALL}") from error
        return _exact(vectors, f"exact search over {len(vectors)} vectors as hnswlib is not installed; {_INSTALL}")
    unpacked = vectors.unpack() if isinstance(vectors, PackedVectors) else vectors
    return _Builder(hnswlib, unpacked, identity, parameters or GraphParameters()).index(cache_dir)


def _exact(vectors: Vector | PackedVectors, note: str | None) -> Index:
    return PackedIndex(vectors, note) if isinstance(vectors, PackedVectors) else ExactIndex(vectors, note)


class HnswIndex:
    """Approximate search in a graph that hnswlib holds, vectors included."""

    kind = "hnsw"

    def __init__(self, graph: Any, note: str | None = None) -> None:
        self.note = note
        self._graph = graph

    def __len__(self) -> int:
        return int(self._graph.get_current_count())

    def search(self, vector: Vector, k: int) -> tuple[Ids, Vector]:
        """The k nearest vectors, about one in a hundred missed: see `Index`."""
        query = check_query(vector, self._graph.dim)
        wanted = min(k, len(self))
        if wanted <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        try:
            ids, distances = self._graph.knn_query(query, k=wanted, num_threads=1)
        except RuntimeError:
            # The walk met fewer than k vectors, which happens when k comes near n: then look at all of them.
            return ExactIndex(np.asarray(self._graph.get_items(np.arange(len(self))), np.float32)).search(query, k)
        return best(ids[0].astype(np.int64), 1.0 - distances[0].astype(np.float64), wanted)


@dataclass(frozen=True, slots=True)
class _Builder:
    """Builds the graph of some vectors, or takes it from a cache.

    The cache is two files: the graph under a name made of its own hash, never changed once written, and the sidecar, a
    pack that says what the graph was built from and which file it is. Two processes that build at once each write a
    graph of their own; whichever sidecar comes last names one that is whole.
    """

    library: ModuleType
    vectors: Vector
    identity: str
    parameters: GraphParameters

    def index(self, cache_dir: Path | None) -> HnswIndex:
        graph = self.load(cache_dir) if cache_dir else None
        if graph is not None:
            return HnswIndex(graph)
        graph = self.build()
        return HnswIndex(graph, self.save(graph, cache_dir) if cache_dir else None)

    def build(self) -> Any:
        n, d = self.vectors.shape
        graph = self.library.Index(space="ip", dim=d)
        p = self.parameters
        graph.init_index(max_elements=n, M=p.links, ef_construction=p.width_build, random_seed=p.seed)
        graph.add_items(self.vectors, np.arange(n))
        graph.set_ef(p.width_search)
        return graph

    def facts(self) -> dict[str, Any]:
        """What a cached graph must have been built from. The file format follows the machine's word size and order."""
        from importlib import metadata  # only where there is a graph: it is slow to import

        n, d = self.vectors.shape
        machine = f"{platform.machine()}, {struct.calcsize('P')} bytes, {sys.byteorder}-endian"
        library = f"hnswlib {metadata.version('hnswlib')}"
        vectors = {"identity": self.identity, "n": n, "d": d}
        return {**vectors, "library": library, "machine": machine, **asdict(self.parameters)}

    def load(self, cache_dir: Path) -> Any | None:
        """The cached graph; None when there is none, or it is stale, damaged or foreign."""
        try:
            sidecar = read_pack(cache_dir / _SIDECAR, _KIND, max_bytes=_SIDECAR_BYTES)
            digest, size = sidecar.pop("sha256", None), sidecar.pop("size", None)
            if sidecar != self.facts() or not isinstance(digest, str) or not isinstance(size, int):
                return None
            with _verified_copy(cache_dir / _graph_name(digest), digest, size) as copy:
                return self.read(copy) if copy else None
        except (PackError, OSError, RuntimeError):
            return None

    def read(self, path: Path) -> Any | None:
        graph = self.library.Index(space="ip", dim=self.vectors.shape[1])
        graph.load_index(str(path), max_elements=len(self.vectors))
        graph.set_ef(self.parameters.width_search)
        # The identity is the caller's word; a few vectors tell whether it was kept.
        some = np.unique(np.linspace(0, len(self.vectors) - 1, 16).astype(np.int64))
        same = graph.get_current_count() == len(self.vectors) and np.array_equal(
            np.asarray(graph.get_items(some), np.float32), self.vectors[some]
        )
        return graph if same else None

    def save(self, graph: Any, cache_dir: Path) -> str | None:
        """Cache the graph; what to tell the user when that cannot be done."""
        import tempfile

        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".building-", dir=cache_dir)
            os.close(handle)
            temporary = Path(name)
            try:
                digest, size = self.write(graph, temporary)
                temporary.replace(cache_dir / _graph_name(digest))
            finally:
                temporary.unlink(missing_ok=True)
            write_pack(cache_dir / _SIDECAR, _KIND, {**self.facts(), "sha256": digest, "size": size})
            for other in cache_dir.glob(_graph_name("*")):
                if other.name != _graph_name(digest):
                    # Another process may be reading it, which some systems take as a reason to keep it.
                    with contextlib.suppress(OSError):
                        other.unlink()
        except (PackError, OSError, RuntimeError) as error:
            return f"the index could not be cached in {cache_dir} ({error}); it is built anew at every start"
        return None

    def write(self, graph: Any, path: Path) -> tuple[str, int]:
        """Write the graph; its sha256 and size. Raises OSError when the disk did not take all of it."""
        graph.save_index(str(path))
        size = path.stat().st_size
        # hnswlib does not look whether its writes succeed.
        if size != graph.index_file_size():
            raise OSError(f"{size} of {graph.index_file_size()} bytes written")
        with path.open("rb+") as file:
            digest = _digest(file)
            os.fsync(file.fileno())
        return digest, size


def _graph_name(digest: str) -> str:
    return f"hnsw-{digest}.bin"


@contextlib.contextmanager
def _verified_copy(path: Path, digest: str, size: int) -> Iterator[Path | None]:
    """A private copy of a file, there while the context lasts; None when its size or hash is not the expected one.

    Copied, not only checked, so that nothing can change the bytes between the check and their use.
    """
    import tempfile

    if path.stat().st_size != size:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="scope-edge-") as folder:
        copy = Path(folder) / "graph.bin"
        with path.open("rb") as source, copy.open("xb") as target:
            found = _digest(source, target)
        yield copy if found == digest else None


def _digest(source: BinaryIO, target: BinaryIO | None = None) -> str:
    """The sha256 of a file, hex, copying it on the way when there is a target."""
    seen = hashlib.sha256()
    while chunk := source.read(1 << 20):
        seen.update(chunk)
        if target is not None:
            target.write(chunk)
    return seen.hexdigest()
