"""What goes over the pipes between the worker and its parent: msgpack maps, each behind its length, limited in size."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import IO, Any

import msgpack

from scope_edge.llama.jobs import Job, JobResult, Message, Piece, Sample, Sampling, Stats

# A query may have 16 million characters; a frame holds the prompts of a few candidates.
MAX_BYTES = 512 * 1024 * 1024
_HEAD = struct.Struct("<I")


class FrameError(ValueError):
    """The other side sent what is no frame."""


def pack_frame(body: Mapping[str, Any]) -> bytes:
    """One message as it is sent. Raises FrameError when it is too large, or holds what cannot be sent."""
    try:
        raw: bytes = msgpack.packb(dict(body), use_bin_type=True)
    except (UnicodeEncodeError, OverflowError) as error:
        raise FrameError(f"a message that cannot be sent ({error})") from error
    if len(raw) > MAX_BYTES:
        raise FrameError(f"a message of {len(raw)} bytes; at most {MAX_BYTES} are sent")
    return _HEAD.pack(len(raw)) + raw


def write_frames(pipe: IO[bytes], bodies: Iterable[Mapping[str, Any]]) -> None:
    """Send messages in one go. Raises OSError when nobody reads, FrameError when one is too large."""
    pipe.write(b"".join(map(pack_frame, bodies)))
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> dict[str, Any] | None:
    """The next message; None at the end of the stream. Raises FrameError for anything that is none."""
    head = pipe.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    (length,) = _HEAD.unpack(head)
    if length > MAX_BYTES:
        raise FrameError(f"a message of {length} bytes; at most {MAX_BYTES} are read")
    raw = pipe.read(length)
    if len(raw) < length:
        return None
    try:
        body = msgpack.unpackb(raw, raw=False, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise FrameError(f"a message that does not decode ({error})") from error
    if not isinstance(body, dict):
        raise FrameError(f"a {type(body).__name__} where a message was expected")
    return body


def jobs_body(jobs: tuple[Job, ...]) -> list[dict[str, Any]]:
    """Jobs as plain types."""
    return [asdict(job) for job in jobs]


def jobs_from_body(rows: list[dict[str, Any]]) -> tuple[Job, ...]:
    """Jobs out of plain types."""
    return tuple(map(job_from_body, rows))


def job_from_body(row: Mapping[str, Any]) -> Job:
    """A job out of plain types. Raises KeyError or TypeError when it is not that."""
    parts = {
        "pieces": tuple(Piece(**piece) for piece in row["pieces"]),
        "sampling": Sampling(**row["sampling"]),
        "chat": tuple(Message(**message) for message in row["chat"]),
        "stop": tuple(row["stop"]),
    }
    return Job(**{**row, **parts})


def results_body(results: tuple[JobResult, ...], stats: Stats) -> dict[str, Any]:
    """What a run gave, as plain types."""
    return {"results": [asdict(one) for one in results], "stats": asdict(stats)}


def results_from_body(body: Mapping[str, Any]) -> tuple[tuple[JobResult, ...], Stats]:
    """What a run gave. Raises FrameError when it is not that."""
    try:
        return tuple(map(result_from_body, body["results"])), Stats(**body["stats"])
    except (KeyError, TypeError) as error:
        raise FrameError(f"an answer of another form ({error!r})") from error


def result_from_body(row: Mapping[str, Any]) -> JobResult:
    """One job's result out of plain types. Raises KeyError or TypeError when it is not that."""
    return JobResult(**{**row, "samples": tuple(Sample(**sample) for sample in row["samples"])})
