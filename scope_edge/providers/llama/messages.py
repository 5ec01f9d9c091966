"""What is asked of the llama.cpp worker and what it answers, as frozen dataclasses: the same on both sides of the pipe."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Literal

import msgpack

# "cot": any analysis, then the constrained answer line. "direct": the answer line at once. "text": whatever comes.
Mode = Literal["cot", "direct", "text"]
# How a sample's free text ended: at an answer, the model stopped, the token limit, the deadline, or numbers that are none.
Ending = Literal["answer", "stop", "limit", "cancelled", "broken"]


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """What a GGUF says of itself, as far as a memory plan or a user needs it.

    Attributes:
        architecture, quantization: in llama.cpp's words ("qwen3", "Q4_K_M").
        parameters: their number. layers, context, vocabulary: as trained.
        kv_bytes: of key-value cache per token at 16 bits.
        chat_template: whether it carries one.
    """

    architecture: str
    quantization: str
    parameters: int
    layers: int
    context: int
    vocabulary: int
    kv_bytes: int
    chat_template: bool


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A part of a prompt. markup: control tokens spelled in it count as such; never for text that a user wrote."""

    text: str
    markup: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """What one side of a conversation said. role: "system", "user" or "assistant"."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. temperature 0 takes the likeliest. The same seed gives the same samples."""

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt and how often to sample it.

    Attributes:
        max_tokens: of free text; the answer line comes on top. None = as many as the context holds.
        chat: the prompt as a conversation, in place of pieces: the worker puts the model's own chat template around it.
        stop: texts that end plain text, and are left out of it.
    """

    pieces: tuple[TextPiece, ...]
    samples: int
    mode: Mode
    max_tokens: int | None
    sampling: Sampling = Sampling()
    chat: tuple[Message, ...] = ()
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One continuation of a prompt.

    Attributes:
        text: everything after the prompt, the answer line included.
        tokens: generated or written into it.
        length: the number in the answer line, None = none was reached.
        p_yes: P("yes") against "no" at the end of the answer line, from the logits there; None = not reached.
    """

    text: str
    tokens: int
    length: int | None
    p_yes: float | None
    ending: Ending


@dataclass(frozen=True, slots=True)
class JobResult:
    """A job's samples. reused_tokens: of the prompt's, found in the cache. problem: why there are none, in words."""

    prompt_tokens: int
    reused_tokens: int
    samples: tuple[Sample, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """Where a run's time went. decode_tokens are those of all samples together; seconds is the whole, in the worker."""

    prefill_tokens: int
    prefill_seconds: float
    decode_tokens: int
    decode_seconds: float
    seconds: float


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


def job_from_body(row: Mapping[str, Any]) -> Job:
    """A job out of plain types. Raises KeyError or TypeError when it is not that."""
    parts = {
        "pieces": tuple(TextPiece(**piece) for piece in row["pieces"]),
        "sampling": Sampling(**row["sampling"]),
        "chat": tuple(Message(**message) for message in row["chat"]),
        "stop": tuple(row["stop"]),
    }
    return Job(**{**row, **parts})


def results_from_body(body: Mapping[str, Any]) -> tuple[tuple[JobResult, ...], Stats]:
    """What a run gave. Raises FrameError when it is not that."""
    try:
        return tuple(map(result_from_body, body["results"])), Stats(**body["stats"])
    except (KeyError, TypeError) as error:
        raise FrameError(f"an answer of another form ({error!r})") from error


def result_from_body(row: Mapping[str, Any]) -> JobResult:
    """One job's result out of plain types. Raises KeyError or TypeError when it is not that."""
    return JobResult(**{**row, "samples": tuple(Sample(**sample) for sample in row["samples"])})
