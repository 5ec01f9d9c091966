"""The SCOPE estimator: slices -> prompts -> estimates, for as long as an answer could change the decision.

Anytime: it starts from the prior's estimates, asks the contest who could still be chosen, and prompts those, the most
promising first, until one model is left that could be chosen, all of them are settled, or time or tokens are used up. Each
is sampled by half first; the rest is drawn only while it could change the decision. Whatever fails, the prior's estimates
stand and `degraded` says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from scope_edge.errors import ScopeEdgeError
from scope_edge.estimator.calibration import EstimatorCalibration, uncalibrated
from scope_edge.estimator.prompt import Prompt, Prompter, TextSlices
from scope_edge.estimator.refined import Refined
from scope_edge.estimator.speed import PromptSpeed, SpeedEstimate
from scope_edge.providers.llama.messages import Job, JobResult, Stats
from scope_edge.types import EncodedQuery, Estimates, EstimatorReport, Refinement

if TYPE_CHECKING:
    from scope_edge.estimator.store import Installed
    from scope_edge.types import Floats

    CouldWin = Callable[[Estimates, Floats, Floats], tuple[int, ...]]

# A model of gigabytes from a slow disk takes a while; what takes longer hangs.
START_SECONDS = 300.0
# After so many failures in a row it is left alone for a while: a failing start may take seconds, and so would every query.
MOST_FAILURES, REST_SECONDS = 3, 300.0


class ReadyEstimator(PromptSpeed, Protocol):
    """What a started worker says: throughput at its warm-up, and how many prompts to hand over at once."""

    @property
    def batch_prompts(self) -> int: ...


class Client(Protocol):
    """The llama.cpp worker as the estimator knows it; `llama.client.LlamaClient` is one."""

    def start(self, timeout: float) -> ReadyEstimator: ...

    def run(self, jobs: Sequence[Job], timeout: float | None) -> tuple[tuple[JobResult, ...], Stats]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """For one query; None = no limit. seconds: of estimating, loading aside. tokens: read and written by the estimator."""

    seconds: float | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class EstimatorEngine:
    """How to get at the worker. `open` may raise any ScopeEdgeError. known: its speed here, if it was ever measured.

    Both are called when the first query needs it, not before.
    """

    open: Callable[[], Client]
    known: Callable[[], PromptSpeed | None] = lambda: None


@dataclass(slots=True)
class _Spent:
    """One query's bill: when estimating began, tokens read and written, and what a user should know."""

    started: float
    tokens: int = 0
    cut: int = 0
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
        """calibration: None = there is none for this estimator. Raises AssetError or UsageError: its template is unusable."""
        self.name = installed.name
        self._installed = installed
        self._prompter = Prompter(installed, slices)
        self._slices = slices
        self._engine = engine
        self._limits = limits
        self._calibrated = calibration is not None
        self._calibration = calibration or uncalibrated()
        self._coverage = coverage
        self._client: Client | None = None
        self._started = False
        self._batch = 1
        self._pace: SpeedEstimate | None = None
        self._failures, self._failed, self._rest_until = 0, "", 0.0
        self._lock = Lock()

    def refine(self, encoded: EncodedQuery, estimates: Estimates, could_win: CouldWin) -> Refinement:
        """Refine what could change the decision. could_win: see `contest.contenders`. Raises nothing on purpose."""
        if not self._slices.models:
            return _untouched(estimates, no_text(self.name))
        with self._lock:
            if monotonic() < self._rest_until:
                return _untouched(estimates, f"{self._failed}; left alone for now after {MOST_FAILURES} failures")
            try:
                found = self._refine(encoded, estimates, could_win)
            except ScopeEdgeError as error:
                # The worker may be gone: it is started again, with the time that takes, not within a query's seconds.
                self._started = False
                self._failures += 1
                if self._failures >= MOST_FAILURES:
                    self._failures, self._rest_until = 0, monotonic() + REST_SECONDS
                self._failed = f"estimator {self.name}: {error}; these are the prior's estimates"
                return _untouched(estimates, self._failed)
            self._failures = 0
            return found

    def close(self) -> None:
        """End the worker, if one was started."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client, self._started = None, False

    def _refine(self, encoded: EncodedQuery, estimates: Estimates, could_win: CouldWin) -> Refinement:
        state = Refined(estimates, self._calibration, self._coverage, self._slices.models)
        similarities, spent = self._slices.similarities(encoded.vector), _Spent(monotonic())
        prompts: dict[int, Prompt] = {}
        if self._pace is None and (known := self._engine.known()) is not None:
            self._pace = self._paced(known)
        while turn := self._turn(state, could_win):
            for model in turn:
                if model not in prompts:
                    prompts[model] = self._prompter.prompt(model, similarities, encoded.query.text)
                    spent.cut = max(spent.cut, prompts[model].cut)
            now = turn if self._pace is None else self._affordable(turn, prompts, state, spent)
            if not now:
                break
            if not self._started:
                self._start()  # and look again: what was remembered of its speed may not hold
                spent.started = monotonic()
            else:
                self._run(now, prompts, state, spent)
        return self._result(state, spent)

    def _start(self) -> None:
        """Start the worker, again if need be. Raises what opening and starting raise."""
        if self._client is None:
            self._client = self._engine.open()
        ready = self._client.start(START_SECONDS)
        self._started, self._batch, self._pace = True, max(ready.batch_prompts, 1), self._paced(ready)

    def _paced(self, speed: PromptSpeed) -> SpeedEstimate:
        return SpeedEstimate(speed, self._installed.mode, self._installed.analysis_tokens)

    def _turn(self, state: Refined, could_win: CouldWin) -> list[int]:
        """Whom to prompt next, at most a batch; empty when nothing that can be found out would change the decision."""
        order = could_win(state.estimates(), *state.ranges())
        if len(order) < 2:
            return []
        return [i for i in order if i in state.progress and not state.progress[i].done][: self._batch]

    def _asks(self, model: int, state: Refined) -> int:
        """How many samples to draw of a model now: half of them, then the rest."""
        asked, all_ = state.progress[model].asked, self._installed.samples
        return all_ - asked if asked else -(-all_ // 2)

    def _affordable(self, turn: list[int], prompts: Mapping[int, Prompt], state: Refined, spent: _Spent) -> list[int]:
        """As many of `turn`, from its start, as time and tokens are left for; with none, a note says why."""
        assert self._pace is not None
        seconds, tokens = monotonic() - spent.started, float(spent.tokens)
        for n, model in enumerate(turn):
            samples = self._asks(model, state)
            needed = self._pace.seconds(prompts[model].tokens, samples)
            seconds, tokens = seconds + needed, tokens + self._pace.tokens(prompts[model].tokens, samples)
            late = self._limits.seconds is not None and seconds > self._limits.seconds
            if late or (self._limits.tokens is not None and tokens > self._limits.tokens):
                if not n:
                    self._pace.relax()
                    spent.notes.append(self._too_much(state, needed if late else None, seconds if late else tokens))
                return turn[:n]
        return turn

    def _too_much(self, state: Refined, prompt_seconds: float | None, needed: float) -> str:
        """Why no more prompts are run, and what would change that. prompt_seconds: None = it is tokens that are short."""
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

    def _run(self, turn: list[int], prompts: Mapping[int, Prompt], state: Refined, spent: _Spent) -> None:
        assert self._client is not None and self._pace is not None
        left = None
        if self._limits.seconds is not None:
            left = max(self._limits.seconds - (monotonic() - spent.started), 0.01)
        jobs = [self._prompter.job(prompts[i], self._asks(i, state), after=state.progress[i].asked) for i in turn]
        results, stats = self._client.run(jobs, left)
        for model, job, result in zip(turn, jobs, results, strict=True):
            state.progress[model].asked += job.samples
            asked = state.progress[model].asked
            state.take(model, result.samples, last=asked >= self._installed.samples or result.problem is not None)
            if result.problem is not None:
                spent.notes.append(
                    f"estimator {self.name}: no prompt for {self._slices.names[model]}: {result.problem}"
                )
        spent.tokens += stats.prefill_tokens + stats.decode_tokens
        self._pace.learn(stats, sum(len(result.samples) for result in results))

    def _result(self, state: Refined, spent: _Spent) -> Refinement:
        readings = state.readings
        run = [i for i, one in state.progress.items() if one.asked]
        report = EstimatorReport(
            name=self.name if readings else "prior",
            prompts_run=len(run),
            prompts_saved=len(state.progress) - len(run),
            tokens=spent.tokens,
            seconds=monotonic() - spent.started if run else 0.0,
        )
        lost = [self._slices.names[i] for i in run if i not in readings and state.progress[i].samples]
        notes = list(spent.notes)
        if lost:
            notes.append(
                f"estimator {self.name}: no sample could be used, the prior's estimate stands: {', '.join(lost)}"
            )
        return Refinement(state.estimates(), report, tuple(notes), tuple(self._warnings(state, spent)))

    def _warnings(self, state: Refined, spent: _Spent) -> Iterator[str]:
        readings = state.readings
        if readings and not self._calibrated:
            yield (
                f"uncalibrated: {self.name} was never compared with outcomes here, so its word counts half beside the"
                " prior's; `scope-edge calibrate --estimator gguf` does that"
            )
        dropped = sum(one.dropped for one in readings.values())
        if dropped:
            used = sum(one.used for one in readings.values())
            yield f"estimator {self.name}: {dropped} of {dropped + used} samples had no usable answer"
        if spent.cut:
            yield f"cut in the middle for the estimator: {spent.cut} of the texts in its prompt"


def no_text(name: str) -> str:
    """What to say when an estimator is installed that has nothing to read."""
    return (
        f"estimator {name} is installed, but no model of the pool has outcomes on anchors with text, which is what it"
        " reads; `scope-edge estimator anchors` brings some"
    )


def _untouched(estimates: Estimates, note: str) -> Refinement:
    return Refinement(estimates, EstimatorReport("prior"), (note,))
