"""The parent's side of the llama.cpp worker: start it, send it requests, and survive its faults.

Every wait ends. A worker that dies, hangs or is stopped is killed and reaped, the call raises `WorkerError` with the reason in
one line, and the next call starts a new worker: with the next fallback configuration when llama.cpp crashed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scope_edge.errors import ContextLengthError, UsageError, WorkerError
from scope_edge.providers.llama import speed
from scope_edge.providers.llama.gguf import resolved
from scope_edge.providers.llama.memory import LIST_LAYOUTS, Layouts, Plan
from scope_edge.providers.llama.messages import (
    Ending,
    FrameError,
    Job,
    JobResult,
    Layout,
    LoadOptions,
    Stats,
    done_from_body,
    results_from_body,
)
from scope_edge.providers.llama.process import (
    COMMAND_VARIABLE,
    GRACE_SECONDS,
    Child,
    WorkerExit,
    WorkerRequest,
    installed,
)
from scope_edge.providers.llama.speed import LoadConfiguration, RunSpeed, SpeedRecord, fallback_configurations

# For a large model from a slow disk, its warm-up included.
START_SECONDS = 600.0
_COUNT_SECONDS = 60.0
_POLL_SECONDS = 0.1
_STRANGE = f"does not answer like a worker of scope-edge; check {COMMAND_VARIABLE}"


class ReplyStream:
    """A model's answer to one request, as it is written. Only `cancel` may be called from another thread.

    Attributes:
        ending: how it ended, None while it goes on. prompt_tokens: None until they are counted.
        reused_tokens: prompt tokens found in the cache, None until the end. completion_tokens: so far.
    """

    def __init__(
        self,
        request: WorkerRequest,
        name: str,
        until: float,
        lost: Callable[[WorkerExit], WorkerError],
        learn: Callable[[RunSpeed], None],
    ) -> None:
        """Read the answers to `request`.

        Args:
            name: the model's name in errors.
            until: deadline by the monotonic clock; a worker that is late then is not waited for.
            lost: turns a worker's exit into the error to raise. learn: called with its speed at the end.
        """
        self._request, self._name, self._until, self._lost, self._learn = request, name, until, lost, learn
        self._cancelled = False
        self.ending: Ending | None = None
        self.prompt_tokens: int | None = None
        self.reused_tokens: int | None = None
        self.completion_tokens = 0

    def next(self) -> str | None:
        """Return the next piece, None at the end. Raises WorkerError; UsageError for an invalid request."""
        while self.ending is None:
            if time.monotonic() > self._until + GRACE_SECONDS:
                self.cancel()
            if self._cancelled:
                self.ending = "cancelled"
                break
            try:
                answer = self._request.next(_POLL_SECONDS)
            except WorkerExit as gone:
                raise self._lost(gone) from gone
            if answer is not None and (text := self._take(answer)):
                return text
        return None

    def cancel(self) -> None:
        """Break it off: the worker frees its cells, and `next` does not wait for it."""
        if self.ending is None and not self._cancelled:
            self._cancelled = True
            self._request.cancel()

    def _take(self, answer: dict[str, Any]) -> str:
        kind = answer.get("type")
        if kind == "piece":
            self.completion_tokens = int(answer["tokens"])
            return str(answer["text"])
        if kind == "begun":
            self.prompt_tokens = int(answer["prompt_tokens"])
        elif kind == "end":
            self.completion_tokens, self.reused_tokens = int(answer["tokens"]), int(answer["reused_tokens"])
            if answer["ending"] == "broken":
                raise WorkerError(f"{self._name}: the model computes invalid numbers (not finite)")
            self.ending = answer["ending"]
            self._learn(RunSpeed(**answer["speed"]))
        else:
            raise refusal(self._name, answer)
        return ""


def count_unloaded(path: Path, job: Job) -> int:
    """Count the tokens of a job's prompt in a worker of its own, which takes about half a second.

    Raises WorkerError; UsageError when the model's template refuses the conversation.
    """
    child = None
    try:
        child = Child(gpu=False)
        read = child.ask({"op": "read", "path": str(resolved(path))}, _COUNT_SECONDS)
        if read.get("type") != "ready":
            raise refusal(path.name, read)
        return counted(child, job, path.name)
    except WorkerExit as gone:
        raise WorkerError(f"{path.name}: {gone.why}") from gone
    finally:
        if child is not None:
            child.end()


def counted(child: Child, job: Job, name: str) -> int:
    """Count in a worker that has read or loaded the model `name`. Raises WorkerExit, WorkerError or UsageError."""
    answer = child.ask({"op": "count", "job": asdict(job)}, _COUNT_SECONDS)
    if answer.get("type") != "counted":
        raise refusal(name, answer)
    return int(answer["tokens"])


def refusal(name: str, answer: Mapping[str, Any]) -> WorkerError | UsageError:
    """Return the error for a worker's refusal: the request was invalid, or something failed."""
    why = f"{name}: {answer.get('why')}"
    if answer.get("overflow"):
        return ContextLengthError(why)
    return UsageError(why) if answer.get("usage") else WorkerError(why)


