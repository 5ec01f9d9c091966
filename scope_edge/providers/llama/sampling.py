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

    from scope_edge.providers.llama.native import Logits

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    from scope_edge.providers.llama.decoding import AnswerLine
    from scope_edge.providers.llama.native import Engine
    from scope_edge.providers.llama.tasks import SampleSequence

    # A lane, and its row of logits.
    Row = tuple[SampleSequence, Logits]

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


class Sampler:
    """Draws for the lanes of one engine."""

    def __init__(self, engine: Engine, line: AnswerLine | None, pool: Executor | None) -> None:
        """line: what answers are constrained to, if they can be. pool: threads that may help."""
        self._engine, self._line, self._pool = engine, line, pool

    def advance(self, lanes: Sequence[SampleSequence], rows: Sequence[Logits] | Logits) -> None:
        """Give every lane what its row of logits says."""
        kinds: dict[str, list[Row]] = {"free": [], "digits": [], "word": []}
        for wish in zip(lanes, rows, strict=True):
            kinds[wish[0].answer.state].append(wish)
        for k, some in _grouped(kinds["free"], _choices).items():
            self._draw_free(some, k)
        for _, some in _grouped(kinds["digits"], lambda lane: lane.answer.digits).items():
            _draw_digits(some)
        if self._line is not None:
            for lane, row in kinds["word"]:
                lane.answer.take_word(float(row[self._line.yes]), float(row[self._line.no]))

    def _draw_free(self, wishes: list[Row], k: int) -> None:
        rows = [row for _, row in wishes]
        ids, values = best(rows, k, self._pool)
        for lane, token in _drawn([lane for lane, _ in wishes], ids, values):
            lane.answer.take(token, ends=self._engine.ends(token))


def _draw_digits(wishes: list[Row]) -> None:
    """For lanes with equally many digits, which may go on alike."""
    allowed = wishes[0][0].answer.allowed()
    some = np.stack([row[allowed] for _, row in wishes])
    order = np.argsort(-some, axis=1, kind="stable")
    values = np.take_along_axis(some, order, axis=1).astype(np.float64)
    for lane, token in _drawn([lane for lane, _ in wishes], allowed[order], values):
        lane.answer.take_digit(token)


def _drawn(lanes: list[SampleSequence], ids: Ints, values: Floats) -> list[tuple[SampleSequence, int]]:
    """A token for every lane; those are broken off whose numbers are none."""
    good = np.flatnonzero(np.isfinite(values).all(axis=1))
    if len(good) < len(lanes):
        for i in set(range(len(lanes))).difference(good.tolist()):
            lanes[i].answer.break_off("broken")
        lanes, ids, values = [lanes[i] for i in good], ids[good], values[good]
    samplings = [lane.task.job.sampling for lane in lanes]
    temperature = np.array([one.temperature for one in samplings])
    top_p = np.array([one.top_p for one in samplings])
    uniform = np.array([lane.random.random() for lane in lanes])
    tokens: list[int] = draw(ids, values, temperature, top_p, uniform).tolist()
    return list(zip(lanes, tokens, strict=True))


def _choices(lane: SampleSequence) -> int:
    """Among how many tokens is drawn."""
    sampling = lane.task.job.sampling
    return sampling.top_k if sampling.temperature > 0 else 1


def _grouped(wishes: list[Row], key: Callable[[SampleSequence], int]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for wish in wishes:
        found.setdefault(key(wish[0]), []).append(wish)
    return found
