"""The log of a fingerprint's answers: one line for each call or answer, on disk before anything else happens.

A killed run loses only the answers under way; the next run reads the log and asks the rest. A call is logged before it is
made, so that a cap on spending also counts calls whose answer was lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from scope_edge.errors import AssetError, UsageError
from scope_edge.settings.validation import check_amount
from scope_edge.storage import assets
from scope_edge.types import Counted

FOLDER = "fingerprinting"
FORMAT = 1
_MAX_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """The answer to one question.

    Attributes:
        anchor: its id. text: the reply; None = missing, and then `problem` says why.
        cut: ended by the limit on tokens. prompt_tokens, completion_tokens: own tokens; counted: how they were counted.
        seconds: from the call to the answer; None = asked among others. usd: its cost; None = unknown.
    """

    anchor: str
    text: str | None
    problem: str | None = None
    cut: bool = False
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    counted: Counted | None = None
    seconds: float | None = None
    usd: float | None = None


class AnswerLog:
    """One model's answers under the same conditions. An open log is locked against other runs. Threads may write."""

    def __init__(self, model: str, conditions: Mapping[str, Any], *, again: bool = False) -> None:
        """conditions: everything that an answer depends on; other conditions have another log. again: start over.

        Raises AssetError (cannot be read or written), UsageError (another run has it open).
        """
        head = json.dumps({"format": FORMAT, "model": model, **conditions}, sort_keys=True)
        self.path = assets.user_data_dir() / FOLDER / f"{file_name(model)}-{_digest(head)}.jsonl"
        self.answers: dict[str, LoggedAnswer] = {}
        self._open_calls: dict[str, list[float]] = {}
        self._lock, self._closed = threading.Lock(), False
        with self._translated("opened"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        if not _locked(self._file):
            os.close(self._file)
            raise UsageError(f"{model} is being asked by another run already; wait for it, or end it")
        self._begin(head, again)

    def __enter__(self) -> AnswerLog:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock, contextlib.suppress(OSError):
            if not self._closed:
                self._closed = True
                os.close(self._file)

    @property
    def unanswered_usd(self) -> float:
        """The most that calls without an answer may have cost, in US dollars."""
        return sum(sum(calls) for calls in self._open_calls.values())

    def calls(self, anchor: str, usd: float | None) -> None:
        """Log that a call about an anchor is about to be made, which may cost `usd`. Raises AssetError."""
        self._note(anchor, usd or 0.0)
        self._write({"call": anchor, "usd": usd})

    def fails(self, anchor: str) -> None:
        """Log that the last call about an anchor failed and cost nothing. Raises AssetError."""
        self._forget(anchor)
        self._write({"free": anchor})

    def add(self, answer: LoggedAnswer) -> None:
        """Log an answer, or why it is missing. Raises AssetError."""
        self._take(answer)
        self._write({name: value for name, value in asdict(answer).items() if value not in (None, False)})

    def _take(self, answer: LoggedAnswer) -> None:
        if answer.text is not None:
            self.answers[answer.anchor] = answer
            self._forget(answer.anchor)

    def _begin(self, head: str, again: bool) -> None:
        with self._translated("read"):
            if os.fstat(self._file).st_size > _MAX_BYTES:
                raise AssetError(f"{self.path}: too large for a log of answers; remove it")
            raw = b"" if again else self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        lines = whole.decode("utf-8", "replace").split("\n")
        if lines[0] != head:
            whole, lines = b"", []
        for line in lines[1:]:
            self._read(line)
        with self._translated("written"):
            # An incomplete last line is removed; the rest stays untouched.
            os.ftruncate(self._file, len(whole))
            os.lseek(self._file, 0, os.SEEK_END)
        if not whole:
            self._write(json.loads(head))

    def _read(self, line: str) -> None:
        """Read one line; an invalid one is ignored, and its question is asked again."""
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError, UsageError):
            body: dict[str, Any] = dict(json.loads(line))
            if "call" in body:
                self._note(str(body["call"]), _amount(body, "usd") or 0.0)
            elif "free" in body:
                self._forget(str(body["free"]))
            else:
                self._take(_answer(body))

    def _note(self, anchor: str, usd: float) -> None:
        with self._lock:
            self._open_calls.setdefault(anchor, []).append(usd)

    def _forget(self, anchor: str) -> None:
        with self._lock:
            if self._open_calls.get(anchor):
                self._open_calls[anchor].pop()

    def _write(self, body: Mapping[str, Any]) -> None:
        line = (json.dumps(body, sort_keys=True) + "\n").encode("ascii")
        with self._lock:
            # A thread may still be asking after a run was interrupted: the descriptor may belong to another file by now.
            if self._closed:
                raise AssetError(f"{self.path}: is closed; nothing more is written")
            end = os.lseek(self._file, 0, os.SEEK_END)
            with self._translated("written"):
                try:
                    while line:
                        line = line[os.write(self._file, line) :]
                    os.fsync(self._file)
                except OSError:
                    with contextlib.suppress(OSError):
                        os.ftruncate(self._file, end)
                    raise

    @contextlib.contextmanager
    def _translated(self, step: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise AssetError(
                f"{self.path}: cannot be {step} ({error.strerror or error}); check permissions and space"
            ) from error


def file_name(model: str) -> str:
    """Return a model's id as (part of) a file name; different ids give different names."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", model)[:80].strip(".-") or "model"
    return plain if plain == model and plain.islower() else f"{plain}-{_digest(model)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _answer(body: Mapping[str, Any]) -> LoggedAnswer:
    """Read an answer from a line. Raises KeyError, TypeError or UsageError."""
    anchor, text, counted = body["anchor"], body.get("text"), body.get("counted")
    if not isinstance(anchor, str) or not isinstance(text, str | None) or counted not in (None, *get_args(Counted)):
        raise TypeError("not an answer")
    numbers = {name: _amount(body, name) for name in ("prompt_tokens", "completion_tokens", "seconds", "usd")}
    problem = None if text is not None else str(body.get("problem", ""))
    return LoggedAnswer(anchor, text, problem, bool(body.get("cut")), counted=counted, **numbers)


def _amount(body: Mapping[str, Any], name: str) -> float | None:
    return None if body.get(name) is None else check_amount(name, body[name])


def _locked(file: int) -> bool:
    """Lock an open file for this process, until it ends; return False when another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            # Far behind the end, so that it can still be read.
            os.lseek(file, 2**40, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