class LlamaClient(AbstractContextManager["LlamaClient"]):
    """One model in one worker. Calls from several threads wait for each other; streams run side by side."""

    def __init__(
        self, path: Path, sha256: str, plan: Plan, *, cache_dir: Path, layouts: Layouts = LIST_LAYOUTS
    ) -> None:
        """Start nothing yet. The bytes of `path` must have been checked against `sha256`.

        layouts: for lists of jobs or for streams, whichever the worker mostly serves.
        """
        self._path, self._sha256, self._plan, self._cache_dir = path, sha256, plan, cache_dir
        self._layouts = layouts
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._ready: SpeedRecord | None = None

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The worker's process id, None without a worker."""
        return None if self._child is None else self._child.pid

    @property
    def alive(self) -> bool:
        """Whether a worker runs."""
        child = self._child
        return child is not None and child.alive

    @property
    def requests(self) -> int:
        """The number of requests that the worker has not ended yet, abandoned ones included."""
        child = self._child
        return 0 if child is None else child.requests

    def start(self, timeout: float) -> SpeedRecord:
        """Start a worker, load the model and warm it up, unless that is done. Raises WorkerError.

        timeout: seconds for all configurations together.
        """
        with self._lock:
            return self._start(timeout)

    def measure(self, timeout: float) -> SpeedRecord:
        """Load in every configuration that may serve, remember the fastest, and leave no worker running.

        The fastest differs by machine: repacked weights write faster on some processors and read slower on the same ones.
        Raises WorkerError when none works.
        """
        deadline, best, problem = time.monotonic() + timeout, None, ""
        with self._lock:
            for how in fallback_configurations(self._plan.gpu_layers):
                if best is not None and not how.gpu:
                    break  # the last resort
                self._drop()
                try:
                    ready = self._load(how, deadline - time.monotonic())
                except WorkerExit as gone:
                    problem = problem or gone.why
                    continue
                best = ready if best is None or ready.prompt_seconds < best.prompt_seconds else best
            self._drop()
            if best is None:
                raise WorkerError(f"{self._path.name}: {problem}")
            speed.remember(self._sha256, self._cache_dir, best.rung, best)
            return best

    def run(
        self, jobs: Sequence[Job], timeout: float | None, each: Callable[[int, JobResult], bool] | None = None
    ) -> tuple[tuple[JobResult, ...], Stats]:
        """Run jobs and return their results in order. After `timeout` seconds, samples under way end as "cancelled".

        each: called with a job's number and result as soon as it is done, in this thread; once it returns False, the rest is
        cancelled. Jobs that cannot be run are only among the results. Raises WorkerError.
        """
        with self._lock:
            if self._child is None:
                self._start(timeout if timeout is not None else START_SECONDS)
            child = self._running()
            request = {"op": "run", "jobs": [asdict(job) for job in jobs], "timeout": timeout, "each": each is not None}
            try:
                answer = child.ask(
                    request, timeout, None if each is None else lambda frame: each(*done_from_body(frame))
                )
                if answer.get("type") != "results":
                    raise WorkerError(f"llama.cpp: {answer.get('why')}")
                results, stats = results_from_body(answer)
                if len(jobs) == 1 and jobs[0].samples == 1:
                    self._learn(
                        RunSpeed(stats.prefill_tokens, stats.prefill_seconds, stats.decode_tokens, stats.decode_seconds)
                    )
                return results, stats
            except (WorkerExit, FrameError) as error:
                raise self._lost(child, error) from error

    def stream(self, job: Job, timeout: float | None) -> ReplyStream:
        """Begin a stream beside others in the started worker; after `timeout` seconds it ends as "cancelled".

        Raises WorkerError when the worker has ended.
        """
        child = self._running()
        opened = child.open({"op": "stream", "job": asdict(job), "timeout": timeout})

        def lost(gone: WorkerExit) -> WorkerError:
            with self._lock:
                return self._lost(child, gone)

        until = float("inf") if timeout is None else time.monotonic() + timeout
        return ReplyStream(opened, self._path.name, until, lost, self._learn)

    def count(self, job: Job) -> int:
        """Count the tokens of a job's prompt in the started worker.

        Raises WorkerError; UsageError when the model's template refuses the conversation.
        """
        child = self._running()
        try:
            return counted(child, job, self._path.name)
        except WorkerExit as gone:
            with self._lock:
                raise self._lost(child, gone) from gone

    def close(self) -> None:
        """End the worker, whatever it is doing, and wait for it."""
        child = self._child
        if self._lock.locked() and child is not None:
            child.end("was ended")
        with self._lock:
            self._drop()

    def _learn(self, run: RunSpeed) -> None:
        speed.learn(self._sha256, self._cache_dir, run)

    def _running(self) -> Child:
        child = self._child
        if child is None:
            raise WorkerError(f"{self._path.name}: its worker has ended")
        return child

    def _start(self, timeout: float) -> SpeedRecord:
        if self._child is not None and self._ready is not None and self._child.alive:
            return self._ready
        self._drop()
        deadline = time.monotonic() + timeout
        begin = speed.remembered_configuration(self._sha256, self._cache_dir)
        problem, refused = "out of time before it was loaded", False
        for how in fallback_configurations(self._plan.gpu_layers, begin):
            try:
                return self._load(how, deadline - time.monotonic())
            except WorkerExit as gone:
                self._drop()
                problem, refused = gone.why, gone.crashed or gone.refused
                if not gone.crashed:
                    break
        raise WorkerError(f"{self._path.name}: {problem}", refused=refused)

    def _load(self, how: LoadConfiguration, timeout: float) -> SpeedRecord:
        """Load in one configuration. Raises WorkerExit; crashed when another configuration may help."""
        if not installed():
            raise WorkerExit('llama-cpp-python is not installed; pip install "scope-edge[llama]"')
        plan, known = self._plan, speed.remembered(self._sha256, self._cache_dir)
        begun = time.monotonic()
        gpu_layers = plan.gpu_layers if how.gpu else 0
        child = self._child = Child(gpu=bool(gpu_layers))
        slots, lanes, keep = self._layouts[1 if gpu_layers else 0]
        request = {
            "op": "load",
            "path": str(resolved(self._path)),
            "layout": asdict(Layout(slots, lanes, plan.batch, keep)),
            "options": asdict(
                LoadOptions(plan.context, slots + lanes, plan.batch, gpu_layers, how.repack, plan.threads)
            ),
            "lanes": known.lanes if known and known.rung == how.name else None,
        }
        answer = child.ask(request, max(timeout, 0.0))
        if answer.get("type") != "ready":
            # A refusal is final, unless the GPU may have been full.
            raise WorkerExit(str(answer.get("why", _STRANGE)), crashed=how.gpu and plan.gpu_layers != 0, refused=True)
        try:
            measured = [key for key in SpeedRecord.__dataclass_fields__ if key not in ("rung", "load_seconds")]
            fields = {key: answer[key] for key in measured}
        except KeyError as error:
            raise WorkerExit(_STRANGE) from error
        self._ready = SpeedRecord(rung=how.name, load_seconds=time.monotonic() - begun, **fields)
        if self._ready.context < plan.context:
            raise WorkerExit(f"its context has {self._ready.context} tokens instead of {plan.context}")
        speed.remember(self._sha256, self._cache_dir, how.name, self._ready.since(known))
        return self._ready

    def _lost(self, child: Child, error: WorkerExit | FrameError) -> WorkerError:
        """Drop a worker that failed at a request; if llama.cpp crashed, the next one starts a configuration lower."""
        why = error.why if isinstance(error, WorkerExit) else str(error)
        if "while" not in why:
            why += " while decoding"
        if child is self._child:  # else another thread noticed first
            self._drop(why)
            if isinstance(error, WorkerExit) and error.crashed and self._ready is not None:
                below = [how.name for how in fallback_configurations(self._plan.gpu_layers, self._ready.rung)][1:]
                if below:
                    speed.remember(self._sha256, self._cache_dir, below[0], None)
        return WorkerError(f"{self._path.name}: {why}")

    def _drop(self, why: str = "was ended") -> None:
        if self._child is not None:
            self._child.end(why)
        self._child = None
