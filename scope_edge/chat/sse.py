"""Server-sent events: a stream of bytes cut into the data of its events, strictly and within limits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scope_edge.chat.wire import NotAnAnswerError

# An event of a chat holds a few tokens; one with a picture or a long tool call in it some more.
MAX_EVENT_BYTES = 4 * 1024 * 1024
_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Events:
    """Takes bytes as they come and gives the data of every event that has come whole, as text.

    Comments and fields other than data are left out, as the format wants it. An event that is not ended by a blank line is
    none. Raises NotAnAnswerError: an event is too long, or not UTF-8.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The events that this chunk ends."""
        self._rest += chunk
        if not self._begun and len(self._rest) >= len(_BOM):
            self._begun, self._rest = True, self._rest.removeprefix(_BOM)
        for line in self._lines():
            if line:
                self._take(line)
            elif self._data:
                yield self._whole()

    def _lines(self) -> Iterator[bytes]:
        """The lines that have come whole. A CR at the very end may be the first half of a line's end: it waits."""
        at = 0
        for end in _END.finditer(self._rest):
            if end.group() == b"\r" and end.end() == len(self._rest):
                break
            yield self._rest[at : end.start()]
            at = end.end()
        self._rest = self._rest[at:]
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise NotAnAnswerError(f"it sent an event of more than {MAX_EVENT_BYTES // 2**20} MiB")

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value)

    def _whole(self) -> str:
        raw, self._data, self._size = b"\n".join(self._data), [], 0
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise NotAnAnswerError("it sent an event that is not UTF-8") from error
