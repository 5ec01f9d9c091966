"""The child process that owns llama.cpp. Run as a script by client.py; it ends when its standard input closes.

In: {"op": "load" | "read" | "run" | "stream" | "count" | "cancel", ...}, each with an id; a cancel has that of what it is for.
Out: {"type": "beat"} twice a second from a thread of its own, and for every load, read, run and count one {"type": "ready" |
"results" | "counted" | "refused", ...}; before the results, {"type": "done"} for every job as it is done, where that was asked
for; for streams what streams.py says. A refusal is llama.cpp's own, or says what of the request cannot be done; a crash says
nothing. A model that was only read, its weights left out, can count and nothing else.

Streams are decoded together and may come at any time. A load or a list of jobs has the worker alone.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from scope_edge.providers.llama.batch import Batcher
    from scope_edge.providers.llama.messages import Job, JobResult
    from scope_edge.providers.llama.native import Vocabulary
    from scope_edge.providers.llama.streams import Streams

BEAT_SECONDS = 0.5
# How long reading others' prompts may hold up a step of those who write.
STALL_SECONDS = 0.25


def main() -> None:
    """Serve until the parent is gone."""
    # Native code prints to standard output as it likes: leave it standard error and keep the real one to ourselves.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    os.environ["GGML_NO_BACKTRACE"] = "1"  # an assertion that fails would start a debugger
    if len(sys.argv) > 1:
        # Last our own folder's parent: it may be the current folder, and must not hide an installed library.
        sys.path[:] = [
            *json.loads(sys.argv[1]),
            next(str(one.parent) for one in Path(__file__).resolve().parents if one.name == "scope_edge"),
        ]
    from scope_edge.providers.llama import native

    native.start()
    Worker(os.fdopen(os.dup(0), "rb"), answers).serve()


class Worker:
    """One model at a time, and in it one list of jobs or any number of streams; the end of the input is heard in between."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests, self._answers = requests, answers
        self._lock, self._hearing = threading.Lock(), threading.Lock()
        self._queue: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        # Requests whose cancel was read, and is not yet handled. listed: the list of jobs that is being run.
        self._cancels: set[int] = set()
        self._listed: int | None = None
        self._deadline = float("inf")
        self._batcher: Batcher | None = None
        self._vocabulary: Vocabulary | None = None
        self._streams: Streams | None = None

    def serve(self) -> None:
        """Answer requests for ever."""
        for loop in (self._listen, self._beat):
            threading.Thread(target=loop, daemon=True).start()
        while True:
            if self._queue.empty() and self._streams is not None and self._streams.busy:
                self._streams.advance()
            else:
                self._handle(self._queue.get())

    def _handle(self, request: dict[str, Any]) -> None:
        operations = {
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
            why = " ".join(str(error).split()) or type(error).__name__
            body = {"type": "refused", "why": why, "usage": isinstance(error, ValueError)}
        if body is not None:
            self._send([body | {"id": request.get("id")}])

    def _listen(self) -> None:
        from scope_edge.providers.llama.messages import FrameError, read_frame

        while True:
            try:
                request = read_frame(self._requests)
            except (FrameError, OSError):
                request = None
            if request is None:
                os._exit(0)
            with self._hearing:
                self._queue.put(request)
                # Last: once a decode breaks off for it, the cancel is there to be handled.
                if request["op"] == "cancel":
                    self._cancels.add(request["id"])

    def _beat(self) -> None:
        while True:
            self._send([{"type": "beat"}])
            time.sleep(BEAT_SECONDS)

    def _send(self, bodies: Sequence[dict[str, Any]]) -> None:
        from scope_edge.providers.llama.messages import write_frames

        try:
            with self._lock:
                write_frames(self._answers, bodies)
        except OSError:
            os._exit(0)

    def _cancelled(self) -> bool:
        """Asked while decoding: whether nobody waits for any of it."""
        if self._listed is not None:
            return self._listed in self._cancels or time.monotonic() > self._deadline
        return self._streams is not None and self._streams.abandoned()

    def _load(self, request: dict[str, Any]) -> dict[str, Any]:
        import llama_cpp

        from scope_edge.providers.llama import warmup
        from scope_edge.providers.llama.batch import Batcher, Layout
        from scope_edge.providers.llama.native import LoadOptions, Native
        from scope_edge.providers.llama.streams import Streams

        self._alone()
        layout, options = Layout(**request["layout"]), LoadOptions(**request["options"])
        self._batcher = self._vocabulary = self._streams = None
        native = self._vocabulary = Native(Path(request["path"]), options, self._cancelled)
        speed = warmup.warm_up(native, layout, known_lanes=request.get("lanes"))
        # A prompt is fast to read from some sixteen tokens at once on.
        chunk = int(min(max(speed.prefill_tps * STALL_SECONDS, 16), layout.batch))
        self._batcher = Batcher(native, replace(layout, lanes=speed.lanes, chunk=chunk), self._cancelled)
        self._streams = Streams(self._batcher, self._send, self._cancels)
        gc.freeze()  # what is there now stays, and need not be looked at again and again while decoding
        return {
            "type": "ready",
            "prefill_tps": speed.prefill_tps,
            "decode_tps": speed.decode_tps,
            "lanes": speed.lanes,
            "context": native.context,
            "gpu": bool(llama_cpp.llama_supports_gpu_offload()) and options.gpu_layers != 0,
        }

    def _read(self, request: dict[str, Any]) -> dict[str, Any]:
        from scope_edge.providers.llama.native import Vocabulary, open_model

        self._alone()
        self._batcher = self._streams = None
        self._vocabulary = Vocabulary(open_model(Path(request["path"]), vocabulary_only=True))
        return {"type": "ready"}

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        from scope_edge.providers.llama.messages import job_from_body

        def done(index: int, result: JobResult) -> None:
            self._send([{"type": "done", "id": request.get("id"), "index": index, "result": asdict(result)}])

        batcher = self._alone()
        if batcher is None:
            raise RuntimeError("no model is loaded")
        timeout = request.get("timeout")
        jobs = tuple(self._rendered(job_from_body(one)) for one in request["jobs"])
        self._deadline = float("inf") if timeout is None else time.monotonic() + float(timeout)
        self._listed = request["id"]
        try:
            results, stats = batcher.run(jobs, done if request.get("each") else None)
        finally:
            self._listed = None
        return {"type": "results", "results": [asdict(one) for one in results], "stats": asdict(stats)}

    def _alone(self) -> Batcher | None:
        """Raises RuntimeError while there are streams."""
        if self._streams is not None and self._streams.busy:
            raise RuntimeError("streams are under way; a load or a list of jobs has the worker alone")
        return self._batcher

    def _stream(self, request: dict[str, Any]) -> None:
        from scope_edge.providers.llama.messages import job_from_body

        if self._streams is None:
            raise RuntimeError("no model is loaded")
        job = self._rendered(job_from_body(request["job"]))
        self._streams.begin(request["id"], job, request.get("timeout"))

    def _count(self, request: dict[str, Any]) -> dict[str, Any]:
        from scope_edge.providers.llama.messages import job_from_body

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

    def _rendered(self, job: Job) -> Job:
        """The job with a conversation in the model's own chat template. Raises ValueError."""
        vocabulary = self._vocabulary
        if not job.chat or vocabulary is None:
            return job
        from scope_edge.providers.llama.chat_template import render_chat
        from scope_edge.providers.llama.messages import TextPiece

        if vocabulary.chat_template is None:
            raise ValueError("it carries no chat template; take the instruct version of the model")
        bos, eos, adds = vocabulary.ends_of_text
        pieces = render_chat(vocabulary.chat_template, job.chat, bos=bos, eos=eos)
        # Where a vocabulary wants its token of begin, and the template leaves that to who tokenizes.
        bare = adds and not pieces[0].text.startswith(bos)
        return replace(job, pieces=(TextPiece(bos, markup=True), *pieces) if bare else pieces, chat=())


if __name__ == "__main__":
    main()
