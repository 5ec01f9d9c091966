"""Drawing tokens, for a whole batch of rows of logits at once. Numpy only; exact, and far from the price of a decode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scope_edge.llama.jobs import Sampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.llama.engine import Logits

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_STRIDES = 64


def best(logits: Logits, k: int) -> tuple[Ints, Floats]:
    """The k largest of every row of (n, v), largest first: ids and values, shape (n, min(k, v)).

    A row is cut into v / 64 groups of 64; the k largest lie in the k groups with the largest maxima, and only those are
    looked at: one pass of maxima over the row instead of a selection.
    """
    rows, size = logits.shape
    groups = size // _STRIDES
    if groups <= 2 * k:
        ids = np.broadcast_to(np.arange(size), logits.shape)
        values = logits
    else:
        used = groups * _STRIDES
        # Group g holds g, g + groups, g + 2 groups, ...: so the maxima are taken over whole rows of memory.
        tops = logits[:, :used].reshape(rows, _STRIDES, groups).max(axis=1)
        chosen = np.argpartition(-tops, k - 1, axis=1)[:, :k]
        ids = (chosen[:, :, None] + groups * np.arange(_STRIDES)).reshape(rows, -1)
        ids = np.hstack([ids, np.broadcast_to(np.arange(used, size), (rows, size - used))])
        values = np.take_along_axis(logits, ids, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")[:, : min(k, size)]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1).astype(np.float64)


def draw(ids: Ints, values: Floats, sampling: Sampling, uniform: Floats) -> Ints:
    """One id of every row: temperature, then top_p, then the uniform number of the row in [0, 1).

    ids, values: shape (n, k), largest value first; uniform: (n,). Returns shape (n,).
    """
    if sampling.temperature <= 0:
        return ids[:, 0]
    weights = np.exp((values - values[:, :1]) / sampling.temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    # Kept: the smallest head whose weight reaches top_p; its first member always.
    before = np.cumsum(weights, axis=1) - weights
    weights[before >= sampling.top_p] = 0.0
    reached = np.cumsum(weights, axis=1)
    at = (reached <= (uniform * reached[:, -1])[:, None]).sum(axis=1)
    return np.take_along_axis(ids, np.minimum(at, ids.shape[1] - 1)[:, None], axis=1)[:, 0]
