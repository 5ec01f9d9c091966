"""What the executor knows of the parts it works with. `assemble.py` puts the real ones in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from scope_edge.encoding.token_count import PromptTokens
from scope_edge.providers.openai.stream import Piece

if TYPE_CHECKING:
    from scope_edge.types import Counted, Decision, EncodedQuery, Ending, ModelCard, Query, Run

Messages = Sequence[Mapping[str, Any]]


class TextStream(Protocol):
    """What answers are read from: `chat.stream.AnswerStream` and `llama.stream.Stream`."""

    @property
    def prompt_tokens(self) -> int | None: ...

    @property
    def completion_tokens(self) -> int | None: ...

    def close(self) -> None: ...


S = TypeVar("S", bound=TextStream)


class CompletionStream(ABC, Generic[S]):
    """An answer on its way: iterate it once, in one thread; its other attributes hold from its end on.

    counted: by whom its tokens are. Iterating raises ProviderError.
    """

    counted: Counted

    def __init__(self, stream: S) -> None:
        self._stream = stream

    @property
    def prompt_tokens(self) -> int | None:
        """The model's own tokens; None = not known."""
        return self._stream.prompt_tokens

    @property
    def completion_tokens(self) -> int | None:
        """The model's own tokens; None = not known."""
        return self._stream.completion_tokens

    @property
    @abstractmethod
    def ending(self) -> Ending:
        """Return "complete" or "cut"."""

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
        self, card: ModelCard, messages: Messages, fields: Mapping[str, Any], room: TokenBudget, until: float
    ) -> CompletionStream[Any]:
        """Ask. fields: as in the wire format. until: by time.monotonic(). Raises ProviderError."""

    def close(self) -> None:
        """End what runs."""


class SpendingGuard(Protocol):
    """Keeps spending within its caps: reserved before a call, settled after it. problem: why the last call is not recorded."""

    @property
    def capped(self) -> bool: ...

    @property
    def problem(self) -> str | None: ...

    def reserve(self, usd_hi: float | None, model: str) -> Any:
        """Raises BudgetError: a cap leaves no room for it; AssetError."""

    def settle(self, reservation: Any, usd: float | None) -> None:
        """Raises AssetError; so does `release`."""

    def release(self, reservation: Any) -> None: ...

    def close(self) -> None: ...


class JournalSink(Protocol):
    """Records decisions and their outcomes; never raises."""

    @property
    def problem(self) -> str | None: ...

    def record(self, query: Query, decision: Decision, run: Run | None, *, encoded: EncodedQuery | None) -> str: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """What one call may take.

    Attributes:
        max_tokens: of the completion; None = no limit. prompt: its tokens, own; `high` is what they are at most.
        usd_hi: what the call costs at most: with no limit on tokens, at the upper bound of their estimate. None = not known.
    """

    max_tokens: int | None
    prompt: PromptTokens
    usd_hi: float | None
