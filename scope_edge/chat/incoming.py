"""One call and its answer, which any thread may end at any time: while it is made, while nobody answers, and in the middle."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scope_edge.chat.failed import Failed
from scope_edge.chat.watch import WATCH, Alarm

if TYPE_CHECKING:
    from scope_edge.chat.connection import Connection, Line

MAX_BYTES = 16 * 1024 * 1024
# Of a refusal only the beginning is read: it is one line in an error.
_REFUSAL_BYTES = 64 * 1024


class Incoming:
    """A call, and its answer on the way. It is made and read by one thread and may be ended by any, at any time."""

    def __init__(self, connection: Connection, seconds: float) -> None:
        """Nothing is asked yet. seconds: what there is, at most, until it must have ended."""
        self._connection = connection
        self._lock = threading.Lock()
        self._line: Line | None = None
        self._response: Any = None
        self._ended = False
        self._seconds, self._until = seconds, time.monotonic() + seconds
        self._watch: Alarm | None = None
        self.expire(seconds)

    def open(self, method: str, url: str, body: dict[str, Any] | None) -> None:
        """Make the call and wait for the head of its answer. Another may be made when that has been read, or dropped.

        Raises Failed: nobody is there, or nothing came in time.
        """
        self.drop()
        line = self._taken()
        with self._translated():
            timeout = self._connection.timeouts(self._until - time.monotonic())
            request = line.http.build_request(method, url, json=body, timeout=timeout, extensions={"trace": line.noted})
            self._response = line.http.send(request, stream=True)

    @property
    def status(self) -> int:
        """Of the answer."""
        return int(self._response.status_code)

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the answer; their names in any case."""
        headers: Mapping[str, str] = self._response.headers
        return headers

    def header(self, name: str) -> str:
        """A header, "" where there is none."""
        return str(self.headers.get(name, ""))

    def chunks(self) -> Iterator[bytes]:
        """What comes, no more than `MAX_BYTES` of it. Raises Failed."""
        read = 0
        with self._translated():
            for chunk in self._response.iter_bytes():
                read += len(chunk)
                if read > MAX_BYTES:
                    raise Failed(f"its answer is longer than {MAX_BYTES // 2**20} MiB")
                yield chunk

    def beginning(self) -> bytes:
        """The beginning of a body that is a refusal. Raises Failed."""
        raw = bytearray()
        for chunk in self.chunks():
            raw += chunk
            if len(raw) > _REFUSAL_BYTES:
                break
        return bytes(raw)

    def expire(self, seconds: float) -> None:
        """End it unless it is closed within so many seconds, whatever was said before."""
        if self._watch is not None:
            self._watch.cancel()
        if seconds < threading.TIMEOUT_MAX:
            self._watch = WATCH.after(seconds, self.end)

    def end(self) -> None:
        """End it, from whichever thread: who makes or reads it gets Failed."""
        with self._lock:
            self._ended = True
            if self._line is not None:
                self._line.cut()

    def drop(self) -> None:
        """Done with this answer; for the thread that reads."""
        response, self._response = self._response, None
        if response is not None:
            with contextlib.suppress(Failed), self._connection.translated():
                response.close()

    def close(self) -> None:
        """Done with it all; for the thread that reads."""
        if self._watch is not None:
            self._watch.cancel()
        self.drop()
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            self._connection.give_back(line)

    def _taken(self) -> Line:
        """The line to call over, which `end` knows of from now on. Raises Failed: it has been ended, or all is over."""
        line = self._line or self._connection.take()
        with self._lock:
            self._line = line
            if self._ended:
                raise Failed(self._late(), unbilled=True)
        return line

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """As `Connection.translated`; what was ended from here did not break."""
        try:
            with self._connection.translated():
                yield
        except Failed as failed:
            if self._ended:
                raise Failed(self._late(), unbilled=failed.unbilled) from failed
            raise

    def _late(self) -> str:
        return "it was ended" if math.isinf(self._seconds) else f"no answer within {round(self._seconds, 1):g} seconds"
