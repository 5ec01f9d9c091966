"""The server under load, and what it adds to a call: beside a bare relay of bytes and, where it is installed, LiteLLM's proxy.

    python benchmarks/serve.py load --minutes 10
    python benchmarks/serve.py compare --litellm VENV/bin/litellm

`load`: clients ask without pause, streamed and not, by `auto`, pinned to a cloud model and on the device, whose worker is killed
again and again, while the cloud stub fails a part of its calls. Every request must come to one whole answer, the one to its own
question, or to one clear error; memory, file descriptors and sequences must not grow; the ledger must agree with the journal and
with what the stub has billed. `compare` measures all targets in turn, round after round, against one stub that answers at once.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from host import table
from serve_stub import COMPLETION_TOKENS, PROMPT_TOKENS, answer_to

HERE = Path(__file__).resolve().parent
DEVICE, CLOUD = "gemma-2-2b-it", "llama-3.1-70b-instruct"
QUESTION = "How many primes are there below one hundred, and how do you know? Say it with"
KEYS = {"STUB_KEY": "sk-stub"}
_MICRO = 1_000_000
# Seconds of silence after which a client gives up.
_PATIENCE = 60.0
# One whose call takes longer is not measured: something is wrong with it here.
_MOST_SECONDS = 5.0


class Target:
    """Somebody to ask. token: None = none is wanted."""

    def __init__(self, name: str, port: int, model: str, token: str | None = None) -> None:
        self.name, self.port, self.model, self.token = name, port, model, token

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is kept."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)

    def ask(self, connection: http.client.HTTPConnection, text: str, **fields: Any) -> http.client.HTTPResponse:
        """A question; its answer is to be read."""
        body = {"model": self.model, "messages": [{"role": "user", "content": text}], **fields}
        headers = {"content-type": "application/json"}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        return connection.getresponse()


@contextmanager
def helper(*args: str) -> Iterator[int]:
    """The stub or the relay; its port."""
    command = [sys.executable, str(HERE / "serve_stub.py"), *args]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


@contextmanager
def server(
    home: Path, settings: str, *args: str, model: str = CLOUD
) -> Iterator[tuple[psutil.Process, int, str, float]]:
    """Ours: its process, port, token, and the seconds until its first answer, to a question to the model."""
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(settings, "utf-8")
    env = {**os.environ, **environment(home)}
    begun = time.perf_counter()
    command = [sys.executable, "-m", "scope_edge", "serve", "--port", "0", "--json", *args]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        port = json.loads(process.stdout.readline())["port"]
        token = (home / "data" / "server" / "token").read_text().strip()
        until_answered(Target("ours", port, model, token))
        yield psutil.Process(process.pid), port, token, time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait(60)


def environment(home: Path) -> dict[str, str]:
    """A user whose home is there."""
    return KEYS | {
        "SCOPE_EDGE_CONFIG": str(home / "config.toml"),
        "SCOPE_EDGE_DATA_DIR": str(home / "data"),
        "SCOPE_EDGE_CACHE_DIR": str(home / "cache"),
    }


def until_answered(target: Target, seconds: float = 120) -> None:
    """Ask until there is an answer."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        connection = target.connect()
        try:
            answer = target.ask(connection, f"{QUESTION} ready")
            answer.read()
            if answer.status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.02)
    raise SystemExit(f"nobody answers on port {target.port}")


# What becomes of the requests of `load`.


def outcome(target: Target, text: str, stream: bool, nonce: str | None) -> str:
    """One request: "complete", "error ..." or, what must not be, "BAD ...". nonce: what the answer has to begin with."""
    connection = target.connect()
    try:
        answer = target.ask(connection, text, stream=stream, max_tokens=24)
        raw = answer.read()
        if answer.status != 200:
            error = json.loads(raw)["error"]
            return f"error {answer.status} {error['code']}"
        said = streamed(raw) if stream else str(json.loads(raw)["choices"][0]["message"]["content"])
        if said.startswith("error"):
            return said
        if nonce is not None and said != answer_to(text):
            return f"BAD answer {said[:60]!r}"
        return "complete"
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        return f"BAD {type(error).__name__}: {error}"
    finally:
        connection.close()


def streamed(raw: bytes) -> str:
    """The text of a stream; "error ..." where it ends in one. Raises ValueError: neither an end nor an error, or both."""
    rows = [row.removeprefix("data: ") for row in raw.decode().split("\n\n") if row]
    ends = sum(row == "[DONE]" for row in rows)
    events = [json.loads(row) for row in rows if row != "[DONE]"]
    errors = [one["error"] for one in events if "error" in one]
    if ends + len(errors) != 1 or (ends and rows[-1] != "[DONE]"):
        raise ValueError(f"{ends} ends and {len(errors)} errors")
    if errors:
        return f"error midway {errors[0]['code']}"
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in events if one["choices"])


