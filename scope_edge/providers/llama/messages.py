"""The requests to the llama.cpp worker and its answers, as frozen dataclasses, and the frames that carry them over its pipes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any, Literal

import msgpack

# "cot": any analysis, then the constrained answer line. "direct": the answer line at once. "text": free text.
Mode = Literal["cot", "direct", "text"]
# How a sample's free text ended: at an answer, the model stopped, the token limit, the deadline, or invalid numbers.
Ending = Literal["answer", "stop", "limit", "loop", "cancelled", "broken"]


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A GGUF's measures, as far as a memory plan or a user needs them.

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
class LoadOptions:
    """How to load a model.

    Attributes:
        context: cells of key-value cache, shared by all sequences. sequences: how many at once, each with at most one row of
            logits a batch. batch: tokens decoded at once. gpu_layers: on the GPU, -1 = all.
        repack: let llama.cpp repack weights (`use_extra_bufts`). threads: cores to compute on.
    """

    context: int
    sequences: int
    batch: int
    gpu_layers: int
    repack: bool
    threads: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model's sequences are used: 0 ... slots - 1 hold prompts, the ones after them samples.

    Attributes:
        slots: prompts at once. lanes: samples decoded at once. batch: tokens a decode may hold.
        keep: tokens of unused prompts that stay in the cache.
        chunk: prompt tokens read beside a step of streams, so that it stays short; four times as many while none writes.
    """

    slots: int
    lanes: int
    batch: int
    keep: int
    chunk: int = 64


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A part of a prompt. markup: control tokens spelled in it count as such; never for a user's text."""

    text: str
    markup: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a conversation. role: "system", "user" or "assistant"."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. temperature 0 takes the most probable one. The same seed gives the same samples."""

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    seed: int = 0


# For models whose makers say nothing; `Sampling`'s own defaults are those of Qwen3, the estimator's base.
USUAL = Sampling(temperature=0.7, top_p=0.95, top_k=40)


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt and how often to sample it.

    Attributes:
        max_tokens: of free text, without the answer line. None = as many as the context holds.
        chat: the prompt as a conversation, in place of pieces: the worker applies the model's own chat template.
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
        length: the number in the answer line, None = not reached.
        p_yes: P("yes") against "no" at the end of the answer line, from the logits there; None = not reached.
    """

    text: str
    tokens: int
    length: int | None
    p_yes: float | None
    ending: Ending


@dataclass(frozen=True, slots=True)
class JobResult:
    """A job's samples. reused_tokens: prompt tokens found in the cache. problem: why samples are missing, in words."""

    prompt_tokens: int
    reused_tokens: int
    samples: tuple[Sample, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """Where a run's time went. decode_tokens: of all samples together. seconds: the whole run, in the worker."""

    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    seconds: float = 0.0

    def plus(self, seconds: float, written: int, read: int) -> Stats:
        """Add a batch, its time divided by its shares of written and read tokens."""
        reading = seconds * read / (written + read)
        return replace(
            self,
            prefill_tokens=self.prefill_tokens + read,
            prefill_seconds=self.prefill_seconds + reading,
            decode_tokens=self.decode_tokens + written,
            decode_seconds=self.decode_seconds + seconds - reading,
        )


# A query may have 16 million characters; a frame holds the prompts of a few candidates.
MAX_BYTES = 512 * 1024 * 1024
_HEAD = struct.Struct("<I")


class FrameError(ValueError):
    """A frame is invalid or too large."""


def pack_frame(body: Mapping[str, Any]) -> bytes:
    """Return a message as bytes. Raises FrameError when it is too large or cannot be encoded."""
    try:
        raw: bytes = msgpack.packb(dict(body), use_bin_type=True)
    except (UnicodeEncodeError, OverflowError) as error:
        raise FrameError(f"a message that cannot be sent ({error})") from error
    if len(raw) > MAX_BYTES:
        raise FrameError(f"a message of {len(raw)} bytes; at most {MAX_BYTES} are sent")
    return _HEAD.pack(len(raw)) + raw


def write_frames(pipe: IO[bytes], bodies: Iterable[Mapping[str, Any]]) -> None:
    """Send messages in one go. Raises OSError when the pipe is closed, FrameError when a message is too large."""
    pipe.write(b"".join(map(pack_frame, bodies)))
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> dict[str, Any] | None:
    """Return the next message, None at the end of the stream. Raises FrameError for an invalid one."""
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
    """Build a job from plain types. Raises KeyError or TypeError for an invalid one."""
    parts = {
        "pieces": tuple(TextPiece(**piece) for piece in row["pieces"]),
        "sampling": Sampling(**row["sampling"]),
        "chat": tuple(Message(**message) for message in row["chat"]),
        "stop": tuple(row["stop"]),
    }
    return Job(**{**row, **parts})


def results_from_body(body: Mapping[str, Any]) -> tuple[tuple[JobResult, ...], Stats]:
    """Build the answer to a run. Raises FrameError for an invalid one."""
    try:
        return tuple(map(_result, body["results"])), Stats(**body["stats"])
    except (KeyError, TypeError) as error:
        raise FrameError(f"an answer of another form ({error!r})") from error


def done_from_body(body: Mapping[str, Any]) -> tuple[int, JobResult]:
    """Build a finished job's number and result. Raises FrameError for an invalid answer."""
    try:
        return int(body["index"]), _result(body["result"])
    except (KeyError, TypeError, ValueError) as error:
        raise FrameError(f"an answer of another form ({error!r})") from error


def _result(row: Mapping[str, Any]) -> JobResult:
    return JobResult(**{**row, "samples": tuple(Sample(**sample) for sample in row["samples"])})
