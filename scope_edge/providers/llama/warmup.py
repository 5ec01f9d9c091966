"""The check and the measurement after a model is loaded.

The check: finite logits, and the same numbers for a token decoded alone and beside others; a backend that fails either would
answer nonsense silently. The measurement: reading a prompt, and a step of many samples together, of more and more samples as long
as that brings more tokens a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.providers.llama.sampling import best

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.providers.llama.messages import Layout
    from scope_edge.providers.llama.native import Logits, Native

# Largest difference of the most probable tokens' log-probabilities, alone against together: kernels differ in rounding, a
# broken one is off by whole units.
TOLERANCE = 0.5
_TEXT = "A model answers questions; how many of these will it get right, and how long will its answers be? " * 24
_READ = 64
_LANES = (8, 16, 32, 64)
_GAIN = 1.1
_STEP_SECONDS = 1.0
# A GPU's first steps of a kind are slow, and all are short: it takes as many steps as fit in these seconds.
_STEPS, _STEPS_SECONDS = (2, 10), 0.05


class WarmupError(RuntimeError):
    """The model loads and computes nonsense."""


@dataclass(frozen=True, slots=True)
class MeasuredSpeed:
    """prefill_tps: prompt tokens a second. decode_tps: of `lanes` samples decoded together, in total; alone_tps: of one."""

    prefill_tps: float
    alone_tps: float
    decode_tps: float
    lanes: int


def warm_up(engine: Native, layout: Layout, *, known_lanes: int | None = None) -> MeasuredSpeed:
    """Check and measure a model. known_lanes: the best number of samples, if known. Raises WarmupError."""
    prompt = (engine.tokenize(_TEXT) or [0]) * (_READ * 8)
    engine.clear()
    _read(engine, prompt[:8], 0)  # the first decode also allocates
    engine.clear()
    count = min(_READ, layout.batch)
    seconds, row = _read(engine, prompt[:count], 0)
    more = min(layout.batch, engine.context // 2)
    if more > count and seconds < _STEP_SECONDS / 4:
        count = more
        taken = []
        for _ in range(2):  # the better of two: other work on the machine can only slow one down
            engine.clear()
            seconds, row = _read(engine, prompt[:count], 0)
            taken.append(seconds)
        seconds = min(taken)
    token = int(best(row, 1)[0][0, 0])
    single, alone = _steps(engine, layout, token, count, 1)
    decode_tps, lanes = 0.0, 1
    for tried in (known_lanes,) if known_lanes else _LANES:
        tried = min(tried, layout.lanes)
        step, rows = _steps(engine, layout, token, count, tried)
        if lanes == 1:
            _compare(alone, rows)
        if tried / step < decode_tps * _GAIN:
            break
        decode_tps, lanes = tried / step, tried
        if tried == layout.lanes or step > _STEP_SECONDS:
            break
    engine.clear()
    return MeasuredSpeed(count / seconds, 1 / single, decode_tps, lanes)


def _read(engine: Native, tokens: list[int], sequence: int) -> tuple[float, Logits]:
    """Return the seconds to read a prompt, and the logits at its end, (1, vocabulary)."""
    n = len(tokens)
    start = perf_counter()
    logits = engine.decode(tokens, range(n), [sequence] * n, [False] * (n - 1) + [True])
    return perf_counter() - start, _sound(logits)


def _steps(engine: Native, layout: Layout, token: int, position: int, lanes: int) -> tuple[float, Logits]:
    """Return the best seconds of a step of samples that share sequence 0, and the first step's logits."""
    sequences = range(layout.slots, layout.slots + lanes)
    for sequence in sequences:
        engine.share(0, sequence, position)
    taken: list[float] = []
    first = None
    least, most = _STEPS
    while len(taken) < least or (len(taken) < most and sum(taken) < _STEPS_SECONDS):
        at = position + len(taken)
        start = perf_counter()
        logits = engine.decode([token] * lanes, [at] * lanes, list(sequences), [True] * lanes)
        taken.append(perf_counter() - start)
        if first is None:
            first = _sound(logits)
    for sequence in sequences:
        engine.forget(sequence)
    return min(taken), first if first is not None else np.zeros((0, 0), np.float32)


def _sound(logits: Logits | None) -> Logits:
    if logits is None:
        raise WarmupError("the warm-up was cancelled")
    if not np.isfinite(logits).all():
        raise WarmupError("the model computes invalid numbers (not finite)")
    return logits.copy()


def _compare(alone: Logits, together: Logits) -> None:
    ids = best(alone, 20)[0]
    apart = float(np.abs(_logs(together, ids[0]) - _logs(alone, ids[0])).max())
    if apart > TOLERANCE:
        raise WarmupError(f"decoded together, the same tokens get other numbers than alone (off by {apart:.2f})")


def _logs(logits: Logits, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return log-probabilities of some tokens, (rows, ids)."""
    wide = logits.astype(np.float64)
    top = wide.max(axis=1, keepdims=True)
    total = top + np.log(np.exp(wide - top).sum(axis=1, keepdims=True))
    picked: NDArray[np.float64] = wide[:, ids] - total
    return picked
