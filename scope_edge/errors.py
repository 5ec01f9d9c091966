"""Every error a user can meet. Its message is one line: what went wrong, where, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scope_edge.types import Decision, Run


class ScopeEdgeError(Exception):
    """Base of all errors raised on purpose. `exit_code`: of the CLI."""

    exit_code = 1


class UsageError(ScopeEdgeError):
    """An invalid request: blank text, a value out of range, an unknown model or pool, a typo in the config."""

    exit_code = 2


class ConfigError(UsageError):
    """A settings file, environment variable or model card has a value that cannot be used."""


class BudgetError(ScopeEdgeError):
    """The request is expected to cost more than allowed. Nothing was done."""

    exit_code = 3


class InfeasibleError(BudgetError):
    """No model keeps to the limits, so none was called. `decision` names the limit that bound."""

    def __init__(self, message: str, decision: Decision) -> None:
        super().__init__(message)
        self.decision = decision


class UnansweredError(ScopeEdgeError):
    """No model that may be called has answered. `run` has every attempt."""

    exit_code = 5

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


class ContextLengthError(UsageError):
    """A prompt is longer than a model's context."""


class RefusedError(UsageError):
    """Models refuse the request, and no other one is left. `run` has the attempts.

    code: why, in OpenAI's terms ("context_length_exceeded", "unsupported_parameter"), where that is known.
    """

    def __init__(self, message: str, run: Run, code: str | None = None) -> None:
        super().__init__(message)
        self.run, self.code = run, code


class BrokenAnswerError(ScopeEdgeError):
    """An answer broke off midway. No other model was called: its answer would have begun anew.

    text: the part that arrived. run: the model that answered, and the cost.
    """

    exit_code = 4

    def __init__(self, message: str, text: str, run: Run) -> None:
        super().__init__(message)
        self.text, self.run = text, run


class AssetError(ScopeEdgeError):
    """A bundled or user file that is needed is missing, damaged or of the wrong kind."""

    exit_code = 5


class RemoteError(AssetError):
    """A download failed: no connection, refused, damaged on the way, or no disk space."""


class NoAnswerError(RemoteError):
    """A model behind an endpoint gave no usable answer to one question, even on a second try where that may help.

    hopeless: the model has answered no question so far, so another one would probably fail too.
    """

    def __init__(self, message: str, *, hopeless: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless


class ProviderError(ScopeEdgeError):
    """A model did not answer, or not to the end. It is internal: users see UnansweredError, NoAnswerError and so on.

    retryable: another call may work. every_question: no other question to this model will work either. content: no model would
    take the request. code: why this model does not take it, in OpenAI's terms. unbilled: the call cost nothing. unreachable: no
    connection. retry_after: seconds that the server asks callers to wait.
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
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable, self.every_question, self.content, self.code = retryable, every_question, content, code
        self.unbilled, self.unreachable, self.retry_after = unbilled, unreachable, retry_after


class PackError(AssetError):
    """A pack is truncated, altered, foreign, of another kind or format version, or over its size limit."""


class DamagedError(AssetError):
    """A database of the user's is damaged, foreign or of a newer release: a new one has to be started."""


class MissingExtraError(ScopeEdgeError):
    """An optional native library was requested by name and is not installed."""

    exit_code = 2


class WorkerError(ScopeEdgeError):
    """The llama.cpp worker failed: it could not be started, died, hung, or has no memory. The next call may work again.

    refused: llama.cpp itself refused the model or crashed on it; the same file will fail again.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
