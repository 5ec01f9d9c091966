"""A server of the user's in a process of its own, and calls to it over plain HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chat_server import Server
from cli_cases import QUERY, command, user

SMALL, LARGE, OTHER = "llama-3.1-8b-instruct", "llama-3.1-70b-instruct", "qwen2.5-72b-instruct"
KEY = "sk-test-0123456789abcdef"


@dataclass
class Reply:
    """An answer: its status, its headers, its body."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def events(self) -> list[Any]:
        """The events of a stream, [DONE] as it is."""
        rows = [row.removeprefix("data: ") for row in self.raw.decode().split("\n\n") if row]
        return [row if row == "[DONE]" else json.loads(row) for row in rows]

    @property
    def text(self) -> str:
        """What an answer says, whole or streamed."""
        if self.headers["content-type"].startswith("text/event-stream"):
            chunks = [one for one in self.events if one != "[DONE]" and one.get("choices")]
            return "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)
        said: str = self.json["choices"][0]["message"]["content"]
        return said


@dataclass
class Served:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    pid: int
    env: dict[str, str]
    port: int
    url: str
    page: str
    token: str
    errors: Path
    extra: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, body: Any = None, **headers: str | None) -> Reply:
        """One request. headers: None leaves one out that would be sent."""
        connection, answer = self.begin(method, path, body, **headers)
        try:
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def begin(
        self, method: str, path: str, body: Any = None, **headers: str | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """One request, its answer not read yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent: dict[str, str | None] = {"authorization": f"Bearer {self.token}"}
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if raw is not None:
            sent["content-type"] = "application/json"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, raw, {name: value for name, value in sent.items() if value is not None})
        return connection, connection.getresponse()

    def ask(self, text: str = QUERY, model: str = "auto", **fields: Any) -> Reply:
        """A conversation of one question; `messages` for another."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return self.call("POST", "/v1/chat/completions", body)

    def metric(self, name: str) -> float:
        """A number of /metrics, all its labels together."""
        lines = self.call("GET", "/metrics").raw.decode().splitlines()
        rows = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return sum(float(value) for label, _, value in rows if label.partition("{")[0] == f"scope_edge_{name}")

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is so."""
        end = time.monotonic() + 30
        while not true():
            assert time.monotonic() < end, "it never came to be"
            time.sleep(0.02)

    def end(self) -> int:
        """As a user ends it; its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def served(
    folder: Path,
    *args: str,
    settings: str = "",
    env: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
) -> Iterator[Served]:
    """A server of a user whose home is `folder`, ended with the block. before: a command that runs it."""
    folder.mkdir(exist_ok=True)
    if settings:
        (folder / "config.toml").write_text(settings, "utf-8")
    environment = user(folder) | {"VENDOR_KEY": KEY} | dict(env or {})
    errors = folder / "serve.err"
    with errors.open("wb") as err:
        process = subprocess.Popen(
            [*before, *command("serve", "--port", "0", "--json", *args)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=err,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, errors.read_text()
        where = json.loads(line)
        token = (folder / "data" / "server" / "token").read_text().strip()
        try:
            yield Served(process, where["pid"], environment, where["port"], where["url"], where["page"], token, errors)
        finally:
            if process.poll() is None:
                os.kill(where["pid"], signal.SIGTERM)
                process.wait(60)
            process.stdout.close()


def settings(small: Server, large: Server, more: str = "") -> str:
    """Two bundled models that are answered for on this machine, the large one in the cloud; it alone can call tools."""
    return "\n".join(
        [
            'pool = "mine"',
            more,
            f'[models."{SMALL}"]\nendpoint = "{small.address}"\nwhere = "device"',
            f'[models."{LARGE}"]\nendpoint = "{large.address}"\nkey_env = "VENDOR_KEY"\nsupports = ["tools", "json"]',
            f'[models."{OTHER}"]\nendpoint = "{large.address}"\nkey_env = "VENDOR_KEY"',
            f'[pools]\nmine = ["{SMALL}", "{LARGE}"]',
            "[profiles.careful]\nalpha = 1.0",
        ]
    )
