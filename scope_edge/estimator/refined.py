"""One query's estimates while they are being refined: what is settled, what each may still become, how often it was sampled."""

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

# From a prompt's samples to one reading: P(yes) averaged, the length's median, and why.

MAX_RATIONALE = 600
# The error of a mean of one sample is not known; of P(yes), 0.25 is half of the most it can be.
_UNKNOWN_ERROR = 0.25


@dataclass(frozen=True, slots=True)
class EstimatorReading:
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


def read_samples(samples: Sequence[Sample]) -> EstimatorReading | None:
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
    return EstimatorReading(mean, error, length, len(good), dropped, rationale(nearest.text))


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


# How many standard errors of the mean P(yes) a half-sampled model may still move by.
_ERRORS = 2.0


@dataclass(slots=True)
class RefinementProgress:
    """What was sampled for one model, and its reading. asked: samples asked for so far; done: no more would be."""

    samples: list[Sample] = field(default_factory=list)
    reading: EstimatorReading | None = None
    asked: int = 0
    done: bool = False


class Refined:
    """The prior's estimates with what the estimator said so far laid over them."""

    def __init__(
        self, prior: Estimates, calibration: EstimatorCalibration, coverage: float, open_: Sequence[int]
    ) -> None:
        """open_: the models (indices in the pool) that the estimator could be asked about."""
        self.prior = prior
        self.progress = {i: RefinementProgress() for i in open_ if np.isfinite(prior.p_correct[i])}
        self._calibration = calibration
        self._coverage = coverage

    def ranges(self) -> tuple[Floats, Floats]:
        """(low, high), shape (models,): where p may still end. What is settled, or cannot be asked, has no width."""
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
            ends = reading.p + np.array([-_ERRORS, _ERRORS]) * reading.error
            low[i], high[i] = sigmoid(self._calibration.logit(ends, before))
        return low, high

    def take(self, model: int, samples: Sequence[Sample], *, last: bool) -> None:
        """Lay a model's new samples in. last: none will be asked for any more."""
        progress = self.progress[model]
        progress.samples.extend(samples)
        progress.reading = read_samples(progress.samples)
        progress.done = last

    @property
    def readings(self) -> dict[int, EstimatorReading]:
        """Of every model with at least one usable sample."""
        return {i: progress.reading for i, progress in self.progress.items() if progress.reading is not None}

    def estimates(self) -> Estimates:
        """The estimates as they stand."""
        readings = self.readings
        if not readings:
            return self.prior
        before = self.prior
        columns = [c.copy() for c in (before.p_correct, before.p_low, before.p_high, before.tokens, before.tokens_hi)]
        for i, reading in readings.items():
            for column, value in zip(columns, self._row(i, reading), strict=True):
                column[i] = value
        p_correct, p_low, p_high, tokens, tokens_hi = columns
        said = {before.models[i]: one.rationale for i, one in readings.items() if one.rationale}
        return Estimates(
            models=before.models,
            p_correct=p_correct,
            p_low=p_low,
            p_high=p_high,
            tokens=tokens,
            tokens_hi=tokens_hi,
            evidence=before.evidence,
            source=tuple("scope" if i in readings else one for i, one in enumerate(before.source)),
            rationales={**before.rationales, **said},
        )

    def _row(self, i: int, reading: EstimatorReading) -> tuple[float, float, float, float, float]:
        """p, its band, tokens and their bound. The band keeps the prior's width in logit and covers the samples' error."""
        prior, calibration = self.prior, self._calibration
        before, bottom, top = (float(logit(column[i], CLIP)) for column in (prior.p_correct, prior.p_low, prior.p_high))
        center = float(calibration.logit(reading.p, prior.p_correct[i]))
        ends = calibration.logit(reading.p + np.array([-_ERRORS, _ERRORS]) * reading.error, prior.p_correct[i])
        low = min(center + bottom - before, float(ends.min()))
        high = max(center + top - before, float(ends.max()))
        p, p_low, p_high = sigmoid(np.array([center, low, high])).tolist()
        log_tokens = float(calibration.log_tokens(reading.length, prior.tokens[i]))
        tokens = float(np.exp(log_tokens))
        upper = calibration.upper_residual(self._coverage)
        if upper is not None:
            return p, p_low, p_high, tokens, max(tokens, float(np.exp(log_tokens + upper)))
        # The prior's bound, stretched where the estimator expects more: never below what is expected.
        bound = float(prior.tokens_hi[i])
        if np.isnan(bound):
            return p, p_low, p_high, tokens, bound
        return p, p_low, p_high, tokens, bound * max(1.0, tokens / float(prior.tokens[i]))
