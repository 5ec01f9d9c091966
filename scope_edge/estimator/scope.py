"""The SCOPE estimator: refine a query's estimates by prompts for as long as an answer could change the decision.

It is an anytime estimator. It starts from the prior's estimates, asks the policy which models could still be chosen, and
prompts for those, the most promising first, until one model is left, all are settled, or time or tokens run out. Half of a
model's samples are drawn first, the rest only while it could change the decision. On any failure the prior's estimates stand
and `degraded` says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING

from scope_edge.errors import ScopeEdgeError
from scope_edge.estimator.calibration import EstimatorCalibration, uncalibrated
from scope_edge.estimator.prompt import Prompt, Prompter, TextSlices
from scope_edge.estimator.refined import Refined
from scope_edge.types import EncodedQuery, Estimates, EstimatorReport, Refinement

if TYPE_CHECKING:
    from scope_edge.estimator.store import Installed
    from scope_edge.providers.llama.client import LlamaClient
    from scope_edge.providers.llama.messages import Mode, Stats
    from scope_edge.providers.llama.speed import SpeedRecord
    from scope_edge.types import Floats

    CouldWin = Callable[[Estimates, Floats, Floats], tuple[int, ...]]

# A model of gigabytes on a slow disk takes a while to load; a longer start is a hang.
START_SECONDS = 300.0
# After this many failures in a row the estimator rests: a failing start may take seconds, and would delay every query.
MOST_FAILURES, REST_SECONDS = 3, 300.0
# Tokens of the answer line, and of a usual analysis until one has been measured.
ANSWER_TOKENS = 16
_ANALYSIS_TOKENS = 160
# With this many tokens a run counts as much as what was known before.
_WEIGHT_TOKENS = 2000.0
_FORGET = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for one query; None = no limit. seconds: without loading. tokens: read and written by the estimator."""

    seconds: float | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class EstimatorEngine:
    """Access to the worker, used only once a query needs it.

    open: create the client; may raise any ScopeEdgeError. known: the speed measured here before, if any.
    """

    open: Callable[[], LlamaClient]
    known: Callable[[], SpeedRecord | None] = lambda: None


class SpeedEstimate:
    """Predicts seconds and tokens of prompts. Starts from the speed at warm-up and learns from runs."""

    def __init__(self, speed: SpeedRecord, mode: Mode, analysis_tokens: int) -> None:
        self._warm = max(speed.prefill_tps, 1e-6), max(speed.decode_tps, 1e-6)
        self._prefill, self._decode = self._warm
        free = 0 if mode == "direct" else min(analysis_tokens, _ANALYSIS_TOKENS)
        self._sample = float(free + ANSWER_TOKENS)

    def seconds(self, prompt_tokens: float, samples: int) -> float:
        """Return the wall seconds of one prompt."""
        return prompt_tokens / self._prefill + samples * self._sample / self._decode

    def tokens(self, prompt_tokens: float, samples: int) -> float:
        """Return the tokens read and written for one prompt."""
        return prompt_tokens + samples * self._sample

    def learn(self, stats: Stats, samples: int) -> None:
        """Update by the measured figures of a run with this many samples."""
        if stats.prefill_tokens > 0 and stats.prefill_seconds > 0:
            rate = stats.prefill_tokens / stats.prefill_seconds
            self._prefill = _mixed(self._prefill, rate, stats.prefill_tokens)
        if stats.decode_tokens > 0 and stats.decode_seconds > 0:
            rate = stats.decode_tokens / stats.decode_seconds
            self._decode = _mixed(self._decode, rate, stats.decode_tokens)
            if samples:
                self._sample = _mixed(self._sample, stats.decode_tokens / samples, stats.decode_tokens)

    def relax(self) -> None:
        """Forget a little of the measured speed, after a prompt was skipped as too slow.

        Otherwise one slow run in a busy minute could keep all later ones from showing that it was an exception.
        """
        self._prefill += _FORGET * (self._warm[0] - self._prefill)
        self._decode += _FORGET * (self._warm[1] - self._decode)


def _mixed(known: float, seen: float, tokens: float) -> float:
    return known + tokens / (tokens + _WEIGHT_TOKENS) * (seen - known)


@dataclass(slots=True)
class _Refinement:
    """One query: its estimates and prompts so far, when estimating began, tokens read and written, notes."""

    state: Refined
    started: float = field(default_factory=monotonic)
    prompts: dict[int, Prompt] = field(default_factory=dict)
    tokens: int = 0
    notes: list[str] = field(default_factory=list)


