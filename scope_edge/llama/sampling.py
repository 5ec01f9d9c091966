"""Drawing tokens, for many rows of logits at once. Numpy only; exact, and far from the price of a decode.

A row has some 150,000 numbers. They are read once, on several cores where there are many rows; all else is done on the few
that may be drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from scope_edge.llama.engine import Logits

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# Of members.
_GROUP = 64
# Rows a thread reads at a time: for fewer it is not worth waking.
_PART = 4


def best(rows: Sequence[Logits] | Logits, k: int, pool: Executor | None = None) -> tuple[Ints, Floats]:
    """The k largest of each of n rows of v logits, largest first, of equals the lower id: ids and values, (n, min(k, v)).

    A row is cut into groups of 64 or some more. The k-th largest of the groups' maxima is a floor: what is below it is not among
    the k largest, and hardly more than k are not below. A row with a NaN has nothing else for values.

    Args:
        pool: threads that read rows beside each other.
    """
    size = len(rows[0])
    k, groups = min(k, size), size // _GROUP
    ids, values = np.zeros((len(rows), k), np.int64), np.full((len(rows), k), np.nan)
    if k == 1:
        ids[:, 0] = _each(np.argmax, rows, pool)
        values[:, 0] = [row[at] for row, at in zip(rows, ids[:, 0], strict=True)]
        return ids, values
    # Of many more groups than are looked at the maxima say enough; else every number is a group of its own.
    tops = np.stack(_each(_tops, rows, pool)) if groups > 2 * k else np.asarray(rows)
    floors = np.partition(tops, tops.shape[1] - k, axis=1)[:, -k]
    for i, row in enumerate(rows):
        if not np.isnan(tops[i]).any():
            some = _not_below(row, tops[i], floors[i])
            ids[i] = some[np.argsort(-row[some], kind="stable")[:k]]
            values[i] = row[ids[i]]
    return ids, values


def _each(do: Callable[[Logits], Any], rows: Sequence[Logits] | Logits, pool: Executor | None) -> list[Any]:
    """What `do` gives for every row."""
    if pool is None or len(rows) <= _PART:
        return [do(row) for row in rows]
    parts = [rows[at : at + _PART] for at in range(0, len(rows), _PART)]
    return [one for part in pool.map(lambda part: [do(row) for row in part], parts) for one in part]


def _tops(row: Logits) -> Logits:
    """The maxima of a row's groups. Group g holds g, g + groups, g + 2 groups, ...: so they are taken of whole stretches."""
    groups = len(row) // _GROUP
    tops: Logits = row[: len(row) // groups * groups].reshape(-1, groups).max(axis=0)
    return tops


def _not_below(row: Logits, tops: Logits, floor: np.float32) -> Ints:
    """Ids, ascending, of what in a row's groups is not below the floor, and of the last few, which are in no group."""
    groups = len(tops)
    used = len(row) // groups * groups
    chosen = np.flatnonzero(tops >= floor)
    held = row[:used].reshape(-1, groups).take(chosen, axis=1)
    stretch, member = np.nonzero(held >= floor)
    return np.concatenate([stretch * groups + chosen[member], np.arange(used, len(row))])


def draw(ids: Ints, values: Floats, temperature: Floats, top_p: Floats, uniform: Floats) -> Ints:
    """One id of every row: temperature (0 = the first), then top_p, then the uniform number of the row in [0, 1).

    ids, values: shape (n, k), largest value first. The others, and what it returns: (n,).
    """
    greedy = temperature <= 0
    weights = np.exp((values - values[:, :1]) / np.where(greedy, 1.0, temperature)[:, None])
    weights /= weights.sum(axis=1, keepdims=True)
    # Kept: the smallest head whose weight reaches top_p; its first member always.
    before = np.cumsum(weights, axis=1) - weights
    before[:, 0] = -1.0
    weights[before >= np.where(greedy, 0.0, top_p)[:, None]] = 0.0
    reached = np.cumsum(weights, axis=1)
    at = (reached <= (uniform * reached[:, -1])[:, None]).sum(axis=1)
    drawn: Ints = ids[np.arange(len(ids)), np.minimum(at, ids.shape[1] - 1)]
    return drawn
