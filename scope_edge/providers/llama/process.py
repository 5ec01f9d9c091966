"""Child processes that load llama.cpp: how each is started, a worker's requests and answers, and why one ended."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from scope_edge.providers.llama.messages import FrameError, pack_frame, read_frame

# CUDA, HIP and Vulkan each have a list of the devices to show.
_NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1", "GGML_VK_VISIBLE_DEVICES": ""}
# Children start here: never in the current folder, from which native code could load things.
CHILD_FOLDER = Path(__file__).resolve().parent
COMMAND_VARIABLE = "SCOPE_EDGE_WORKER"
# A worker beats twice a second, from a thread that native code does not stop. Silence of this length is a hang; a machine
# under load may silence it for a while, too.
SILENCE_SECONDS = 30.0
# Time for a worker to hand over its results after its deadline.
GRACE_SECONDS = 2.0
# Signals of native code that failed, as opposed to a worker that was killed.
_CRASHES = tuple(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS", "SIGFPE", "SIGTRAP")
    if hasattr(signal, name)
)
_SAID_BYTES = 4096
# Names of variables that hold keys and the like: a child runs native code over files from anywhere, and needs none of them.
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|AUTH|COOKIE|_PAT$", re.IGNORECASE)
# How OpenMP's threads wait for each other, of GNU's library and LLVM's, unless the user says how. By default they spin, and keep
# each other from running where anything else runs; without any spinning a small model takes twice as long on an idle machine
# (benchmarks/waiting.py).
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
# The types of a worker's last answer to a request.
_LAST = ("ready", "results", "counted", "end", "refused")
# Windows: flags and numbers of a Job Object.
_KILL_ON_JOB_CLOSE, _EXTENDED_LIMITS, _SET_QUOTA_AND_TERMINATE = 0x2000, 9, 0x0101


def child_command(task: str, *arguments: str, library: str | None = None) -> list[str]:
    """Return the command that runs a task of child.py.

    Args:
        library: a folder to look for llama_cpp in before all others; None = where this process would find it.
    """
    here: Path | None = None
    with contextlib.suppress(OSError):  # it may be deleted
        here = Path.cwd()
    folders = [entry for entry in sys.path if entry and Path(entry).is_absolute() and Path(entry) != here]
    folders = ([library] if library else []) + folders
    # Isolated (-I): neither the current folder nor PYTHONPATH may put another llama_cpp in our way.
    return [sys.executable, "-I", str(CHILD_FOLDER / "child.py"), json.dumps(folders), task, *arguments]


def child_environment(*, gpu: bool) -> dict[str, str]:
    """Return the environment of a child, without what looks like a secret. gpu: whether it may see one.

    llama.cpp queries every GPU it sees for its free memory, even for a model that stays on the processor. The query takes
    memory itself, and without any left the process ends: so a child that needs no GPU must not see one.
    """
    from scope_edge.policy.privacy import holds_named_key

    kept = {k: value for k, value in os.environ.items() if not (_SECRET.search(k) or holds_named_key(value))}
    waiting = {} if _WAITING.keys() & kept.keys() else _WAITING
    return {**kept, **waiting, **({} if gpu else _NO_GPU)}


def ask_child(
    task: str, *arguments: str, doing: str, timeout: float, gpu: bool, library: str | None = None
) -> tuple[dict[str, Any] | None, str | None]:
    """Run a task that answers with one line of JSON: the answer, and how the child ended, None = well.

    Args:
        doing: what the child does, as in "loading".

    Raises OSError or TimeoutExpired.
    """
    ended = subprocess.run(
        child_command(task, *arguments, library=library),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        cwd=CHILD_FOLDER,
        env=child_environment(gpu=gpu),
        check=False,
    )
    answer: object = None
    with contextlib.suppress(ValueError):
        answer = json.loads(ended.stdout)
    if isinstance(answer, dict):
        return answer, ending(ended.returncode, ended.stderr, doing) if ended.returncode else None
    return None, ending(ended.returncode, ended.stderr, doing)


def installed() -> bool:
    """Return whether llama-cpp-python is installed; it is not loaded."""
    try:
        return find_spec("llama_cpp") is not None
    except ValueError:
        return False


def llama_version() -> str:
    """Return the version of llama-cpp-python, "none" if it is not installed."""
    from importlib import metadata  # slow to import, and hardly ever needed

    try:
        return metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        return "none"


def ending(returncode: int, stderr: bytes, doing: str) -> str:
    """Describe how a child ended, with the last line it printed: "crashed while loading (SIGSEGV); it last said …"."""
    said = stderr.decode("utf-8", "replace").strip().split("\n")[-1].strip()
    tail = f"; it last said: {said[:200]}" if said else ""
    if returncode >= 0:
        return f"ended with exit code {returncode} while {doing}{tail}"
    name = f"signal {-returncode}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-returncode).name
    return f"crashed while {doing} ({name}){tail}"


class WorkerExit(Exception):
    """Raised when a worker will not answer. crashed: another configuration may do better. refused: the worker said no."""

    def __init__(self, why: str, *, crashed: bool = False, refused: bool = False) -> None:
        super().__init__(why)
        self.why, self.crashed, self.refused = why, crashed, refused


class Child:
    """One worker process."""

    def __init__(self, *, gpu: bool) -> None:
        """Start it. gpu: whether it may see one. Raises WorkerExit."""
        override = os.environ.get(COMMAND_VARIABLE)
        try:
            command = shlex.split(override, posix=os.name != "nt") if override else child_command("worker")
            if not command:
                raise ValueError("it is blank")
        except ValueError as error:
            raise WorkerExit(f"{COMMAND_VARIABLE} is not a command ({error})") from error
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=CHILD_FOLDER,
                env=child_environment(gpu=gpu),
            )
        except OSError as error:
            raise WorkerExit(f"no worker process could be started ({error.strerror or error})") from error
        if os.name == "nt":  # elsewhere the end of its input ends it with us
            _end_with_us(self._process.pid)
        self._lock = threading.Lock()
        self._requests: dict[int, WorkerRequest] = {}
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._count = 0
        self._over = False
        self._lost = ""
        self._heard = time.monotonic()
        self._said = b""
        process = self._process
        pipes = (self._listen, process.stdout), (self._collect, process.stderr), (self._write, process.stdin)
        for loop, pipe in pipes:
            threading.Thread(target=loop, args=(pipe,), daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def requests(self) -> int:
        """The number of requests without a last answer."""
        return len(self._requests)

    def open(self, body: dict[str, Any]) -> WorkerRequest:
        """Send a request. Raises FrameError when it cannot be sent."""
        with self._lock:
            number = self._count + 1
            raw = pack_frame(body | {"id": number})
            self._count = number
            request = WorkerRequest(self, number)
            if self._over:
                request.inbox.put(None)
            else:
                self._requests[number] = request
            self._heard = time.monotonic()
            # A thread of its own writes: a worker that does not read blocks no caller.
            self._outgoing.put(raw)
        return request

    def cancel(self, number: int) -> None:
        """Tell the worker to break a request off."""
        self._outgoing.put(pack_frame({"op": "cancel", "id": number}))

    def ask(
        self, body: dict[str, Any], timeout: float | None, told: Callable[[dict[str, Any]], bool] | None = None
    ) -> dict[str, Any]:
        """Send a request and return its last answer. Raises WorkerExit when none will come, FrameError when it cannot be sent.

        told: called with earlier answers; once it returns False, the request is cancelled.
        """
        request = self.open(body)
        until = None if timeout is None else time.monotonic() + timeout
        cancelled = False
        while True:
            answer = request.next(0.1)
            if answer is not None and answer.get("type") != "done":
                return answer
            if answer is not None and told is not None and not told(answer):
                told = None
                request.cancel()
            if until is not None and time.monotonic() > until + (GRACE_SECONDS if cancelled else 0.0):
                if cancelled or body["op"] == "load":
                    raise WorkerExit(f"did not answer within {timeout:.1f} seconds")
                cancelled = True
                request.cancel()

    def check(self) -> None:
        """Raise WorkerExit when the worker has been silent for too long."""
        if time.monotonic() - self._heard > SILENCE_SECONDS:
            raise WorkerExit(f"has not been heard of for {SILENCE_SECONDS:g} seconds")

    def end(self, lost: str = "") -> None:
        """Close its input, kill it if that does not end it, and reap it. lost: the reason for requests still waiting."""
        self._lost = self._lost or lost
        self._outgoing.put(None)
        try:
            self._process.wait(0.5 if time.monotonic() - self._heard < 2 else 0.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def death(self) -> WorkerExit:
        """Return why no answer will come, after the output has ended."""
        try:
            code = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return WorkerExit("sent what cannot be read")
        if self._lost:
            return WorkerExit(self._lost)
        # Windows ends a crashed process with a code of its own kind (0xC0000005 and the like).
        crashed = -code in _CRASHES or code > 0x8000_0000
        return WorkerExit(ending(code, self._said, "working"), crashed=crashed)

    def _write(self, pipe: IO[bytes]) -> None:
        """Write until the end, or until the worker no longer reads: the listener notices that."""
        with contextlib.suppress(OSError, ValueError), pipe:
            while (raw := self._outgoing.get()) is not None:
                pipe.write(raw)
                pipe.flush()

    def _listen(self, pipe: IO[bytes]) -> None:
        with pipe:
            with contextlib.suppress(FrameError, OSError, ValueError):
                while (frame := read_frame(pipe)) is not None:
                    self._heard = time.monotonic()
                    if frame.get("type") != "beat":
                        self._hand_out(frame)
            with self._lock:
                self._over = True
                left = list(self._requests.values())
                self._requests.clear()
            for request in left:
                request.inbox.put(None)
            self._outgoing.put(None)

    def _hand_out(self, frame: dict[str, Any]) -> None:
        number = frame.get("id")
        request = self._requests.get(number) if isinstance(number, int) else None
        if request is not None:
            if frame.get("type") in _LAST:
                with self._lock:
                    del self._requests[request.number]
            request.inbox.put(frame)

    def _collect(self, pipe: IO[bytes]) -> None:
        """Read all that the worker prints, so that it does not block, and keep the end."""
        with contextlib.suppress(OSError, ValueError), pipe:
            while more := os.read(pipe.fileno(), 4096):
                self._said = (self._said + more)[-_SAID_BYTES:]


class WorkerRequest:
    """One request under way in a worker, and its answers."""

    def __init__(self, child: Child, number: int) -> None:
        self._child = child
        self.number = number
        self.inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def next(self, seconds: float) -> dict[str, Any] | None:
        """Return the next answer, or None after `seconds`. Raises WorkerExit when no more answers will come."""
        try:
            answer = self.inbox.get(timeout=seconds)
        except queue.Empty:
            self._child.check()
            return None
        if answer is None:
            raise self._child.death()
        return answer

    def cancel(self) -> None:
        """Tell the worker to break it off."""
        self._child.cancel(self.number)


class _Limits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION; only the flags are set."""

    _fields_ = (
        ("times", ctypes.c_int64 * 2),
        ("flags", ctypes.c_uint32),
        ("sizes", ctypes.c_size_t * 2),
        ("processes", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("classes", ctypes.c_uint32 * 2),
        ("io", ctypes.c_uint64 * 6),
        ("memory", ctypes.c_size_t * 4),
    )


@cache
def _job() -> Any:
    """Return the job, whose handle stays open: when this process ends, it closes, which ends the job's processes."""
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    kernel.CreateJobObjectW.restype = ctypes.c_void_p
    job = ctypes.c_void_p(kernel.CreateJobObjectW(None, None))
    limits = _Limits(flags=_KILL_ON_JOB_CLOSE)
    kernel.SetInformationJobObject(job, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits))
    return job


def _end_with_us(pid: int) -> None:
    """Put a child in a Job Object, which ends with this process. On failure the end of the child's input still ends it."""
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(kernel.OpenProcess(_SET_QUOTA_AND_TERMINATE, False, pid))
    if handle:
        kernel.AssignProcessToJobObject(_job(), handle)
        kernel.CloseHandle(handle)