class ScopeEstimator:
    """Refines the prior's estimates with an installed GGUF. One query at a time; safe to call from several threads."""

    def __init__(
        self,
        installed: Installed,
        slices: TextSlices,
        engine: EstimatorEngine,
        *,
        limits: Limits,
        calibration: EstimatorCalibration | None,
        coverage: float,
    ) -> None:
        """calibration: None = this estimator is uncalibrated. Raises AssetError or UsageError: its template is unusable."""
        self.name = installed.name
        self._installed = installed
        self._prompter = Prompter(installed, slices)
        self._slices = slices
        self._engine = engine
        self._limits = limits
        self._calibrated = calibration is not None
        self._calibration = calibration or uncalibrated()
        self._coverage = coverage
        self._client: LlamaClient | None = None
        self._started = False
        self._batch_size = 1
        self._speed: SpeedEstimate | None = None
        self._failures, self._failed, self._rest_until = 0, "", 0.0
        self._lock = Lock()

    def refine(self, encoded: EncodedQuery, estimates: Estimates, could_win: CouldWin) -> Refinement:
        """Refine what could change the decision; failures become notes. could_win: see `policy.contenders`."""
        if not self._slices.models:
            return _unrefined(estimates, no_text(self.name))
        with self._lock:
            if monotonic() < self._rest_until:
                return _unrefined(estimates, f"{self._failed}; paused for a while after {MOST_FAILURES} failures")
            try:
                found = self._refine(encoded, estimates, could_win)
            except ScopeEdgeError as error:
                # The worker may be gone: the next query starts it again, outside of the query's seconds.
                self._started = False
                self._failures += 1
                if self._failures >= MOST_FAILURES:
                    self._failures, self._rest_until = 0, monotonic() + REST_SECONDS
                self._failed = f"estimator {self.name}: {error}; these are the prior's estimates"
                return _unrefined(estimates, self._failed)
            self._failures = 0
            return found

    def close(self) -> None:
        """End the worker, if one was started."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client, self._started = None, False

    def _refine(self, encoded: EncodedQuery, estimates: Estimates, could_win: CouldWin) -> Refinement:
        run = _Refinement(Refined(estimates, self._calibration, self._coverage, self._slices.models))
        similarities = self._slices.similarities(encoded.vector)
        if self._speed is None and (known := self._engine.known()) is not None:
            self._speed = self._speed_estimate(known)
        while batch := self._next_batch(run.state, could_win):
            for model in batch:
                if model not in run.prompts:
                    run.prompts[model] = self._prompter.prompt(model, similarities, encoded.query.text)
            if self._speed is not None:
                batch = self._affordable(batch, run, self._speed)
            if not batch:
                break
            if self._client is None or self._speed is None or not self._started:
                self._start()  # and decide again: the remembered speed may no longer hold
                run.started = monotonic()
            else:
                self._run(batch, run, self._client, self._speed)
        return self._result(run)

    def _start(self) -> None:
        """Start the worker, again if need be. Raises the errors of opening and starting."""
        if self._client is None:
            self._client = self._engine.open()
        ready = self._client.start(START_SECONDS)
        self._started, self._batch_size, self._speed = True, max(ready.batch_prompts, 1), self._speed_estimate(ready)

    def _speed_estimate(self, speed: SpeedRecord) -> SpeedEstimate:
        return SpeedEstimate(speed, self._installed.mode, self._installed.analysis_tokens)

    def _next_batch(self, state: Refined, could_win: CouldWin) -> list[int]:
        """Return the models to prompt for next; empty when no answer would change the decision."""
        order = could_win(state.estimates(), *state.ranges())
        if len(order) < 2:
            return []
        return [i for i in order if i in state.progress and not state.progress[i].done][: self._batch_size]

    def _samples(self, model: int, state: Refined) -> int:
        """Return how many samples of a model to draw now: half of them, then the rest."""
        asked, total = state.progress[model].asked, self._installed.samples
        return total - asked if asked else -(-total // 2)

    def _affordable(self, batch: list[int], run: _Refinement, speed: SpeedEstimate) -> list[int]:
        """Return the first models of a batch that time and tokens allow; if none, a note says why."""
        seconds, tokens = monotonic() - run.started, float(run.tokens)
        for n, model in enumerate(batch):
            prompt_tokens, samples = run.prompts[model].tokens, self._samples(model, run.state)
            needed = speed.seconds(prompt_tokens, samples)
            seconds, tokens = seconds + needed, tokens + speed.tokens(prompt_tokens, samples)
            late = self._limits.seconds is not None and seconds > self._limits.seconds
            if late or (self._limits.tokens is not None and tokens > self._limits.tokens):
                if not n:
                    speed.relax()
                    run.notes.append(self._limit_note(run.state, needed if late else None, seconds if late else tokens))
                return batch[:n]
        return batch

    def _limit_note(self, state: Refined, prompt_seconds: float | None, needed: float) -> str:
        """Say why no more prompts are run, and what would change that. prompt_seconds: None = tokens are the limit."""
        setting = "estimate_tokens" if prompt_seconds is None else "estimate_seconds"
        limit = self._limits.tokens if prompt_seconds is None else self._limits.seconds
        more = f"--{setting.replace('_', '-')} {math.ceil(needed)} allows one more"
        if any(one.asked for one in state.progress.values()):
            return f"estimator {self.name}: stopped at {setting} {limit:g} before all was settled; {more}"
        takes = f"{math.ceil(needed)} tokens" if prompt_seconds is None else f"about {prompt_seconds:.2g} seconds here"
        return (
            f"estimator {self.name}: a prompt takes {takes}, more than {setting} {limit:g}, so these are the prior's"
            f" estimates; {more}"
        )

    def _run(self, batch: Sequence[int], run: _Refinement, client: LlamaClient, speed: SpeedEstimate) -> None:
        state, left = run.state, None
        if self._limits.seconds is not None:
            left = max(self._limits.seconds - (monotonic() - run.started), 0.01)
        jobs = [
            self._prompter.job(run.prompts[i], self._samples(i, state), after=state.progress[i].asked) for i in batch
        ]
        results, stats = client.run(jobs, left)
        for model, job, result in zip(batch, jobs, results, strict=True):
            state.progress[model].asked += job.samples
            asked = state.progress[model].asked
            state.add(model, result.samples, last=asked >= self._installed.samples or result.problem is not None)
            if result.problem is not None:
                run.notes.append(f"estimator {self.name}: no prompt for {self._slices.names[model]}: {result.problem}")
        run.tokens += stats.prefill_tokens + stats.decode_tokens
        speed.learn(stats, sum(len(result.samples) for result in results))

    def _result(self, run: _Refinement) -> Refinement:
        state, readings = run.state, run.state.readings
        prompted = [i for i, one in state.progress.items() if one.asked]
        report = EstimatorReport(
            name=self.name if readings else "prior",
            prompts_run=len(prompted),
            prompts_saved=len(state.progress) - len(prompted),
            tokens=run.tokens,
            seconds=monotonic() - run.started if prompted else 0.0,
        )
        lost = [self._slices.names[i] for i in prompted if i not in readings and state.progress[i].samples]
        if lost:
            run.notes.append(
                f"estimator {self.name}: no sample could be used, the prior's estimate stands: {', '.join(lost)}"
            )
        return Refinement(state.estimates(), report, tuple(run.notes), tuple(self._warnings(run)))

    def _warnings(self, run: _Refinement) -> list[str]:
        readings, warnings = run.state.readings.values(), []
        if readings and not self._calibrated:
            warnings.append(
                f"uncalibrated: {self.name} was never compared with outcomes here, so its answer has half the weight of the"
                " prior's; `scope-edge calibrate --estimator gguf` does that"
            )
        dropped, used = sum(one.dropped for one in readings), sum(one.used for one in readings)
        if dropped:
            warnings.append(f"estimator {self.name}: {dropped} of {dropped + used} samples had no usable answer")
        cut = max((prompt.cut for prompt in run.prompts.values()), default=0)
        if cut:
            warnings.append(f"cut in the middle for the estimator: {cut} of the texts in its prompt")
        return warnings


def no_text(name: str) -> str:
    """Return the note for an installed estimator without anchors to read."""
    return (
        f"estimator {name} is installed, but no model of the pool has outcomes on anchors with text, which is what it"
        " reads; `scope-edge estimator anchors` brings some"
    )


def _unrefined(estimates: Estimates, note: str) -> Refinement:
    return Refinement(estimates, EstimatorReport("prior"), (note,))
