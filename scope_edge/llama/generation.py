"""How a device model is to answer, checked before anything is loaded for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scope_edge.checks import check_amount, check_count, shown
from scope_edge.errors import UsageError
from scope_edge.llama.jobs import Job, Message, Sampling

# More than any model has, and what the worker's messages can hold.
_MOST = 2**31 - 1
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Generation:
    """How to answer.

    Attributes:
        max_tokens: of the answer, in the model's own tokens; None = as many as the context holds.
        stop: texts that end the answer, and are left out of it.
        deadline: seconds from now, waiting for the model included, after which the answer ends as "cancelled"; None = none.
    """

    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...] = ()
    deadline: float | None = None


def chat_job(messages: Sequence[Message], options: Generation) -> Job:
    """A conversation as a job for the worker. Raises UsageError: nothing is said, or something that no GGUF understands."""
    if not messages:
        raise UsageError("a conversation needs at least one message")
    for number, message in enumerate(messages, 1):
        if message.role not in _ROLES:
            raise UsageError(
                f"message {number}: a GGUF knows no role {shown(message.role)}; the roles are {', '.join(_ROLES)}"
            )
        _check_text(f"message {number}", message.text)
    for text in _stops(options.stop):
        _check_text("stop", text)
    if options.deadline is not None and math.isnan(options.deadline):
        raise UsageError("deadline must be a number of seconds, not nan")
    limit = options.max_tokens
    if limit is not None:
        limit = min(check_count("max_tokens", limit, least=1), _MOST)
    return Job((), 1, "text", limit, _checked(options.sampling), tuple(messages), tuple(options.stop))


def _checked(sampling: Sampling) -> Sampling:
    if check_amount("top_p", sampling.top_p) > 1:
        raise UsageError(f"top_p must be a number from 0 to 1, not {shown(sampling.top_p)}")
    return Sampling(
        temperature=check_amount("temperature", sampling.temperature),
        top_p=sampling.top_p,
        top_k=min(check_count("top_k", sampling.top_k, least=1), _MOST),
        seed=check_count("seed", sampling.seed) % _MOST,
    )


def _stops(stop: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(stop, str) or not all(isinstance(one, str) and one for one in stop):
        raise UsageError(f"stop must be texts, none of them empty, not {shown(stop)}")
    return stop


def _check_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{what}: half of a character (a lone surrogate) at position {error.start}; mend it"
        ) from error
