"""A graph for approximate search (Malkov and Yashunin, arXiv 1603.09320), and its cache. The only file with hnswlib.

hnswlib trusts its files: one flipped bit ends the process. So it loads a private copy, after a check of the sha256 recorded
when the graph was built.
"""

from __future__ import annotations

import contextlib
import platform
import secrets
import shutil
import struct
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hnswlib
import numpy as np

from scope_edge.encoding.nearest import ExactIndex, best, check_query
from scope_edge.errors import AssetError
from scope_edge.storage.files import file_sha256, whole_file
from scope_edge.storage.packs import read_pack, write_pack

if TYPE_CHECKING:
    from scope_edge.encoding.nearest import Ids
    from scope_edge.types import Vector

_SIDECAR, _KIND, _SIDECAR_BYTES = "hnsw.pack", "hnsw-cache", 64 * 1024
_GRAPHS = "hnsw-*.bin"


@dataclass(frozen=True, slots=True)
class GraphParameters:
    """links: neighbors kept per vector; width_build, width_search: how many candidates are followed at a time.

    The defaults are the cheapest found to reach 0.99 of the true ten nearest at 100,000 vectors (docs/benchmarks.md).
    """

    links: int = 24
    width_build: int = 200
    width_search: int = 256
    seed: int = 100


class HnswIndex:
    """Approximate search in a graph that hnswlib holds, vectors included."""

    kind = "hnsw"

    def __init__(self, graph: Any, note: str | None = None) -> None:
        self.note = note
        self._graph = graph

    def __len__(self) -> int:
        return int(self._graph.get_current_count())

    def search(self, vector: Vector, k: int) -> tuple[Ids, Vector]:
        """Find the k nearest vectors, missing about one in a hundred: see `nearest.Index`."""
        query = check_query(vector, self._graph.dim)
        wanted = min(k, len(self))
        if wanted <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        try:
            ids, distances = self._graph.knn_query(query, k=wanted, num_threads=1)
        except RuntimeError:
            # The walk met fewer than k vectors, which happens when k comes near n: then scan all of them.
            return ExactIndex(np.asarray(self._graph.get_items(np.arange(len(self))), np.float32)).search(query, k)
        return best(ids[0].astype(np.int64), 1.0 - distances[0].astype(np.float64), wanted)


@dataclass(frozen=True, slots=True)
class GraphBuilder:
    """Builds the graph of some vectors, or loads it from a cache.

    The cache is two files: the graph, never changed once written, and the sidecar, a pack with the graph's file name and
    inputs. Two processes that build at once each write a graph of their own; the last sidecar counts.
    """

    vectors: Vector
    identity: str
    parameters: GraphParameters

    def index(self, cache_dir: Path | None) -> HnswIndex:
        """Load or build the graph. cache_dir: None = no cache."""
        graph = None if cache_dir is None else self._load(cache_dir)
        if graph is not None:
            return HnswIndex(graph)
        graph = self._build()
        return HnswIndex(graph, None if cache_dir is None else self._save(graph, cache_dir))

    def _build(self) -> Any:
        n, d = self.vectors.shape
        graph = hnswlib.Index(space="ip", dim=d)
        p = self.parameters
        graph.init_index(max_elements=n, M=p.links, ef_construction=p.width_build, random_seed=p.seed)
        graph.add_items(self.vectors, np.arange(n))
        graph.set_ef(p.width_search)
        return graph

    def _facts(self) -> dict[str, Any]:
        """Return the inputs of a cached graph. The file format follows the machine's word size and order."""
        from importlib import metadata  # slow to import

        n, d = self.vectors.shape
        machine = f"{platform.machine()}, {struct.calcsize('P')} bytes, {sys.byteorder}-endian"
        built = {"identity": self.identity, "n": n, "d": d, "library": f"hnswlib {metadata.version('hnswlib')}"}
        return {**built, "machine": machine, **asdict(self.parameters)}

    def _load(self, cache_dir: Path) -> Any | None:
        """Load the cached graph; None when it is missing, stale, damaged or foreign."""
        import tempfile

        try:
            sidecar = read_pack(cache_dir / _SIDECAR, _KIND, max_bytes=_SIDECAR_BYTES)
            name, digest, size = (sidecar.pop(key, None) for key in ("file", "sha256", "size"))
            if sidecar != self._facts() or not isinstance(name, str) or (cache_dir / name).stat().st_size != size:
                return None
            with tempfile.TemporaryDirectory(prefix="scope-edge-") as folder:
                # Copied, not only checked: nothing can change the bytes between the check and their use.
                copy = shutil.copyfile(cache_dir / name, Path(folder) / "graph.bin")
                return self._read(copy) if file_sha256(copy) == digest else None
        except (AssetError, OSError, RuntimeError, ValueError):
            return None

    def _read(self, path: Path) -> Any | None:
        graph = hnswlib.Index(space="ip", dim=self.vectors.shape[1])
        graph.load_index(str(path), max_elements=len(self.vectors))
        graph.set_ef(self.parameters.width_search)
        if graph.get_current_count() != len(self.vectors):
            return None
        # The identity is the caller's claim; a few vectors verify it.
        some = np.unique(np.linspace(0, len(self.vectors) - 1, 16).astype(np.int64))
        return graph if np.array_equal(np.asarray(graph.get_items(some), np.float32), self.vectors[some]) else None

    def _save(self, graph: Any, cache_dir: Path) -> str | None:
        """Cache the graph; return a sentence for the user if that fails."""
        path = cache_dir / _GRAPHS.replace("*", secrets.token_hex(8))
        try:
            with whole_file(path) as temporary:
                graph.save_index(str(temporary))
                size = temporary.stat().st_size
                # hnswlib does not check whether its writes succeed.
                if size != graph.index_file_size():
                    raise OSError(f"{size} of {graph.index_file_size()} bytes written")
                digest = file_sha256(temporary)
            facts = {**self._facts(), "file": path.name, "sha256": digest, "size": size}
            write_pack(cache_dir / _SIDECAR, _KIND, facts)
            for other in cache_dir.glob(_GRAPHS):
                if other != path:
                    with contextlib.suppress(OSError):  # another process may be reading it
                        other.unlink()
        except (AssetError, OSError, RuntimeError) as error:
            return f"the index could not be cached in {cache_dir} ({error}); it is built anew at every start"
        return None
