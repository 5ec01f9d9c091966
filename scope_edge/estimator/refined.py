"""One query's estimates while they are being refined: what is settled, what each may still become, how often it was sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimator.calibrated import CLIP, EstimatorCalibration
from scope_edge.estimator.reading import Reading, read_samples
from scope_edge.llama.messages import Sample
from scope_edge.newton import logit, sigmoid
from scope_edge.records import Estimates

if TYPE_CHECKING:
    from scope_edge.records import Floats

# How many standard errors of the mean P(yes) a half-sampled model may still move by.
_ERRORS = 2.0


@dataclass(slots=True)
class Progress:
    """What was sampled for one model, and its reading. asked: samples asked for so far; done: no more would be."""

    samples: list[Sample] = field(default_factory=list)
    reading: Reading | None = None
    asked: int = 0
    done: bool = False


class Refined:
    """The prior's estimates with what the estimator said so far laid over them."""

    def __init__(
        self, prior: Estimates, calibration: EstimatorCalibration, coverage: float, open_: Sequence[int]
    ) -> None:
        """open_: the models (indices in the pool) that the estimator could be asked about."""
        self.prior = prior
        self.progress = {i: Progress() for i in open_ if np.isfinite(prior.p_correct[i])}
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
    def readings(self) -> dict[int, Reading]:
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

    def _row(self, i: int, reading: Reading) -> tuple[float, float, float, float, float]:
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
