"""One worker process as its parent sees it: requests in, what it says to each out, and why it is no more."""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from scope_edge.llama.frames import FrameError, pack_frame, read_frame
from scope_edge.llama.launch import child_command, child_environment, child_folder, ending

COMMAND_VARIABLE = "SCOPE_EDGE_WORKER"
# A worker beats twice a second, from a thread that native code does not stop. Silence of this length is a hang; a machine
# with other things to do may silence it for a while, too.
SILENCE_SECONDS = 30.0
# What a worker gets to hand over what it has, after its time is up.
GRACE_SECONDS = 2.0
# Signals of native code that failed, as opposed to somebody killing the worker.
_CRASHES = tuple(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS", "SIGFPE", "SIGTRAP")
    if hasattr(signal, name)
)
_SAID_BYTES = 4096
# What a worker says last to a request.
_LAST = ("ready", "results", "counted", "end", "refused")


class Gone(Exception):
    """A worker that will not answer. crashed: native code failed, so that another rung may do better. refused: it said no."""

    def __init__(self, why: str, *, crashed: bool = False, refused: bool = False) -> None:
        super().__init__(why)
        self.why, self.crashed, self.refused = why, crashed, refused


class Child:
    """One worker process."""

    def __init__(self, *, gpu: bool) -> None:
        """gpu: whether it may see one."""
        override = os.environ.get(COMMAND_VARIABLE)
        try:
            command = shlex.split(override, posix=os.name != "nt") if override else child_command("worker.py")
            if not command:
                raise ValueError("nothing but blanks")
        except ValueError as error:
            raise Gone(f"{COMMAND_VARIABLE} is no command ({error})") from error
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=child_folder(),
                env=child_environment(gpu=gpu),
            )
        except OSError as error:
            raise Gone(f"no worker process could be started ({error.strerror or error})") from error
        _bind(self._process)
        self._lock = threading.Lock()
        self._requests: dict[int, Request] = {}
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._count = 0
        self._over = False
        self._lost = ""
        self._heard = time.monotonic()
        self._said = b""
        for loop in (self._listen, self._collect, self._write):
            threading.Thread(target=loop, daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def requests(self) -> int:
        """Requests to which it has not said its last word."""
        return len(self._requests)

    def open(self, body: dict[str, Any]) -> Request:
        """Send a request. Raises FrameError for one that cannot be sent."""
        with self._lock:
            number = self._count + 1
            raw = pack_frame(body | {"id": number})
            self._count = number
            request = Request(self, number)
            if self._over:
                request.inbox.put(None)
            else:
                self._requests[number] = request
            self._heard = time.monotonic()
            # A thread of its own writes: a worker that does not read holds up nobody.
            self._outgoing.put(raw)
        return request

    def cancel(self, number: int) -> None:
        """Have a request broken off."""
        self._outgoing.put(pack_frame({"op": "cancel", "id": number}))

    def ask(
        self, body: dict[str, Any], timeout: float | None, told: Callable[[dict[str, Any]], bool] | None = None
    ) -> dict[str, Any]:
        """Send a request and wait for the last word on it. Raises Gone when none will come, FrameError for what is none.

        told: gets what is said before that; once it says False, the request is cancelled.
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
                    raise Gone(f"did not answer within {timeout:.1f} seconds")
                cancelled = True
                request.cancel()

    def check(self) -> None:
        """Raises Gone when it has not been heard of for too long."""
        if time.monotonic() - self._heard > SILENCE_SECONDS:
            raise Gone(f"has not been heard of for {SILENCE_SECONDS:g} seconds")

    def end(self, lost: str = "") -> None:
        """No process is left behind: it ends with its input, or is killed; either way it is reaped.

        lost: why, for those who still wait for it.
        """
        self._lost = self._lost or lost
        self._outgoing.put(None)
        try:
            self._process.wait(0.5 if time.monotonic() - self._heard < 2 else 0.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def death(self) -> Gone:
        """Why there will be no answer: the output has ended."""
        try:
            code = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return Gone("sent what cannot be read")
        if self._lost:
            return Gone(self._lost)
        # Windows ends a crashed process with a code of its own kind (0xC0000005 and the like).
        crashed = -code in _CRASHES or code > 0x8000_0000
        return Gone(ending(code, self._said, "working"), crashed=crashed)

    def _write(self) -> None:
        """Until there is no more to come, or nobody to read it: the listener hears of that."""
        pipe = self._process.stdin
        with contextlib.suppress(OSError, ValueError):
            while pipe is not None and (raw := self._outgoing.get()) is not None:
                pipe.write(raw)
                pipe.flush()
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()

    def _listen(self) -> None:
        pipe = self._process.stdout
        with contextlib.suppress(FrameError, OSError, ValueError):
            while pipe is not None and (frame := read_frame(pipe)) is not None:
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
        if pipe is not None:
            pipe.close()

    def _hand_out(self, frame: dict[str, Any]) -> None:
        number = frame.get("id")
        request = self._requests.get(number) if isinstance(number, int) else None
        if request is not None:
            if frame.get("type") in _LAST:
                with self._lock:
                    del self._requests[request.number]
            request.inbox.put(frame)

    def _collect(self) -> None:
        """Keep the end of what the worker prints; reading it all keeps the worker from blocking on it."""
        pipe = self._process.stderr
        with contextlib.suppress(OSError, ValueError):
            while pipe is not None and (more := os.read(pipe.fileno(), 4096)):
                self._said = (self._said + more)[-_SAID_BYTES:]
        if pipe is not None:
            pipe.close()


class Request:
    """One request under way in a worker, and what is said to it."""

    def __init__(self, child: Child, number: int) -> None:
        self._child = child
        self.number = number
        self.inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def next(self, seconds: float) -> dict[str, Any] | None:
        """What comes next, None when that takes longer. Raises Gone when nothing will come any more."""
        try:
            answer = self.inbox.get(timeout=seconds)
        except queue.Empty:
            self._child.check()
            return None
        if answer is None:
            raise self._child.death()
        return answer

    def cancel(self) -> None:
        """Let the worker break it off."""
        self._child.cancel(self.number)


def _bind(process: subprocess.Popen[bytes]) -> None:
    """On Windows, put the child in a job that ends with us; elsewhere the end of its input does that."""
    if os.name == "nt":
        from scope_edge.llama.windows_job import end_with_us

        end_with_us(process.pid)
