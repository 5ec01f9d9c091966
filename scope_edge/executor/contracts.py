"""What the executor knows of those it works with. `assemble.py` puts the real ones in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from scope_edge.chat.stream import Piece

if TYPE_CHECKING:
    from scope_edge.executor.room import Room
    from scope_edge.records import Counted, Decision, EncodedQuery, Ending, ModelCard, Query, Run

Messages = Sequence[Mapping[str, Any]]


class Unanswered(Exception):
    """A model that was asked and did not answer, or not to the end. `str` is one line.

    content: no model would take what was asked. passing: the same model may answer in a moment. unbilled: it cost nothing.
    retry_after: seconds the model's server asks to be left alone.
    """

    def __init__(
        self,
        why: str,
        *,
        content: bool = False,
        passing: bool = False,
        unbilled: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(why)
        self.why, self.content, self.passing = why, content, passing
        self.unbilled, self.retry_after = unbilled, retry_after


class Answering(Protocol):
    """An answer on its way. It is iterated once, in one thread; its other attributes hold from its end on.

    ending: "complete" or "cut". prompt_tokens, completion_tokens: own; None = not told. counted: by whom they would be.
    Iterating raises Unanswered.
    """

    @property
    def ending(self) -> Ending: ...

    @property
    def prompt_tokens(self) -> int | None: ...

    @property
    def completion_tokens(self) -> int | None: ...

    @property
    def counted(self) -> Counted: ...

    def __iter__(self) -> Iterator[Piece]: ...

    def end(self) -> None:
        """End it, from whichever thread: who iterates gets Unanswered."""

    def close(self) -> None:
        """Done with it, for the thread that iterates."""


class Place(Protocol):
    """Where models of one kind run."""

    def prompt_tokens(self, card: ModelCard, messages: Messages) -> int | None:
        """Counted by the model's own tokenizer; None = nobody here has it. Raises Unanswered."""

    def begin(
        self, card: ModelCard, messages: Messages, fields: Mapping[str, Any], room: Room, until: float
    ) -> Answering:
        """Ask. fields: as in the wire format. until: by time.monotonic(). Raises Unanswered."""

    def close(self) -> None:
        """End what runs."""


class Ledger(Protocol):
    """What may be spent: reserved before a call, settled after it. problem: why the last call is not written down."""

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


class Journal(Protocol):
    """What was decided and what became of it, written down; never raises."""

    @property
    def problem(self) -> str | None: ...

    def record(self, query: Query, decision: Decision, run: Run | None, *, encoded: EncodedQuery | None) -> str: ...

    def close(self) -> None: ...


class Agreement(Protocol):
    """Whether two answers to one question say the same."""

    def agree(self, first: str, second: str) -> bool: ...
