"""From a prompt's samples to one reading: P(yes) averaged, the length's median, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scope_edge.estimator.prompt import analysis, parse_answer
from scope_edge.llama.messages import Sample

MAX_RATIONALE = 600
# The error of a mean of one sample is not known; of P(yes), 0.25 is half of the most it can be.
_UNKNOWN_ERROR = 0.25


@dataclass(frozen=True, slots=True)
class Reading:
    """What the samples of one prompt say together.

    Attributes:
        p: mean P(yes). error: standard error of that mean. length: median completion tokens, the model's own.
        used, dropped: samples that count, and unusable ones: no answer, a number that is none, a length of 0.
        rationale: the analysis of the sample nearest the mean, on one line; empty in direct mode.
    """

    p: float
    error: float
    length: float
    used: int
    dropped: int
    rationale: str


def read_samples(samples: Sequence[Sample]) -> Reading | None:
    """One reading, None when no sample can be used. A cancelled sample was not finished and counts as neither."""
    samples = [answered(one) for one in samples]
    good = [one for one in samples if usable(one)]
    dropped = sum(one.ending != "cancelled" for one in samples) - sum(one.ending != "cancelled" for one in good)
    if not good:
        return None
    p = np.array([one.p_yes for one in good], np.float64)
    mean = float(p.mean())
    error = float(p.std(ddof=1) / math.sqrt(len(p))) if len(p) > 1 else _UNKNOWN_ERROR
    nearest = good[int(np.argmin(np.abs(p - mean)))]
    length = float(np.median([float(one.length or 0) for one in good]))
    return Reading(mean, error, length, len(good), dropped, rationale(nearest.text))


def answered(sample: Sample) -> Sample:
    """The sample with what its text says, where the vocabulary did not allow the answer line to be constrained: a vote."""
    if sample.p_yes is not None or sample.ending not in ("stop", "limit"):
        return sample
    found = parse_answer(sample.text)
    return sample if found is None else replace(sample, length=found.length, p_yes=float(found.correct))


def usable(sample: Sample) -> bool:
    """Whether a sample has an answer: a finite P(yes) in [0, 1] and a length above 0."""
    p = sample.p_yes
    return p is not None and math.isfinite(p) and 0.0 <= p <= 1.0 and (sample.length or 0) > 0


def rationale(text: str) -> str:
    """A sample's analysis as one line of at most MAX_RATIONALE characters, without control characters."""
    kept = "".join(char if char.isprintable() else " " for char in analysis(text))
    line = " ".join(kept.split())
    return line if len(line) <= MAX_RATIONALE else line[: MAX_RATIONALE - 1].rstrip() + "…"
