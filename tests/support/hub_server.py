"""A small hub for tests: the few addresses of the real one that a download uses, on this machine, and its faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    host: str
    headers: dict[str, str]


@dataclass
class Hub:
    """Repositories by (kind, id): path -> content. `large`: contents kept as the hub keeps large files, behind a redirect.

    Faults: `drops` content path -> (bytes after which the connection is cut, how often); `stalls`: bytes after which
    nothing comes any more; `altered`: contents sent in place of the promised ones; `status`: answer everything so.
    """

    repos: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    branches: set[str] = field(default_factory=lambda: {"main", COMMIT})
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    private: dict[str, str] = field(default_factory=dict)
    drops: dict[str, tuple[int, int]] = field(default_factory=dict)
    stalls: dict[str, int] = field(default_factory=dict)
    altered: dict[str, bytes] = field(default_factory=dict)
    ignores_ranges: bool = False
    status: int | None = None
    asked: list[Asked] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def described(self, kind: str, name: str) -> dict[str, Any]:
        """The body of /api/models/NAME?blobs=true."""
        siblings = []
        for path, content in self.repos[(kind, name)].items():
            row: dict[str, Any] = {"rfilename": path, "size": len(content)}
            if path in self.large:
                row["blobId"] = "0" * 40
                row["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            else:
                row["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            siblings.append(row)
        card = self.cards.get(name, {})
        return {"id": name, "sha": COMMIT, "siblings": siblings, "cardData": card, "private": False, "tags": []}


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Serve it until the end of the block; `hub.address` is what HF_ENDPOINT is set to."""

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # else a head and its body are 40 ms apart
    protocol_version = "HTTP/1.1"
    served: Hub

    def log_message(self, *_: object) -> None:
        """Say nothing: pytest's output is for its own words."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.served, unquote(urlparse(self.path).path)
        host = self.headers.get("Host", "").partition(":")[0]
        hub.asked.append(Asked(self.command, path, host, {k.lower(): v for k, v in self.headers.items()}))
        if hub.status is not None:
            self._error(hub.status)
        elif api := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._describe(api[1], api[2], api[3] or "main")
        elif file := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve("dataset" if file[1] else "model", file[2], file[3], file[4])
        elif stored := re.fullmatch(r"/stored/(model|dataset)/([^/]+/[^/]+)/(.+)", path):
            self._content(stored[1], stored[2], stored[3])
        else:
            self._error(404)

    def _refused(self, kind: str, name: str, revision: str) -> bool:
        hub = self.served
        token = hub.private.get(name)
        if (kind, name) not in hub.repos or (token and self.headers.get("Authorization") != f"Bearer {token}"):
            self._error(401 if not self.headers.get("Authorization") else 404, "RepoNotFound")
        elif revision not in hub.branches:
            self._error(404, "RevisionNotFound")
        else:
            return False
        return True

    def _describe(self, kind: str, name: str, revision: str) -> None:
        if not self._refused(kind, name, revision):
            self._send(
                200, json.dumps(self.served.described(kind, name)).encode(), {"Content-Type": "application/json"}
            )

    def _resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        hub = self.served
        if self._refused(kind, name, revision):
            return
        if name in hub.gated:
            self._error(403 if self.headers.get("Authorization") else 401, "GatedRepo")
        elif path not in hub.repos[(kind, name)]:
            self._error(404, "EntryNotFound")
        elif path in hub.large:
            # Large files are on another host, which must not see the token.
            elsewhere = hub.address.replace("127.0.0.1", "localhost")
            where = f"{elsewhere}/stored/{kind}/{name}/{path}"
            self._send(302, b"", {"Location": where, "X-Repo-Commit": COMMIT})
        else:
            self._content(kind, name, path)

    def _content(self, kind: str, name: str, path: str) -> None:
        hub = self.served
        whole = hub.altered.get(path, hub.repos[(kind, name)][path])
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(span[1]) if span and not hub.ignores_ranges else 0
        content = whole[begin:]
        extra = {"Accept-Ranges": "bytes"}
        if begin:
            extra["Content-Range"] = f"bytes {begin}-{len(whole) - 1}/{len(whole)}"
        after, times = hub.drops.get(path, (0, 0))
        if times:
            hub.drops[path] = (after, times - 1)
            self._send(206 if begin else 200, content, extra, only=max(after - begin, 0))
            self.close_connection = True
        elif path in hub.stalls:
            self._send(206 if begin else 200, content, extra, only=max(hub.stalls[path] - begin, 0))
            hub.over.wait(60)
            self.close_connection = True
        else:
            self._send(206 if begin else 200, content, extra)

    def _error(self, status: int, code: str = "") -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str], only: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            try:
                self.wfile.write(body if only is None else body[:only])
                self.wfile.flush()
            except OSError:
                self.close_connection = True
