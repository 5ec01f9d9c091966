"""Choose the map's landmarks: randomly pivoted Cholesky (Chen, Epperly, Tropp and Webber 2023, arXiv 2207.06503)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.difficulty import DifficultyMap
    from scope_edge.training.dataset import Pooled
    from scope_edge.types import Floats, Vector

# Landmarks that are chosen at once.
_BLOCK = 128
# Of the kernel's largest value; more than the error of float32 products.
_NUGGET, _MORE = 1e-4, 1e-2


def choose_landmarks(bare: DifficultyMap, data: Pooled, weights: Floats, count: int) -> NDArray[np.int64]:
    """Return `count` queries that span the kernel of difficulty, fewer if fewer have a weight.

    Each is drawn in proportion to its weight (n,), which is what it tells, and to the part of its kernel that those before it
    leave unexplained. So regions full of near copies get few landmarks, and regions that tell much get many.
    """
    from scipy.linalg import solve_triangular

    from scope_edge.training.fit_map import kernel_rows, spanned

    rng = np.random.default_rng(0)
    most = float(bare.mix[0].sum())
    left = np.full(len(data), most)
    explained: Vector = np.zeros((len(data), count), np.float32)
    chosen: list[int] = []
    while len(chosen) < count:
        share = np.maximum(left, 0.0) * weights
        size = min(_BLOCK, count - len(chosen), int((share > 0).sum()))
        if not size:
            break
        block = rng.choice(len(data), size, replace=False, p=share / share.sum())
        done = explained[:, : len(chosen)]
        rows = kernel_rows(spanned(bare, data, block), data, 0) - done @ done[block].T
        new = solve_triangular(_root(rows[block].astype(np.float64), most), rows.T.astype(np.float64), lower=True).T
        explained[:, len(chosen) : len(chosen) + size] = new
        left -= np.einsum("ij,ij->i", new, new)
        left[block] = 0.0
        chosen += block.tolist()
    return np.array(chosen)


def _root(gram: Floats, most: float) -> Floats:
    """Return the Cholesky factor of a Gram matrix that rounding may have made slightly indefinite."""
    both = (gram + gram.T) / 2
    try:
        return np.asarray(np.linalg.cholesky(both + _NUGGET * most * np.eye(len(both))))
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.cholesky(both + _MORE * most * np.eye(len(both))))
