"""Models on the device behind the server: streamed many at once, freed when a client hangs up, and with the network cut off."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from chat_server import Said, serving
from cli_cases import QUERY, spawn, user
from network_cut import CUT
from scripted_gguf import after, ring
from serve_cases import Served, served
from tracing import Trace

pytest.importorskip("httpx")
if find_spec("llama_cpp") is None or find_spec("uvicorn") is None or find_spec("starlette") is None:
    pytest.skip("llama-cpp-python or the extra `server` is not installed", allow_module_level=True)

SMALL, LARGE = "gemma-2-2b-it", "llama-3.1-70b-instruct"
TEXT = "There are 25 primes below one hundred."
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLED = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "5"},
]


def settings(gguf: Path, cloud: str = "http://127.0.0.1:9/v1") -> str:
    own = f'threads = 1\npool = "{SMALL},{LARGE}"\n[models."{SMALL}"]\ngguf = "{gguf}"\n'
    return own + f'[models."{LARGE}"]\nendpoint = "{cloud}"\nsupports = ["tools"]\n'


@pytest.fixture
def server(tmp_path: Path, scripted_gguf: Path) -> Iterator[Served]:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as cloud,
        served(tmp_path, settings=settings(scripted_gguf, cloud.address)) as made,
    ):
        yield made


def test_many_at_once_and_each_its_own_whole_answer(server: Served) -> None:
    lasts = ring()[::100][:6]
    answers: dict[int, str] = {}

    def ask(n: int) -> None:
        fields = {"max_tokens": 12, "temperature": 0, "stream": bool(n % 2)}
        answers[n] = server.ask(f"{QUERY} Then what is{lasts[n]}", model=SMALL, **fields).text

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: after(last, 12) for n, last in enumerate(lasts)}
    assert server.metric("device_sequences") == 0 and server.metric("device_models_loaded") == 1


def test_a_client_that_hangs_up_frees_its_sequence(server: Served) -> None:
    body = {"model": SMALL, "stream": True, "max_tokens": 4000, "messages": [{"role": "user", "content": QUERY}]}
    connection, answer = server.begin("POST", "/v1/chat/completions", body)
    assert answer.read1(10) and server.metric("device_sequences") == 1
    answer.close()
    connection.close()
    server.until(lambda: server.metric("device_sequences") == 0 and server.metric("running") == 0)
    assert spawn(["log", "--json"], server.env).json[0]["run"]["ending"] == "cancelled"


def test_tools_go_past_the_device(server: Served) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    found = server.ask(model="auto:cheap", tools=tools)
    assert found.headers["x-scope-edge-model"] == LARGE and found.headers["x-scope-edge-attempts"] == "0"
    assert server.ask(model="auto:local", tools=tools).status == 400


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "unsupported_parameter"),
        ({"messages": [{"role": "user", "content": "one two " * 40_000}]}, "context_length_exceeded"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, PICTURE]}]},
            "unsupported_parameter",
        ),
        ({"messages": [{"role": "user", "content": "x"}, *CALLED]}, "unsupported_parameter"),
    ],
)
def test_what_a_gguf_that_is_named_cannot_do_is_the_requests_fault(
    server: Served, asked: dict[str, Any], code: str
) -> None:
    sized = {} if "image_url" in str(asked) else {"max_tokens": 10**6}
    for limits in ({}, {"verify": 2}, sized):
        refused = server.ask(model=SMALL, **asked, scope_edge=limits)
        error = refused.json["error"]
        assert (refused.status, error["code"]) == (400, code), (limits, error)


def test_a_worker_that_is_killed_breaks_one_answer_and_no_other(server: Served) -> None:
    body = {"model": SMALL, "stream": True, "max_tokens": 4000, "messages": [{"role": "user", "content": QUERY}]}
    connection, answer = server.begin("POST", "/v1/chat/completions", body)
    assert answer.read1(10)
    (worker,) = psutil.Process(server.process.pid).children(recursive=True)
    worker.kill()
    last = json.loads(answer.read().decode().strip().split("data: ")[-1])
    connection.close()
    assert last["error"]["code"] == "broken_answer"
    assert server.ask(model=SMALL, max_tokens=8).status == 200
    assert server.end() == 0
    assert not worker.is_running()


def used(server: Served) -> None:
    """All it can be asked: a decision, answers of a GGUF, vectors, the page, what it counts; and by the user's own command."""
    assert server.call("POST", "/v1/route", {"text": QUERY}).json["choice"] == SMALL
    assert server.ask(model="auto:local", max_tokens=8).headers["x-scope-edge-model"] == SMALL
    assert server.ask(model=SMALL, max_tokens=8, stream=True).text
    assert server.call("POST", "/v1/embeddings", {"input": QUERY}).status == 200
    assert server.call("GET", "/").status == server.call("GET", "/health").status == 200
    assert spawn(["ask", "--json", "--max-tokens", "460", QUERY], server.env).json["run"]["model"] == SMALL
    assert server.metric("answers_total") >= 2


