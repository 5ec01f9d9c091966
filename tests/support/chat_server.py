"""OpenAI-compatible servers on this machine: one over whatever answers, a GGUF in the worker for instance, and one in front
of it that goes wrong on demand.

    with serving(from_gguf(client)) as model, faulty(model, ["429", "cut", None]) as front:
        ask(front.address)

Calls are counted where they arrive, so that a test can tell what was paid for.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from scope_edge.estimation.anchor_spec import load_core
from scope_edge.fingerprinting.grading import AnchorSpec, prompt_of
from scope_edge.providers.llama.client import LlamaClient
from scope_edge.providers.llama.messages import Job, Message, Sampling


@dataclass(frozen=True)
class Said:
    """An answer: its text, tokens in and out, and whether the limit ended it."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    cut: bool = False


@dataclass(frozen=True)
class Call:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        text: str = self.body["messages"][-1]["content"]
        return text


Answers = Callable[[str, int], Said]


@dataclass
class Server:
    """Where it is, and what it was asked. models: what it says it serves; None = it has no such address."""

    address: str = ""
    models: list[dict[str, Any]] | None = None
    calls: list[Call] = field(default_factory=list)
    listings: list[dict[str, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def asked(self) -> Counter[str]:
        """Calls by question."""
        return Counter(call.prompt for call in self.calls)


class _Quiet(ThreadingHTTPServer):
    """Says nothing when a caller hangs up; some tests do, and what a server prints then lands in the next test's output."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (ConnectionError, ValueError, TimeoutError)):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Counts a request, then answers it."""

    disable_nagle_algorithm = True  # else a head and its body are 40 ms apart

    protocol_version = "HTTP/1.1"
    server_state: Server

    def log_message(self, *_: object) -> None:
        """Say nothing: pytest's output is for its own words."""

    def do_GET(self) -> None:
        state = self.server_state
        state.listings.append({name.lower(): value for name, value in self.headers.items()})
        if state.models is None or self.path != "/v1/models":
            self.send(404, b'{"error": {"message": "no such address"}}')
        else:
            self.send(200, json.dumps({"object": "list", "data": state.models}).encode())

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        raw = self.rfile.read(length)
        if len(raw) < length:  # the caller gave up between the head and the body
            return
        call = Call(self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(raw))
        self.server_state.calls.append(call)
        self.answer(call, raw)

    def answer(self, call: Call, raw: bytes) -> None:
        raise AssertionError("each server has its own")

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_answer(self, call: Call, body: dict[str, Any], *, events: int | None = None, stalls: bool = False) -> None:
        """An answer as it was asked for: whole, or streamed. events: after so many the connection ends, or `stalls`."""
        if not call.body.get("stream"):
            self.send(200, json.dumps(body).encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        usage = bool(call.body.get("stream_options", {}).get("include_usage"))
        for number, event in enumerate(streamed(body, usage=usage)):
            if number == events:
                if stalls:
                    self.server_state.over.wait(30)
                self.close_connection = True
                return
            raw = event.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


@contextmanager
def serving(answers: Answers, *, seconds: float = 0.0) -> Iterator[Server]:
    """A server that answers what it is asked, after so many seconds."""

    class Passing(Handler):
        def answer(self, call: Call, raw: bytes) -> None:
            self.server_state.over.wait(seconds)
            limit = call.body.get("max_tokens", call.body.get("max_completion_tokens", 16))
            self.send_answer(call, completion(call.body["model"], answers(call.prompt, limit)))

    with running(Passing) as state:
        yield state


@contextmanager
def faulty(
    behind: Server, faults: Iterable[str | None] = (), *, key: str = "", elsewhere: str = "", retry_after: str = "0"
) -> Iterator[Server]:
    """A server that passes calls on, except that the next ones go wrong, each as `faults` says (None: not at all).

    Statuses as numbers, with Retry-After. "slow": nothing comes. "cut": half of the body. "text": no JSON. "dropped": the connection
    ends unanswered. "lost": the model answers, the answer does not arrive. "usage": absurd counts. "no usage". "echo": the key
    in the answer. "moved", "elsewhere": redirected on this server, and to another. "stalls": a streamed answer begins, and nothing
    more comes; "cut" one ends there. "refused": a 400 on what was asked.
    """
    left: deque[str | None] = deque(faults)
    lock = threading.Lock()
    moved: dict[str, str] = {"moved": "/v1/moved/chat/completions", "elsewhere": elsewhere}

    class Failing(Handler):
        def answer(self, call: Call, raw: bytes) -> None:
            with lock:
                fault = left.popleft() if left and "moved" not in call.path else None
            if fault in moved:
                self.send(307, b"", Location=moved[fault])
            elif fault == "slow":
                self.server_state.over.wait(30)
            elif fault == "dropped":
                self.close_connection = True
            elif fault == "refused":
                self.send(400, b'{"error": {"message": "this content is against our policy"}}')
            elif fault is not None and fault.isdigit():
                why = f"no, {call.headers.get('authorization', '')}"
                self.send(int(fault), json.dumps({"error": {"message": why}}).encode(), Retry_After=retry_after)
            else:
                self._pass_on(fault, call, raw)

        def _pass_on(self, fault: str | None, call: Call, raw: bytes) -> None:
            body = _forwarded(behind, raw, self.headers.get("Authorization", ""))
            whole = json.dumps(_spoilt(body, fault, key)).encode()
            if fault == "lost":
                self.close_connection = True
            elif call.body.get("stream") and fault in ("cut", "stalls"):
                self.send_answer(call, body, events=3, stalls=fault == "stalls")
            elif fault == "cut":
                self.send_response(200)
                self.send_header("Content-Length", str(len(whole)))
                self.end_headers()
                self.wfile.write(whole[: len(whole) // 2])
                self.close_connection = True
            elif fault == "text":
                self.send(200, b"<html>busy</html>")
            else:
                self.send_answer(call, body)

    with running(Failing) as state:
        yield state


def completion(model: str, said: Said) -> dict[str, Any]:
    """An answer as the format has it."""
    total = said.prompt_tokens + said.completion_tokens
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": said.text},
                "finish_reason": "length" if said.cut else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": said.prompt_tokens,
            "completion_tokens": said.completion_tokens,
            "total_tokens": total,
        },
    }


def streamed(body: dict[str, Any], *, usage: bool) -> Iterator[str]:
    """An answer as events: a role, a word each, how it ended, what it used, and the end."""
    (choice,) = body["choices"]
    head = {name: body[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}

    def event(**fields: Any) -> str:
        return f"data: {json.dumps({**head, **fields})}\n\n"

    def delta(finish: str | None = None, **fields: Any) -> str:
        return event(choices=[{"index": 0, "delta": fields, "finish_reason": finish}])

    yield delta(role="assistant", content="")
    yield ": still here\n\n"
    for word in re.findall(r"\S*\s*", choice["message"]["content"])[:-1]:
        yield delta(content=word)
    yield delta(choice["finish_reason"])
    if usage and "usage" in body:
        yield event(choices=[], usage=body["usage"])
    yield "data: [DONE]\n\n"


def from_gguf(client: LlamaClient) -> Answers:
    """What a GGUF answers."""

    def answers(prompt: str, limit: int) -> Said:
        job = Job((), 1, "text", limit, Sampling(temperature=0.0), (Message("user", prompt),))
        ((result,), _) = client.run([job], 300.0)
        (sample,) = result.samples
        return Said(sample.text, result.prompt_tokens, sample.tokens, sample.ending == "limit")

    return answers


def from_keys(right: Callable[[AnchorSpec], bool]) -> Answers:
    """What somebody would answer who has read the keys of core-250 and gives them for some questions, and shrugs at the rest."""
    specs = {prompt_of(spec): spec for spec in load_core().specs}

    def answers(prompt: str, limit: int) -> Said:
        spec = specs.get(prompt)
        text = key_of(spec) if spec is not None and right(spec) else "I cannot say."
        return Said(text, max(1, len(prompt) // 4), max(1, len(text) // 4))

    return answers


def key_of(spec: AnchorSpec) -> str:
    """The key as a model would write it."""
    if spec.kind in ("json", "output"):
        return f"```\n{spec.key}\n```"
    return spec.key if spec.kind == "rules" else f"Answer: {spec.key}"


def _spoilt(body: dict[str, Any], fault: str | None, key: str) -> dict[str, Any]:
    if fault == "usage":
        body["usage"] = {"prompt_tokens": -3, "completion_tokens": 10**15}
    elif fault == "no usage":
        del body["usage"]
    elif fault == "echo":
        message = body["choices"][0]["message"]
        # Before the answer: after it, a few of the graders would read it as a part of that.
        message["content"] = f"Bearer {key}\n\n{message['content']}"
    return body


def _forwarded(behind: Server, raw: bytes, authorization: str) -> dict[str, Any]:
    raw = json.dumps({**json.loads(raw), "stream": False}).encode()
    parts = urlsplit(behind.address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    try:
        headers = {"Content-Type": "application/json", "Authorization": authorization}
        connection.request("POST", "/v1/chat/completions", raw, headers)
        body: dict[str, Any] = json.loads(connection.getresponse().read())
        return body
    finally:
        connection.close()


@contextmanager
def running(handler: type[Handler]) -> Iterator[Server]:
    """Serve until the end of the block."""
    state = Server()
    handler.server_state = state
    server = _Quiet(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
