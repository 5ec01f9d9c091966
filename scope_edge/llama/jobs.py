"""What is asked of the llama.cpp worker and what it answers, as frozen dataclasses: the same on both sides of the pipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# "cot": any analysis, then the constrained answer line. "direct": the answer line at once. "text": whatever comes.
Mode = Literal["cot", "direct", "text"]
# How a sample's free text ended: at an answer, the model stopped, the token limit, the deadline, or numbers that are none.
Ending = Literal["answer", "stop", "limit", "cancelled", "broken"]


@dataclass(frozen=True, slots=True)
class Shape:
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
class Piece:
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

    pieces: tuple[Piece, ...]
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
