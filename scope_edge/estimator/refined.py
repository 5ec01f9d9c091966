"""Samples to estimates: the reading of one prompt's samples, and one query's estimates while they are refined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimation.newton import logit, sigmoid
from scope_edge.estimator.calibration import CLIP, EstimatorCalibration
from scope_edge.estimator.prompt import analysis, parse_answer
from scope_edge.providers.llama.messages import Sample
from scope_edge.types import Estimates

if TYPE_CHECKING:
    from scope_edge.types import Floats

MAX_RATIONALE = 600
# The error of a mean of one sample is unknown; 0.25 is half of the maximum for P(yes).
_UNKNOWN_ERROR = 0.25
# How many standard errors of the mean P(yes) a half-sampled model may still move by.
_ERRORS = np.array([-2.0, 2.0])
_COLUMNS = ("p_correct", "p_low", "p_high", "tokens", "tokens_hi")


@dataclass(frozen=True, slots=True)
class EstimatorReading:
    """The samples of one prompt, summarised.

    Attributes:
        p: mean P(yes). error: standard error of that mean. length: median completion tokens, the model's own.
        used, dropped: usable samples, and unusable ones: no answer, an invalid number, a length of 0.
        rationale: the analysis of the sample nearest the mean, on one line; empty in direct mode.
    """

    p: float
    error: float
    length: float
    used: int
    dropped: int
    rationale: str


def read_samples(samples: Sequence[Sample]) -> EstimatorReading | None:
    """Summarise samples; None when none is usable. An unusable cancelled sample does not count as dropped."""
    samples = [_answered(one) for one in samples]
    good = [one for one in samples if _usable(one)]
    dropped = sum(one.ending != "cancelled" and not _usable(one) for one in samples)
    if not good:
        return None
    p = np.array([one.p_yes for one in good], np.float64)
    mean = float(p.mean())
    error = float(p.std(ddof=1) / math.sqrt(len(p))) if len(p) > 1 else _UNKNOWN_ERROR
    nearest = good[int(np.argmin(np.abs(p - mean)))]
    length = float(np.median([float(one.length or 0) for one in good]))
    # The rationale is one line without control characters.
    line = " ".join("".join(char if char.isprintable() else " " for char in analysis(nearest.text)).split())
    if len(line) > MAX_RATIONALE:
        line = line[: MAX_RATIONALE - 1].rstrip() + "…"
    return EstimatorReading(mean, error, length, len(good), dropped, line)


def _answered(sample: Sample) -> Sample:
    """Read the answer from the text where the vocabulary did not allow to constrain the answer line: yes is 1, no is 0."""
    if sample.p_yes is not None or sample.ending not in ("stop", "limit"):
        return sample
    found = parse_answer(sample.text)
    return sample if found is None else replace(sample, length=found.length, p_yes=float(found.correct))


def _usable(sample: Sample) -> bool:
    return sample.p_yes is not None and 0.0 <= sample.p_yes <= 1.0 and (sample.length or 0) > 0


@dataclass(slots=True)
class RefinementProgress:
    """One model's samples and their reading. asked: samples requested so far; done: no more will be."""

    samples: list[Sample] = field(default_factory=list)
    reading: EstimatorReading | None = None
    asked: int = 0
    done: bool = False


class Refined:
    """The prior's estimates, replaced by the estimator's for the models sampled so far."""

    def __init__(
        self, prior: Estimates, calibration: EstimatorCalibration, coverage: float, open_: Sequence[int]
    ) -> None:
        """open_: the models (indices in the pool) that can be prompted for."""
        self.prior = prior
        self.progress = {i: RefinementProgress() for i in open_ if np.isfinite(prior.p_correct[i])}
        self._calibration = calibration
        self._coverage = coverage

    def ranges(self) -> tuple[Floats, Floats]:
        """Return (low, high), shape (models,): where p may still end; equal for settled models and those without prompts."""
        now = self.estimates().p_correct
        low, high = now.copy(), now.copy()
        for i, progress in self.progress.items():
            if progress.done:
                continue
            reading, before = progress.reading, float(self.prior.p_correct[i])
            if reading is None:
                away = self._calibration.reach
                low[i], high[i] = sigmoid(np.log(before / (1 - before)) + np.array([-away, away]))
                continue
            low[i], high[i] = sigmoid(self._calibration.logit(reading.p + _ERRORS * reading.error, before))
        return low, high

    def add(self, model: int, samples: Sequence[Sample], *, last: bool) -> None:
        """Add a model's new samples. last: no more will be requested."""
        progress = self.progress[model]
        progress.samples.extend(samples)
        progress.reading = read_samples(progress.samples)
        progress.done = last

    @property
    def readings(self) -> dict[int, EstimatorReading]:
        """The reading of every model with at least one usable sample."""
        return {i: progress.reading for i, progress in self.progress.items() if progress.reading is not None}

    def estimates(self) -> Estimates:
        """Return the estimates so far."""
        readings, before = self.readings, self.prior
        if not readings:
            return before
        columns = {name: getattr(before, name).copy() for name in _COLUMNS}
        for i, reading in readings.items():
            for name, value in zip(_COLUMNS, self._row(i, reading), strict=True):
                columns[name][i] = value
        rationales = {before.models[i]: one.rationale for i, one in readings.items() if one.rationale}
        return replace(
            before,
            **columns,
            source=tuple("scope" if i in readings else one for i, one in enumerate(before.source)),
            rationales={**before.rationales, **rationales},
        )

    def _row(self, i: int, reading: EstimatorReading) -> tuple[float, float, float, float, float]:
        """Return a row of _COLUMNS. The band of p keeps the prior's width in logit and covers the samples' error."""
        prior, calibration = self.prior, self._calibration
        before, bottom, top = (float(logit(column[i], CLIP)) for column in (prior.p_correct, prior.p_low, prior.p_high))
        center = float(calibration.logit(reading.p, prior.p_correct[i]))
        ends = calibration.logit(reading.p + _ERRORS * reading.error, prior.p_correct[i])
        low = min(center + bottom - before, float(ends.min()))
        high = max(center + top - before, float(ends.max()))
        p, p_low, p_high = sigmoid(np.array([center, low, high])).tolist()
        log_tokens = float(calibration.log_tokens(reading.length, prior.tokens[i]))
        tokens = float(np.exp(log_tokens))
        upper = calibration.upper_residual(self._coverage)
        if upper is not None:
            return p, p_low, p_high, tokens, max(tokens, float(np.exp(log_tokens + upper)))
        # The prior's bound, stretched where the estimator expects more tokens; a NaN bound stays NaN.
        stretch = max(1.0, tokens / float(prior.tokens[i]))
        return p, p_low, p_high, tokens, float(prior.tokens_hi[i]) * stretch