def test_a_trace_of_an_offline_server_shows_no_connection_to_anywhere_else(
    tmp_path: Path, scripted_gguf: Path, trace: Trace
) -> None:
    own, env = settings(scripted_gguf, "http://192.0.2.1/v1"), {"SCOPE_EDGE_OFFLINE": "1"}
    with served(tmp_path / "home", settings=own, env=env, before=trace.command) as server:
        used(server)
        refused = server.ask(model=LARGE)
        assert refused.status == 400 and "local_only" in refused.json["error"]["message"]
        assert server.end() == 0
    assert trace.ran("child.py"), "the worker is traced, too"
    assert not trace.outside()


def test_a_connection_elsewhere_would_be_seen_in_a_trace_of_the_server(
    tmp_path: Path, scripted_gguf: Path, trace: Trace
) -> None:
    own = f"silence_seconds = 1\n{settings(scripted_gguf, 'http://192.0.2.1/v1')}"
    with served(tmp_path / "home", settings=own, before=trace.command) as server:
        assert server.ask(model=LARGE).status == 502
        assert server.end() == 0
    assert all("192.0.2.1" in line for line in trace.outside()) and trace.outside()


# What a shell does within a namespace of its own: its loopback is up, and there is nothing else.
_INSIDE = """
import fcntl, json, os, socket, struct, subprocess, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    fcntl.ioctl(one, 0x8914, struct.pack("16sh", b"lo", 1 | 64))  # SIOCSIFFLAGS: up, running
server = subprocess.Popen([sys.executable, "-m", "scope_edge", "serve", "--port", "0", "--json"], stdout=subprocess.PIPE)
json.loads(server.stdout.readline())
query = sys.argv[1]
ask = ["ask", "--json", "--max-tokens", "460", query]
for args in (["route", "--json", query], ask, [*ask, "--no-server"]):
    done = subprocess.run([sys.executable, "-m", "scope_edge", *args], capture_output=True, text=True)
    print(json.dumps([done.returncode, done.stdout, done.stderr]))
server.terminate()
print(json.dumps([server.wait(60), "", ""]))
"""


@pytest.mark.usefixtures("can_cut")
def test_all_of_it_works_with_the_network_cut_off(tmp_path: Path, scripted_gguf: Path) -> None:
    shutil.copy(scripted_gguf, tmp_path / "ours.gguf")
    (tmp_path / "config.toml").write_text(settings(tmp_path / "ours.gguf", "http://192.0.2.1/v1"))
    done = subprocess.run(
        [*CUT, sys.executable, "-c", _INSIDE, QUERY],
        env=user(tmp_path) | {"SCOPE_EDGE_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    routed, served_, alone, ended = (json.loads(line) for line in done.stdout.splitlines())
    assert [one[0] for one in (routed, served_, alone, ended)] == [0, 0, 0, 0], done.stdout
    assert json.loads(routed[1])["choice"] == SMALL
    assert json.loads(served_[1])["answer"] == json.loads(alone[1])["answer"], "the same seed, the same answer"
    assert json.loads(served_[1])["run"]["model"] == SMALL
