"""The child process that owns llama.cpp; it ends when its standard input closes.

In: {"op": "load" | "read" | "run" | "stream" | "count" | "cancel", ...}, each with an id; a cancel has the id of its request.
Out: {"type": "beat"} twice a second from a thread of its own, and one {"type": "ready" | "results" | "counted" | "refused", ...}
for every load, read, run and count. Before the results, {"type": "done"} comes for every finished job, where requested. A stream
gets {"type": "begun"} with its prompt's tokens, {"type": "piece"} with text and the number of tokens so far, and one
{"type": "end"} or "refused". A refusal gives llama.cpp's reason, or what of the request is invalid; a crash says nothing.
A model that was only read, without its weights, can only count.

Streams are decoded together and may come at any time. A load or a list of jobs has the worker to itself.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from scope_edge.providers.llama import warmup
from scope_edge.providers.llama.batch import Batcher
from scope_edge.providers.llama.messages import (
    FrameError,
    Job,
    JobResult,
    Layout,
    LoadOptions,
    TextPiece,
    job_from_body,
    read_frame,
    write_frames,
)
from scope_edge.providers.llama.tasks import Task

if TYPE_CHECKING:
    from scope_edge.providers.llama.native import Vocabulary

BEAT_SECONDS = 0.5
# How long reading other prompts may hold up a step of the streams that write.
STALL_SECONDS = 0.25


def main() -> None:
    """Serve until the parent is gone."""
    # Native code prints to standard output as it likes: it gets standard error, the answers the real output.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    os.environ["GGML_NO_BACKTRACE"] = "1"  # an assertion that fails would start a debugger
    from scope_edge.providers.llama import native  # loads llama.cpp, so only now

    native.start()
    Worker(os.fdopen(os.dup(0), "rb"), answers).serve()


class Worker:
    """One model at a time, and in it one list of jobs or any number of streams."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests, self._answers = requests, answers
        self._lock, self._hearing = threading.Lock(), threading.Lock()
        self._queue: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        # Requests whose cancel was read and is not yet handled. listed: the list of jobs under way.
        self._cancels: set[int] = set()
        self._listed: int | None = None
        self._deadline = float("inf")
        self._vocabulary: Vocabulary | None = None
        self._streams: Streams | None = None

    def serve(self) -> None:
        """Answer requests until the input ends."""
        for loop in (self._listen, self._beat):
            threading.Thread(target=loop, daemon=True).start()
        while True:
            if self._queue.empty() and self._streams is not None and self._streams.busy:
                self._streams.advance()
            else:
                self._handle(self._queue.get())

    def _handle(self, request: dict[str, Any]) -> None:
        operations: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
            "load": self._load,
            "read": self._read,
            "run": self._run,
            "stream": self._stream,
            "count": self._count,
            "cancel": self._drop,
        }
        try:
            body = operations[request["op"]](request)
        except (RuntimeError, ValueError, KeyError, TypeError, MemoryError, OSError) as error:
            body = {"type": "refused", "why": _one_line(error), "usage": isinstance(error, ValueError)}
        if body is not None:
            self._send([body | {"id": request.get("id")}])

    def _listen(self) -> None:
        # A request that no memory is left for ends the worker, too: it would be left unanswered.
        with contextlib.suppress(FrameError, OSError, MemoryError):
            while (request := read_frame(self._requests)) is not None:
                with self._hearing:
                    self._queue.put(request)
                    # Last: once a decode breaks off for it, the cancel is there to be handled.
                    if request["op"] == "cancel":
                        self._cancels.add(request["id"])
        os._exit(0)

    def _beat(self) -> None:
        while True:
            self._send([{"type": "beat"}])
            time.sleep(BEAT_SECONDS)

    def _send(self, bodies: Sequence[dict[str, Any]]) -> None:
        try:
            with self._lock:
                write_frames(self._answers, bodies)
        except OSError:
            os._exit(0)

    def _cancelled(self) -> bool:
        """Return whether all that is being decoded was cancelled; called while decoding."""
        if self._listed is not None:
            return self._listed in self._cancels or time.monotonic() > self._deadline
        return self._streams is not None and self._streams.abandoned()

    def _load(self, request: dict[str, Any]) -> dict[str, Any]:
        import llama_cpp

        from scope_edge.providers.llama.native import Native

        self._check_alone()
        layout, options = Layout(**request["layout"]), LoadOptions(**request["options"])
        self._vocabulary = self._streams = None
        native = self._vocabulary = Native(Path(request["path"]), options, self._cancelled)
        speed = warmup.warm_up(native, layout, known_lanes=request.get("lanes"))
        # A prompt is fast to read from some sixteen tokens at once on.
        chunk = int(min(max(speed.prefill_tps * STALL_SECONDS, 16), layout.batch))
        batcher = Batcher(native, replace(layout, lanes=speed.lanes, chunk=chunk), self._cancelled)
        self._streams = Streams(batcher, self._send, self._cancels)
        gc.freeze()  # all objects so far stay, so the collector need not visit them while decoding
        gpu = bool(llama_cpp.llama_supports_gpu_offload()) and options.gpu_layers != 0
        return {"type": "ready", **asdict(speed), "context": native.context, "gpu": gpu}

    def _read(self, request: dict[str, Any]) -> dict[str, Any]:
        from scope_edge.providers.llama.native import Vocabulary, open_model

        self._check_alone()
        self._streams = None
        self._vocabulary = Vocabulary(open_model(Path(request["path"]), vocabulary_only=True))
        return {"type": "ready"}

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        def done(index: int, result: JobResult) -> None:
            self._send([{"type": "done", "id": request.get("id"), "index": index, "result": asdict(result)}])

        self._check_alone()
        batcher, timeout = self._loaded().batcher, request.get("timeout")
        jobs = tuple(self._rendered(job_from_body(one)) for one in request["jobs"])
        self._deadline = float("inf") if timeout is None else time.monotonic() + float(timeout)
        self._listed = request["id"]
        try:
            results, stats = batcher.run(jobs, done if request.get("each") else None)
        finally:
            self._listed = None
        return {"type": "results", "results": [asdict(one) for one in results], "stats": asdict(stats)}

    def _stream(self, request: dict[str, Any]) -> None:
        streams = self._loaded()
        streams.begin(request["id"], self._rendered(job_from_body(request["job"])), request.get("timeout"))

    def _count(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._vocabulary is None:
            raise RuntimeError("no model is loaded")
        pieces = self._rendered(job_from_body(request["job"])).pieces
        tokens = sum(len(self._vocabulary.tokenize(one.text, markup=one.markup)) for one in pieces)
        return {"type": "counted", "tokens": tokens}

    def _drop(self, request: dict[str, Any]) -> None:
        with self._hearing:
            self._cancels.discard(request["id"])
        if self._streams is not None:
            self._streams.drop(request["id"])

    def _check_alone(self) -> None:
        """Raise RuntimeError while streams are under way."""
        if self._streams is not None and self._streams.busy:
            raise RuntimeError("streams are under way; a load or a list of jobs has the worker alone")

    def _loaded(self) -> Streams:
        if self._streams is None:
            raise RuntimeError("no model is loaded")
        return self._streams

    def _rendered(self, job: Job) -> Job:
        """Return the job with its conversation in the model's own chat template. Raises ValueError."""
        vocabulary = self._vocabulary
        if not job.chat or vocabulary is None:
            return job
        from scope_edge.providers.llama.chat_template import render_chat

        if vocabulary.chat_template is None:
            raise ValueError("it carries no chat template; take the instruct version of the model")
        bos, eos, adds = vocabulary.ends_of_text
        pieces = render_chat(vocabulary.chat_template, job.chat, bos=bos, eos=eos)
        # Where a vocabulary needs its begin token, and the template leaves that to the tokenizer.
        bare = adds and not pieces[0].text.startswith(bos)
        return replace(job, pieces=(TextPiece(bos, markup=True), *pieces) if bare else pieces, chat=())


class Streams:
    """The streams of one loaded model, decoded together. What a step gives all of them is sent in one go."""

    def __init__(
        self, batcher: Batcher, send: Callable[[Sequence[dict[str, Any]]], None], cancelled: AbstractSet[int]
    ) -> None:
        """Begin without streams. cancelled: requests to be broken off, added by another thread; `drop` follows."""
        self.batcher, self._send, self._cancelled = batcher, send, cancelled
        self._unsent: list[dict[str, Any]] = []
        self._tasks: dict[int, Task] = {}
        self._until = float("inf")

    @property
    def busy(self) -> bool:
        """Whether any is under way."""
        return bool(self._tasks)

    def begin(self, number: int, job: Job, timeout: float | None) -> None:
        """Start a request; `advance` sends its text."""

        def tell(text: str, tokens: int) -> None:
            self._unsent.append({"type": "piece", "id": number, "text": text, "tokens": tokens})

        def done(result: JobResult) -> None:
            self._tasks.pop(number, None)
            sample = result.samples[0] if result.samples else None
            end = {
                "type": "end",
                "id": number,
                "ending": "cancelled" if sample is None else sample.ending,
                "tokens": 0 if sample is None else sample.tokens,
                "prompt_tokens": result.prompt_tokens,
                "reused_tokens": result.reused_tokens,
                "speed": task.speed(time.perf_counter()),
            }
            self._unsent.append(end)

        until = float("inf") if timeout is None else time.monotonic() + timeout
        task = self.batcher.stream(job, tell, done, until)
        if task.problem is not None:
            refused = {"type": "refused", "id": number, "why": task.problem, "usage": True}
            self._send([{**refused, "overflow": task.overflows}])
            return
        self._tasks[number] = task
        self._send([{"type": "begun", "id": number, "prompt_tokens": task.prompt}])

    def drop(self, number: int) -> None:
        """Break a stream off, unless it has ended."""
        task = self._tasks.get(number)
        if task is not None:
            self.batcher.drop(task)
            self._flush()

    def abandoned(self) -> bool:
        """Return whether all were cancelled or are late, so that a decode may stop in the middle. Called many times a step."""
        if not self._tasks:
            return False
        return time.monotonic() > self._until or (bool(self._cancelled) and self._tasks.keys() <= self._cancelled)

    def advance(self) -> None:
        """Do one decode for all. An error of the engine's ends them all with a refusal."""
        self._until = max((task.until for task in self._tasks.values()), default=float("inf"))
        try:
            self.batcher.advance()
        except (RuntimeError, ValueError, MemoryError) as error:
            self._unsent += [{"type": "refused", "id": number, "why": _one_line(error)} for number in self._tasks]
            self._tasks.clear()
        self._flush()

    def _flush(self) -> None:
        if self._unsent:
            self._send(self._unsent)
            self._unsent = []


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