class Load:
    """Clients that ask without pause until the time is up."""

    def __init__(self, port: int, token: str, seconds: float) -> None:
        self._port, self._token, self._until = port, token, time.monotonic() + seconds
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def client(self, number: int) -> None:
        """One of them."""
        luck = random.Random(number)
        asked = 0
        while time.monotonic() < self._until:
            model = luck.choices(("auto", CLOUD, DEVICE), (5, 3, 2))[0]
            target = Target(model, self._port, model, self._token)
            asked += 1
            nonce = f"n{number}x{asked}"
            # Only the stub's answers can be foretold; which of the two answers `auto` is the router's to say.
            found = outcome(target, f"{QUESTION} {nonce}", luck.random() < 0.5, nonce if model == CLOUD else None)
            with self._lock:
                self.outcomes[model, found] += 1


def load(options: argparse.Namespace) -> int:
    """The load proof; 1 where something was not as it must be."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder)
        gguf = options.gguf or make_gguf(home)
        stub = stack.enter_context(helper("stub", "--fail", str(options.fail), "--seconds", "0.02"))
        # Priced so that a token is a whole number of the ledger's micro-dollars.
        settings = (
            f'pool = "{DEVICE},{CLOUD}"\nalpha = 0.5\nmax_usd_day = 1e6\nestimator = "prior"\n'
            f'[models."{DEVICE}"]\ngguf = "{gguf}"\n'
            f'[models."{CLOUD}"]\nendpoint = "http://127.0.0.1:{stub}/v1"\nkey_env = "STUB_KEY"\nusd_in = 1.0\nusd_out = 2.0\n'
        )
        process, port, token, _ = stack.enter_context(server(home, settings, "--queue", "256"))
        made = Load(port, token, options.minutes * 60)
        watched = Watched(process, port, token, options.kill_seconds)
        begun = time.monotonic()
        with ThreadPoolExecutor(options.clients + 1) as pool:
            watching = pool.submit(watched.run)
            list(pool.map(made.client, range(options.clients)))
            watched.over.set()
            watching.result()
        seconds = time.monotonic() - begun
        time.sleep(2)
        counts = json.loads(fetch(stub, "/counts", None))
        left = gauges(port, token)
        bad = report_load(made, watched, left, seconds, options)
        bad += report_money(home, counts)
    return 1 if bad else 0


class Watched:
    """The server's process: what it takes, looked at every few seconds, and its workers, killed now and then."""

    def __init__(self, process: psutil.Process, port: int, token: str, kill_seconds: float) -> None:
        self._process, self._port, self._token, self._every = process, port, token, kill_seconds
        self.over = threading.Event()
        self.kills = 0
        self.rows: list[tuple[float, int, int]] = []

    def run(self) -> None:
        """Until it is over."""
        next_kill = time.monotonic() + self._every
        while not self.over.wait(2.0):
            self.rows.append((self._process.memory_info().rss, self._process.num_fds(), self._process.num_threads()))
            if time.monotonic() >= next_kill:
                next_kill += self._every
                for worker in self._process.children(recursive=True):
                    worker.kill()
                    self.kills += 1


