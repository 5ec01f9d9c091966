"""Every error a user can meet: one line that says what, where and what to do next, and the exit code it ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scope_edge.types import Decision, Run


class ScopeEdgeError(Exception):
    """Base of all errors raised on purpose. `str(error)` is one line fit to print; `exit_code` is what the CLI ends with."""

    exit_code = 1


class UsageError(ScopeEdgeError):
    """What was asked makes no sense: blank text, a value out of range, an unknown model or pool, a typo in the config."""

    exit_code = 2


class ConfigError(UsageError):
    """A settings file, environment variable or model card says something that cannot be used."""


class BudgetError(ScopeEdgeError):
    """What was asked is expected to cost more than it may. Nothing was done."""

    exit_code = 3


class InfeasibleError(BudgetError):
    """No model keeps to the limits, so none was asked. `decision` says which limit bound."""

    def __init__(self, message: str, decision: Decision) -> None:
        super().__init__(message)
        self.decision = decision


class UnansweredError(ScopeEdgeError):
    """No model that may be asked has answered. `run` has every attempt."""

    exit_code = 5

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


class RefusedError(UsageError):
    """A model's server refuses what was asked in a way that no other model would take it either. `run` has the attempts."""

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


class BrokenAnswerError(ScopeEdgeError):
    """An answer broke off after some of it had been given. No other model was asked: its answer would have begun anew.

    text: all that came. run: who answered, and what it cost.
    """

    exit_code = 4

    def __init__(self, message: str, text: str, run: Run) -> None:
        super().__init__(message)
        self.text, self.run = text, run


class AssetError(ScopeEdgeError):
    """A bundled or user file that is needed is missing, damaged or not what it claims to be."""

    exit_code = 5


class RemoteError(AssetError):
    """A download failed: no connection, refused, damaged on the way, or no space for it."""


class NoAnswerError(RemoteError):
    """A model behind an endpoint gave no usable answer to one question, tried again where that may help: it is missing.

    hopeless: nothing says that another question would fare better; that takes an answer to some question.
    """

    def __init__(self, message: str, *, hopeless: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless


class ProviderError(ScopeEdgeError):
    """A model did not answer, or not to the end. It is internal: users meet UnansweredError, NoAnswerError and so on.

    retryable: another call may work. every_question: no other question to this model will work either. content: no model would
    take the request. unbilled: the call cost nothing. unreachable: there was no connection. retry_after: seconds that the server
    asks to be left alone.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        every_question: bool = False,
        content: bool = False,
        unbilled: bool = False,
        unreachable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable, self.every_question, self.content = retryable, every_question, content
        self.unbilled, self.unreachable, self.retry_after = unbilled, unreachable, retry_after


class PackError(AssetError):
    """A pack is truncated, altered, foreign, of another kind or format version, or over its size limit."""


class DamagedError(AssetError):
    """A database of the user's is damaged, foreign or of a newer release: it can only be begun anew."""


class MissingExtraError(ScopeEdgeError):
    """An optional native library was asked for by name and is not installed."""

    exit_code = 2


class WorkerError(ScopeEdgeError):
    """The llama.cpp worker failed: it could not be started, died, hung, or has no room. The next call may work again.

    refused: llama.cpp itself would not load the model, or crashed over it; the same file will fare no better.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
