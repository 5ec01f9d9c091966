"""The parent's side of the llama.cpp worker: start it, ask it, and outlive whatever becomes of it.

Every wait has an end. A worker that dies, hangs or is stopped is killed and reaped, the call raises `WorkerError` with the
reason in one line, and the next call starts a new one: further down the ladder when llama.cpp crashed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scope_edge.errors import WorkerError
from scope_edge.llama import memo
from scope_edge.llama.frames import (
    FrameError,
    jobs_body,
    read_frame,
    result_from_body,
    results_from_body,
    write_frame,
)
from scope_edge.llama.jobs import Job, JobResult, Stats
from scope_edge.llama.ladder import Rung, rungs
from scope_edge.llama.launch import child_command, child_folder, ending, installed
from scope_edge.llama.memo import Ready
from scope_edge.llama.memory import CPU_LAYOUT, GPU_LAYOUT, Plan

COMMAND_VARIABLE = "SCOPE_EDGE_WORKER"
# A worker beats twice a second, from a thread that native code does not stop. Silence of this length is a hang; a machine
# with other things to do may silence it for a while, too.
SILENCE_SECONDS = 30.0
# What a worker gets to hand over what it has, after its time is up.
_GRACE_SECONDS = 2.0
# Signals of native code that failed, as opposed to somebody killing the worker.
_CRASHES = tuple(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS", "SIGFPE", "SIGTRAP")
    if hasattr(signal, name)
)
_SAID_BYTES = 4096
_STRANGE = f"answers what no worker of scope-edge answers; look at {COMMAND_VARIABLE}"


class LlamaClient:
    """One model in one worker. Calls from several threads wait for each other."""

    def __init__(self, path: Path, sha256: str, plan: Plan, *, cache_dir: Path) -> None:
        """Nothing is started yet. The bytes of `path` must have been checked against `sha256`."""
        self._path, self._sha256, self._plan, self._cache_dir = path, sha256, plan, cache_dir
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._ready: Ready | None = None

    def __enter__(self) -> LlamaClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the worker, None while there is none."""
        return None if self._child is None else self._child.pid

    def start(self, timeout: float) -> Ready:
        """A worker with the model loaded and warmed up, started if there is none.

        timeout: seconds for all rungs together. Raises WorkerError.
        """
        with self._lock:
            return self._start(timeout)

    def measure(self, timeout: float) -> Ready:
        """Load on every rung that may serve, remember the fastest, and leave no worker running.

        Which is faster differs: repacked weights write faster on some processors and read slower on the same ones.
        Raises WorkerError when none works.
        """
        deadline, best, problem = time.monotonic() + timeout, None, ""
        with self._lock:
            for rung in rungs(self._plan.gpu_layers):
                if best is not None and not rung.gpu:
                    break  # the last resort
                self._drop()
                try:
                    ready = self._load(rung, deadline - time.monotonic())
                except _Gone as gone:
                    problem = problem or gone.why
                    continue
                best = ready if best is None or ready.prompt_seconds < best.prompt_seconds else best
            self._drop()
            if best is None:
                raise WorkerError(f"{self._path.name}: {problem}")
            memo.remember(self._sha256, self._cache_dir, best.rung, best)
            return best

    def run(
        self, jobs: Sequence[Job], timeout: float | None, each: Callable[[int, JobResult], bool] | None = None
    ) -> tuple[tuple[JobResult, ...], Stats]:
        """Run jobs, results in their order. At the end of `timeout` seconds samples under way end as "cancelled".

        each: called with a job's number and result as soon as it is done, in this thread; once it says False, the rest is
        cancelled. Jobs that cannot be run are only among the results. Raises WorkerError.
        """
        with self._lock:
            if self._child is None:
                self._start(timeout if timeout is not None else 600.0)
            child = self._child
            if child is None:
                raise WorkerError("the llama.cpp worker is not running")
            request = {"op": "run", "jobs": jobs_body(tuple(jobs)), "timeout": timeout, "each": each is not None}
            try:
                answer = child.ask(request, timeout, each)
                if answer.get("type") != "results":
                    raise WorkerError(f"llama.cpp: {answer.get('why')}")
                results = results_from_body(answer)
            except (_Gone, FrameError) as error:
                raise self._lost(error, "decoding") from error
            return results

    def close(self) -> None:
        """End the worker and wait for it."""
        with self._lock:
            self._drop()

    def _start(self, timeout: float) -> Ready:
        if self._child is not None and self._ready is not None and self._child.alive:
            return self._ready
        self._drop()
        deadline = time.monotonic() + timeout
        begin = memo.remembered_rung(self._sha256, self._cache_dir)
        problem, refused = "out of time before it was loaded", False
        for rung in rungs(self._plan.gpu_layers, begin):
            try:
                return self._load(rung, deadline - time.monotonic())
            except _Gone as gone:
                self._drop()
                problem, refused = gone.why, gone.crashed or gone.refused
                if not gone.crashed:
                    break
        raise WorkerError(f"{self._path.name}: {problem}", refused=refused)

    def _load(self, rung: Rung, timeout: float) -> Ready:
        """One try. Raises _Gone; crashed when another rung may help."""
        if not installed():
            raise _Gone('llama-cpp-python is not installed; pip install "scope-edge[llama]"')
        plan, known = self._plan, memo.remembered(self._sha256, self._cache_dir)
        child = self._child = _Child()
        gpu_layers = plan.gpu_layers if rung.gpu else 0
        slots, lanes, keep = GPU_LAYOUT if gpu_layers else CPU_LAYOUT
        request = {
            "op": "load",
            "path": str(self._path.resolve()),
            "layout": {"slots": slots, "lanes": lanes, "batch": plan.batch, "keep": keep},
            "options": {
                "context": plan.context,
                "sequences": slots + lanes,
                "batch": plan.batch,
                "gpu_layers": gpu_layers,
                "repack": rung.repack,
                "threads": plan.threads,
            },
            "lanes": known.lanes if known and known.rung == rung.name else None,
        }
        answer = child.ask(request, max(timeout, 0.0))
        if answer.get("type") != "ready":
            # A refusal is final, unless it may have been the GPU that had no room.
            raise _Gone(str(answer.get("why", _STRANGE)), crashed=rung.gpu and plan.gpu_layers != 0, refused=True)
        try:
            fields = {key: answer[key] for key in Ready.__dataclass_fields__ if key != "rung"}
        except KeyError as error:
            raise _Gone(_STRANGE) from error
        self._ready = Ready(rung=rung.name, **fields)
        if self._ready.context < plan.context:
            raise _Gone(f"a context of {self._ready.context} tokens where {plan.context} were asked for")
        memo.remember(self._sha256, self._cache_dir, rung.name, self._ready.at_best(known))
        return self._ready

    def _lost(self, error: _Gone | FrameError, doing: str) -> WorkerError:
        """The worker failed at a request: drop it, and begin lower next time if llama.cpp crashed."""
        self._drop()
        why = error.why if isinstance(error, _Gone) else str(error)
        if isinstance(error, _Gone) and error.crashed and self._ready is not None:
            below = [rung.name for rung in rungs(self._plan.gpu_layers, self._ready.rung)][1:]
            if below:
                memo.remember(self._sha256, self._cache_dir, below[0], None)
        return WorkerError(
            f"{self._path.name}: {why} while {doing}" if "while" not in why else f"{self._path.name}: {why}"
        )

    def _drop(self) -> None:
        if self._child is not None:
            self._child.end()
        self._child = None