def report_load(
    made: Load, watched: Watched, left: dict[str, float], seconds: float, options: argparse.Namespace
) -> int:
    """Print what became of it; how much was wrong."""
    total = sum(made.outcomes.values())
    print(f"{options.clients} clients, {seconds:.0f} s, {total} requests, {total / seconds:.0f} a second;", end=" ")
    print(f"{watched.kills} workers killed\n")
    rows = [[model, found, str(n)] for (model, found), n in sorted(made.outcomes.items())]
    print(table(["asked for", "came of it", "requests"], rows), "\n")
    third = max(len(watched.rows) // 3, 1)
    settled, last = watched.rows[third : 2 * third] or watched.rows, watched.rows[-third:]
    parts = (("resident memory, MB", 1e-6, 0), ("file descriptors", 1, 1), ("threads", 1, 2))
    rows = [
        [name, *(f"{scale * statistics.mean(row[n] for row in part):.0f}" for part in (settled, last))]
        for name, scale, n in parts
    ]
    print(table(["of the server's process, mean", "second third", "last third"], rows), "\n")
    print(
        f"afterwards: {left['running']:.0f} running, {left['waiting']:.0f} waiting, {left['device_sequences']:.0f} sequences\n"
    )
    bad = sum(n for (_, found), n in made.outcomes.items() if found.startswith("BAD"))
    memory, files = (
        statistics.mean(row[n] for row in last) / statistics.mean(row[n] for row in settled) for n in (0, 1)
    )
    wrong = bad + int(left["running"] + left["waiting"] + left["device_sequences"]) + int(max(memory, files) > 1.1)
    print(f"neither a whole answer nor one clear error: {bad}; the last third over the second:", end=" ")
    print(f"memory {memory:.3f}, file descriptors {files:.3f}\n")
    return wrong


def report_money(home: Path, counts: dict[str, int]) -> int:
    """Compare the ledger with the journal and with the stub; 1 where they differ."""
    env = {**os.environ, **environment(home)}
    spent = json.loads(command(["log", "spend", "--json"], env))
    entries = json.loads(command(["log", "--json", "--limit", "1000000"], env))
    day = next(one for one in spent["spans"] if one["span"] == "day") if "spans" in spent else spent["day"]
    runs = [one["run"] for one in entries if one["run"] is not None]
    journal = sum(one["usd"] or 0.0 for one in runs)
    whole = (PROMPT_TOKENS * 1 + COMPLETION_TOKENS * 2) * counts["answered"] / _MICRO
    calls = day["calls"]
    print(f"stub: {counts}")
    print(f"ledger: {calls} calls, ${day['spent']:.6f} spent, ${day['reserved']:.6f} still reserved")
    print(f"journal: {len(entries)} entries, ${journal:.6f}; whole answers of the stub alone: ${whole:.6f}")
    # What was cut or dropped is settled by an estimate, which the ledger rounds up to a micro-dollar.
    off = abs(day["spent"] - journal)
    billed = counts["answered"] + counts["cut"] + counts["dropped"]
    exact = off <= billed / _MICRO and day["reserved"] == 0 and day["spent"] >= whole - 1e-9
    print(
        f"ledger and journal differ by ${off:.6f}, by rounding at most ${billed / _MICRO:.6f}: {'agree' if exact else 'DIFFER'}"
    )
    return 0 if exact else 1


def command(args: Sequence[str], env: dict[str, str]) -> str:
    """What one of our commands prints."""
    done = subprocess.run(
        [sys.executable, "-m", "scope_edge", *args], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout


def fetch(port: int, path: str, token: str | None) -> bytes:
    """A body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={} if token is None else {"authorization": f"Bearer {token}"})
    raw = connection.getresponse().read()
    connection.close()
    return raw


def gauges(port: int, token: str) -> dict[str, float]:
    """What the server says is under way."""
    lines = fetch(port, "/metrics", token).decode().splitlines()
    rows = [line.split(" ") for line in lines if not line.startswith("#") and "{" not in line]
    return {name.removeprefix("scope_edge_"): float(value) for name, value in rows}


def make_gguf(folder: Path) -> Path:
    """The small random model of the tests."""
    sys.path.insert(0, str(HERE.parent / "tests" / "support"))
    from tiny_qwen3 import tiny_gguf

    return tiny_gguf(folder)


# What a call costs beside the model.


def latencies(target: Target, calls: int, stream: bool) -> list[float]:
    """Seconds of calls one after another, over one connection, to the last byte."""
    connection, found = target.connect(), []
    for number in range(calls):
        begun = time.perf_counter()
        answer = target.ask(connection, f"{QUESTION} {number}", stream=stream)
        raw = answer.read()
        found.append(time.perf_counter() - begun)
        assert answer.status == 200, raw
    connection.close()
    return found


def rate(target: Target, clients: int, seconds: float) -> float:
    """Requests a second of several clients at once."""
    until = time.perf_counter() + seconds

    def client(_: int) -> int:
        connection, done = target.connect(), 0
        while time.perf_counter() < until:
            target.ask(connection, f"{QUESTION} {done}").read()
            done += 1
        connection.close()
        return done

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(client, range(clients))) / seconds


def resident(process: psutil.Process) -> float:
    """MB of a process and its children."""
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6


@contextmanager
def litellm(program: str, folder: Path, stub: int) -> Iterator[tuple[psutil.Process, int, float]]:
    """LiteLLM's proxy before the stub: its process, port, and the seconds until its first answer."""
    config = folder / "litellm.yaml"
    config.write_text(
        f"model_list:\n  - model_name: {CLOUD}\n    litellm_params:\n      model: openai/{CLOUD}\n"
        f"      api_base: http://127.0.0.1:{stub}/v1\n      api_key: sk-stub\ngeneral_settings:\n  master_key: sk-proxy\n"
        "litellm_settings:\n  telemetry: false\n  num_retries: 0\n"
        # Without it, it looks for a tokenizer of Llama's on the hub with every stream: 23 s where there is no network.
        "  disable_hf_tokenizer_download: true\n"
    )
    port = free_port()
    begun = time.perf_counter()
    process = subprocess.Popen(
        [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": "127.0.0.1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until_answered(Target("theirs", port, CLOUD, "sk-proxy"))
        yield psutil.Process(process.pid), port, time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait(60)


def free_port() -> int:
    """One that nobody listens on now."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def compare(options: argparse.Namespace) -> int:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder)
        stub = stack.enter_context(helper("stub"))
        relay = stack.enter_context(helper("relay", "127.0.0.1", str(stub)))
        settings = f'pool = "{CLOUD},mistral-large-2407"\nestimator = "prior"\n' + "".join(
            f'[models."{one}"]\nendpoint = "http://127.0.0.1:{stub}/v1"\nkey_env = "STUB_KEY"\n'
            for one in (CLOUD, "mistral-large-2407")
        )
        targets = [Target("bare relay", relay, CLOUD)]
        footprints: list[tuple[str, float, Callable[[], float]]] = []
        # Two of ours, since one that has never decided anything has loaded less.
        for name, model in (("pinned", CLOUD), ("auto", "auto")):
            ours, port, token, up = stack.enter_context(server(home / name, settings, model=model))
            targets.append(Target(name, port, model, token))
            footprints.append((f"scope-edge serve, {name}", up, partial(resident, ours)))
        if options.litellm:
            theirs, their_port, theirs_up = stack.enter_context(litellm(options.litellm, home, stub))
            targets.append(Target("LiteLLM", their_port, CLOUD, "sk-proxy"))
            footprints.append(("LiteLLM", theirs_up, partial(resident, theirs)))
        for stream in (False, True):
            print(measured(targets, options, stream), "\n")
        rates = {target.name: [rate(target, options.clients, options.seconds) for _ in range(3)] for target in targets}
        rows = [[name, f"{statistics.median(found):.0f}"] for name, found in rates.items()]
        print(table([f"{options.clients} clients at once", "requests/s"], rows), "\n")
        rows = [[name, f"{seconds:.1f}", f"{memory():.0f}"] for name, seconds, memory in footprints]
        print(table(["", "start-up, s", "memory after the runs, MB"], rows))
    return 0


def measured(targets: Sequence[Target], options: argparse.Namespace, stream: bool) -> str:
    """Latencies of all targets, taken in turn, and what each adds to the relay."""
    found: dict[str, list[float]] = {target.name: [] for target in targets}
    slow: dict[str, str] = {}
    for target in targets:
        try:
            (first,) = latencies(target, 1, stream)
            if first > _MOST_SECONDS:
                slow[target.name] = f"a call took {first:.0f} s: left out"
                continue
            latencies(target, options.warm, stream)
        except TimeoutError:
            slow[target.name] = f"nothing for {_PATIENCE:.0f} s: left out"
    asked = [target for target in targets if target.name not in slow]
    for _ in range(options.rounds):
        for target in asked:
            found[target.name] += latencies(target, options.calls, stream)
    base = [quantile(found[targets[0].name], q) for q in (0.5, 0.99)]
    rows = []
    for name, seconds in found.items():
        if not seconds:
            rows.append([name, slow[name], "", "", ""])
            continue
        taken = [1e3 * quantile(seconds, q) for q in (0.5, 0.99)]
        added = [one - 1e3 * least for one, least in zip(taken, base, strict=True)]
        rows.append([name, *(f"{one:.2f}" for one in (*taken, *added))])
    kind = "streamed, to the last byte" if stream else "not streamed"
    return table([kind, "p50, ms", "p99, ms", "added p50, ms", "added p99, ms"], rows)


def quantile(values: Sequence[float], q: float) -> float:
    """Of the values."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "compare"))
    parser.add_argument("--minutes", type=float, default=10.0, help="of load")
    parser.add_argument("--clients", type=int, help="at once; 64 of load, 16 of compare")
    parser.add_argument("--fail", type=float, default=0.2, help="share of the cloud stub's calls")
    parser.add_argument("--kill-seconds", type=float, default=60.0, help="between two kills of the device worker")
    parser.add_argument("--gguf", type=Path, help="the device model; default a small random one")
    parser.add_argument("--litellm", help="the program of LiteLLM's proxy; left out without it")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=50, help="a target and round")
    parser.add_argument("--warm", type=int, default=30, help="calls before anything is measured")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement of requests a second")
    options = parser.parse_args()
    options.clients = options.clients or (64 if options.what == "load" else 16)
    raise SystemExit(load(options) if options.what == "load" else compare(options))


if __name__ == "__main__":
    main()
