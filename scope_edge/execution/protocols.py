"""The interface between the executor and the places where models run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from scope_edge.execution.request import Messages
    from scope_edge.execution.token_budget import TokenBudget
    from scope_edge.providers.llama.host import DeviceStream
    from scope_edge.providers.openai.stream import AnswerStream, Piece
    from scope_edge.types import Counted, Ending, ModelCard


S = TypeVar("S", bound="AnswerStream | DeviceStream")


class CompletionStream(ABC, Generic[S]):
    """An answer on its way: iterate it once, in one thread; its other attributes hold from its end on.

    counted: how its tokens are counted. Iterating raises ProviderError.
    """

    counted: Counted

    def __init__(self, stream: S) -> None:
        self._stream = stream

    @property
    def prompt_tokens(self) -> int | None:
        """The model's own tokens; None = unknown."""
        return self._stream.prompt_tokens

    @property
    def completion_tokens(self) -> int | None:
        """The model's own tokens; None = unknown."""
        return self._stream.completion_tokens

    @property
    @abstractmethod
    def ending(self) -> Ending:
        """Return "complete", "cut" or "loop"."""

    @abstractmethod
    def __iter__(self) -> Iterator[Piece]: ...

    def close(self) -> None:
        """End it, from any thread: iterating raises ProviderError, or stops. Does nothing once it has ended."""
        self._stream.close()


class Provider(Protocol):
    """Where models of one kind run."""

    def prompt_tokens(self, card: ModelCard, messages: Messages) -> int | None:
        """Count them with the model's own tokenizer; None = it is not on this machine. Raises ProviderError."""

    def begin(
        self, card: ModelCard, messages: Messages, fields: Mapping[str, Any], budget: TokenBudget, until: float
    ) -> CompletionStream[Any]:
        """Call a model. fields: as in the wire format. until: by time.monotonic(). Raises ProviderError."""

    def close(self) -> None:
        """End what runs."""