class _Gone(Exception):
    """A worker that will not answer. crashed: native code failed, so that another rung may do better. refused: it said no."""

    def __init__(self, why: str, *, crashed: bool = False, refused: bool = False) -> None:
        super().__init__(why)
        self.why, self.crashed, self.refused = why, crashed, refused


class _Child:
    """One worker process."""

    def __init__(self) -> None:
        override = os.environ.get(COMMAND_VARIABLE)
        try:
            command = shlex.split(override, posix=os.name != "nt") if override else child_command("worker.py")
            if not command:
                raise ValueError("nothing but blanks")
        except ValueError as error:
            raise _Gone(f"{COMMAND_VARIABLE} is no command ({error})") from error
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=child_folder()
            )
        except OSError as error:
            raise _Gone(f"no worker process could be started ({error.strerror or error})") from error
        _bind(self._process)
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._heard = time.monotonic()
        self._said = b""
        self._number = 0
        for loop in (self._listen, self._collect):
            threading.Thread(target=loop, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self, request: dict[str, Any], timeout: float | None, each: Callable[[int, JobResult], bool] | None = None
    ) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises _Gone when none will come, FrameError for what is none."""
        self._number += 1
        self._heard = time.monotonic()
        self._send(request | {"id": self._number})
        until = None if timeout is None else time.monotonic() + timeout
        cancelled = False
        while True:
            with contextlib.suppress(queue.Empty):
                answer = self._answers.get(timeout=0.1)
                if answer is None:
                    raise self._death()
                if answer.get("id") == self._number and answer.get("type") != "done":
                    return answer
                if answer.get("id") == self._number and each is not None and not each(*_done(answer)):
                    each = None
                    self._send({"op": "cancel"})
            now = time.monotonic()
            if until is not None and now > until + (_GRACE_SECONDS if cancelled else 0.0):
                if cancelled or request["op"] == "load":
                    raise _Gone(f"did not answer within {timeout:.1f} seconds")
                cancelled = True
                self._send({"op": "cancel"})
            if now - self._heard > SILENCE_SECONDS:
                raise _Gone(f"has not been heard of for {SILENCE_SECONDS:g} seconds")

    def end(self) -> None:
        """No process is left behind: it ends with its input, or is killed; either way it is reaped."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(0.5 if time.monotonic() - self._heard < 2 else 0.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, body: dict[str, Any]) -> None:
        pipe = self._process.stdin
        try:
            if pipe is not None:
                write_frame(pipe, body)
        except (OSError, ValueError) as error:
            raise self._death() from error

    def _listen(self) -> None:
        pipe = self._process.stdout
        with contextlib.suppress(FrameError, OSError, ValueError):
            while pipe is not None and (frame := read_frame(pipe)) is not None:
                self._heard = time.monotonic()
                if frame.get("type") != "beat":
                    self._answers.put(frame)
        self._answers.put(None)

    def _collect(self) -> None:
        """Keep the end of what the worker prints; reading it all keeps the worker from blocking on it."""
        pipe = self._process.stderr
        with contextlib.suppress(OSError, ValueError):
            while pipe is not None and (more := os.read(pipe.fileno(), 4096)):
                self._said = (self._said + more)[-_SAID_BYTES:]

    def _death(self) -> _Gone:
        """Why there will be no answer: the output has ended."""
        try:
            code = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return _Gone("sent what cannot be read")
        # Windows ends a crashed process with a code of its own kind (0xC0000005 and the like).
        crashed = -code in _CRASHES or code > 0x8000_0000
        return _Gone(ending(code, self._said, "working"), crashed=crashed)


def _bind(process: subprocess.Popen[bytes]) -> None:
    """On Windows, put the child in a job that ends with us; elsewhere the end of its input does that."""
    if os.name == "nt":
        from scope_edge.llama.windows_job import end_with_us

        end_with_us(process.pid)


def _done(frame: dict[str, Any]) -> tuple[int, JobResult]:
    """A job's number and its result. Raises FrameError when the frame is not that."""
    try:
        return int(frame["index"]), result_from_body(frame["result"])
    except (KeyError, TypeError, ValueError) as error:
        raise FrameError(f"an answer of another form ({error!r})") from error
