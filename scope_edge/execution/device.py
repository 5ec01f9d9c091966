"""GGUFs in the llama.cpp worker: loaded when they are called, kept as long as the host keeps them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scope_edge.errors import ContextLengthError, ProviderError, ScopeEdgeError, WorkerError
from scope_edge.execution.protocols import CompletionStream
from scope_edge.execution.request import texts_of
from scope_edge.providers.llama.host import DeviceStream, Generation, card_path
from scope_edge.providers.llama.loadable import gguf_path, own_sampling
from scope_edge.providers.llama.messages import Message
from scope_edge.providers.openai.stream import Piece

if TYPE_CHECKING:
    from scope_edge.execution.request import Messages
    from scope_edge.execution.token_budget import TokenBudget
    from scope_edge.providers.llama.host import DeviceHost
    from scope_edge.types import Counted, Ending, ModelCard

# These change the form of an answer and are not supported here: another model is better than an answer that breaks a program.
_UNABLE = ("tools", "functions", "audio", "logprobs")
# Without another limit: a small model that does not come to an end would fill its context.
_LONGEST_ANSWER = 4096
_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}


class DeviceProvider:
    """Calls the GGUFs of cards."""

    def __init__(self, host: DeviceHost) -> None:
        """The host is closed with this."""
        self._host = host

    def prompt_tokens(self, card: ModelCard, messages: Messages) -> int | None:
        """Count them with the model's own tokenizer, its chat template included. Raises ProviderError."""
        plain = _plain(messages)
        try:
            return self._host.count(card, plain)
        except ScopeEdgeError as error:
            raise _failed(error) from error

    def begin(
        self, card: ModelCard, messages: Messages, fields: Mapping[str, Any], budget: TokenBudget, until: float
    ) -> DeviceCompletionStream:
        """Call a model; its answer is still to come. Raises ProviderError: the model cannot do this, or cannot be loaded."""
        _check_able(fields)
        plain, sampling, stop = _plain(messages), _sampling(fields), _stop(fields)
        try:
            card_path(card)  # says best what is wrong with the file
            options = Generation(
                max_tokens=_LONGEST_ANSWER if budget.max_tokens is None else budget.max_tokens,
                sampling=replace(own_sampling(gguf_path(card)), **sampling),
                stop=stop,
                deadline=max(until - time.monotonic(), 0.0) if math.isfinite(until) else None,
            )
            return DeviceCompletionStream(self._host.stream(card, plain, options))
        except ScopeEdgeError as error:
            raise _failed(error) from error

    @property
    def loaded(self) -> tuple[str, ...]:
        """Models that are loaded."""
        return self._host.loaded

    @property
    def sequences(self) -> int:
        """Requests that workers have not ended yet."""
        return self._host.sequences

    def close(self) -> None:
        """End the workers."""
        self._host.close()


class DeviceCompletionStream(CompletionStream[DeviceStream]):
    """A worker's answer."""

    counted: Counted = "tokenizer"

    @property
    def ending(self) -> Ending:
        """How the answer ended: "cut" by the limit on tokens, by the context or by the clock; "loop": it repeated itself."""
        endings: dict[str, Ending] = {"stop": "complete", "loop": "loop"}
        return endings.get(self._stream.ending or "", "cut")

    def __iter__(self) -> Iterator[Piece]:
        wrote = False
        try:
            for text in self._stream:
                wrote = True
                yield Piece(text)
        except ScopeEdgeError as error:
            # A worker that crashed may do better with less memory; a model that llama.cpp refuses will not.
            raise _failed(error, retryable=isinstance(error, WorkerError) and not error.refused) from error
        finally:
            self.close()
        if self._stream.ending == "cancelled" and not wrote:
            raise ProviderError("wrote nothing before the time was up", unbilled=True)


def _failed(error: ScopeEdgeError, *, retryable: bool = False) -> ProviderError:
    code = "context_length_exceeded" if isinstance(error, ContextLengthError) else None
    return ProviderError(str(error), retryable=retryable, unbilled=True, code=code)


def _unable(why: str) -> ProviderError:
    return ProviderError(why, unbilled=True, code="unsupported_parameter")


def _plain(messages: Messages) -> tuple[Message, ...]:
    """Return messages as a chat template knows them. Raises ProviderError: they hold more than text."""
    texts, other = texts_of(messages)
    roles = [_ROLES.get(str(message.get("role"))) for message in messages]
    if other or None in roles:
        raise _unable("takes text only: no pictures, and no results of tools")
    return tuple(Message(role or "user", text) for role, text in zip(roles, texts, strict=True))


def _check_able(fields: Mapping[str, Any]) -> None:
    unable = [name for name in _UNABLE if fields.get(name)]
    form = fields.get("response_format")
    if isinstance(form, Mapping) and form.get("type", "text") != "text":
        unable.append("response_format")
    if unable:
        raise _unable(f"not supported on the device: {', '.join(unable)}")


def _sampling(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request says of `Sampling`. Raises ProviderError: out of range, for any model."""
    seed = fields.get("seed")
    if seed is not None and type(seed) is not int:
        raise ProviderError("seed must be a whole number", content=True, unbilled=True)
    given: dict[str, Any] = {} if seed is None else {"seed": seed % 2**63}
    for name, most in (("temperature", 2.0), ("top_p", 1.0)):
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= most:
            raise ProviderError(f"{name} must be a number from 0 to {most:g}", content=True, unbilled=True)
        given[name] = float(value)
    return given


def _stop(fields: Mapping[str, Any]) -> tuple[str, ...]:
    value = fields.get("stop")
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(one, str) for one in texts):
        raise ProviderError("stop must be a text or a list of texts", content=True, unbilled=True)
    return tuple(filter(None, texts))
