"""Drawing tokens from many rows of logits at once: exact, and far cheaper than a decode.

A row has some 150,000 numbers. They are read once, on several cores for many rows; the rest is done on the few candidates.
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
    from scope_edge.providers.llama.native import Native
    from scope_edge.providers.llama.tasks import SampleSequence

# Members of a group.
_GROUP = 64
# Rows a thread reads at a time: waking it for fewer does not pay.
_PART = 4


def best(rows: Sequence[Logits] | Logits, k: int, pool: Executor | None = None) -> tuple[Ints, Floats]:
    """Return the k largest of each of n rows of v logits, largest first, the lower id first among equals.

    A row is cut into groups of 64 or a few more. The k-th largest of the groups' maxima is a floor: numbers below it are not among
    the k largest, and few more than k are not below.

    Args:
        pool: threads that read rows in parallel.

    Returns:
        Ids and values, each of shape (n, min(k, v)); all values of a row with a NaN are NaN.
    """
    size = len(rows[0])
    k, groups = min(k, size), size // _GROUP
    ids, values = np.zeros((len(rows), k), np.int64), np.full((len(rows), k), np.nan)
    if k == 1:
        ids[:, 0] = _each(np.argmax, rows, pool)
        values[:, 0] = [row[at] for row, at in zip(rows, ids[:, 0], strict=True)]
        return ids, values
    # With few groups, every number is a group of its own.
    tops = np.stack(_each(_tops, rows, pool)) if groups > 2 * k else np.asarray(rows)
    floors = np.partition(tops, tops.shape[1] - k, axis=1)[:, -k]
    for i, row in enumerate(rows):
        if not np.isnan(tops[i]).any():
            some = _not_below(row, tops[i], floors[i])
            ids[i] = some[np.argsort(-row[some], kind="stable")[:k]]
            values[i] = row[ids[i]]
    return ids, values


def _each(do: Callable[[Logits], Any], rows: Sequence[Logits] | Logits, pool: Executor | None) -> list[Any]:
    if pool is None or len(rows) <= _PART:
        return [do(row) for row in rows]
    parts = [rows[at : at + _PART] for at in range(0, len(rows), _PART)]
    return [one for part in pool.map(lambda part: [do(row) for row in part], parts) for one in part]


def _tops(row: Logits) -> Logits:
    """Return the maxima of a row's groups. Group g holds g, g + groups, g + 2 groups, ...: so numpy compares whole stretches."""
    groups = len(row) // _GROUP
    tops: Logits = row[: len(row) // groups * groups].reshape(-1, groups).max(axis=0)
    return tops


def _not_below(row: Logits, tops: Logits, floor: np.float32) -> Ints:
    """Return, ascending, the ids of a row's numbers that are not below the floor, and of the last few, which are in no group."""
    groups = len(tops)
    used = len(row) // groups * groups
    chosen = np.flatnonzero(tops >= floor)
    held = row[:used].reshape(-1, groups).take(chosen, axis=1)
    stretch, member = np.nonzero(held >= floor)
    return np.concatenate([stretch * groups + chosen[member], np.arange(used, len(row))])


def draw(ids: Ints, values: Floats, temperature: Floats, top_p: Floats, uniform: Floats) -> Ints:
    """Draw one id of every row: temperature (0 = the first), then top_p, then the uniform number of the row in [0, 1).

    ids, values: shape (n, k), largest value first. The other arguments and the result: (n,).
    """
    greedy = temperature <= 0
    weights = np.exp((values - values[:, :1]) / np.where(greedy, 1.0, temperature)[:, None])
    weights /= weights.sum(axis=1, keepdims=True)
    # Keep the smallest head whose weight reaches top_p, and always its first member.
    before = np.cumsum(weights, axis=1) - weights
    before[:, 0] = -1.0
    weights[before >= np.where(greedy, 0.0, top_p)[:, None]] = 0.0
    reached = np.cumsum(weights, axis=1)
    at = (reached <= (uniform * reached[:, -1])[:, None]).sum(axis=1)
    drawn: Ints = ids[np.arange(len(ids)), np.minimum(at, ids.shape[1] - 1)]
    return drawn


class Sampler:
    """Draws tokens for the samples of one engine."""

    def __init__(self, engine: Native, line: AnswerLine | None, pool: Executor | None) -> None:
        """Draw with `pool`'s threads, if any. line: the constrained answer line, None if the vocabulary cannot spell it."""
        self._engine, self._line, self._pool = engine, line, pool

    def advance(self, samples: Sequence[SampleSequence], rows: Sequence[Logits] | Logits) -> None:
        """Advance every sample by its row of logits."""
        # Samples with equally many candidates are drawn together.
        groups: dict[tuple[str, int], list[tuple[SampleSequence, Logits]]] = {}
        for sample, row in zip(samples, rows, strict=True):
            answer, sampling = sample.answer, sample.task.job.sampling
            top_k = sampling.top_k if sampling.temperature > 0 else 1
            key = (answer.state, answer.digits if answer.state == "digits" else top_k)
            groups.setdefault(key, []).append((sample, row))
        for (state, size), members in groups.items():
            group, logits = [sample for sample, _ in members], [row for _, row in members]
            if state == "free":
                for sample, token in _drawn(group, *best(logits, size, self._pool)):
                    sample.answer.take(token, ends=self._engine.ends(token))
            elif state == "digits":
                _draw_digits(group, logits)
            elif self._line is not None:
                for sample, row in members:
                    sample.answer.take_word(float(row[self._line.yes]), float(row[self._line.no]))


def _draw_digits(samples: list[SampleSequence], rows: list[Logits]) -> None:
    """Draw for samples with equally many digits, which have the same candidates."""
    allowed = samples[0].answer.allowed()
    some = np.stack([row[allowed] for row in rows])
    order = np.argsort(-some, axis=1, kind="stable")
    values = np.take_along_axis(some, order, axis=1).astype(np.float64)
    for sample, token in _drawn(samples, allowed[order], values):
        sample.answer.take_digit(token)


def _drawn(samples: list[SampleSequence], ids: Ints, values: Floats) -> list[tuple[SampleSequence, int]]:
    """Return a token for every sample; samples with invalid numbers are broken off."""
    good = np.flatnonzero(np.isfinite(values).all(axis=1))
    if len(good) < len(samples):
        for i in set(range(len(samples))).difference(good.tolist()):
            samples[i].answer.break_off("broken")
        samples, ids, values = [samples[i] for i in good], ids[good], values[good]
    samplings = [sample.task.job.sampling for sample in samples]
    temperature = np.array([one.temperature for one in samplings])
    top_p = np.array([one.top_p for one in samplings])
    uniform = np.array([sample.random.random() for sample in samples])
    tokens: list[int] = draw(ids, values, temperature, top_p, uniform).tolist()
    return list(zip(samples, tokens, strict=True))
