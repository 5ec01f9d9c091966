"""One query on its way to an answer: the options of a call, what `Router.start` takes, and what the executor carries out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

from scope_edge.encoding.unicode import replace_surrogates, replace_surrogates_in_body
from scope_edge.errors import UsageError
from scope_edge.settings.schema import CHECKS
from scope_edge.settings.validation import check_name, suggestion
from scope_edge.types import Budget, Decision, Query

if TYPE_CHECKING:
    from scope_edge.execution.executor import Execution
    from scope_edge.settings.config import Settings
    from scope_edge.types import EncodedQuery, Fallback, PolicyName, Preference

Messages = Sequence[Mapping[str, Any]]
# Names of the limit in the wire format, the old one and the new.
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens")
PREFERENCES = ("alpha", "max_tokens", "max_usd", "max_seconds", "local_only", "fallback", "policy")
ROUTE = ("system", "history", "id", *PREFERENCES, "exclude")
ASK = (*ROUTE, "model", "verify", "fields")
_ROLES = ("system", "user", "assistant")


class RouteOptions(TypedDict, total=False):
    """The options of `Router.route`. The settings fill in what is missing; `Router` describes each option."""

    system: str | None
    history: Iterable[tuple[str, str]]
    id: str | None
    alpha: float | None
    max_tokens: int | None
    max_usd: float | None
    max_seconds: float | None
    local_only: bool | None
    exclude: str | Iterable[str] | None
    fallback: Fallback | None
    policy: PolicyName | None


class AskOptions(RouteOptions, total=False):
    """The options of `Router.ask` and `Router.stream`."""

    model: str | None
    verify: int | None
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AskRequest:
    """A query to decide and answer.

    Attributes:
        query, preference: what to decide, and under which limits. top_k: similar anchors to report; None = as the settings say.
        model: the only model that may be called; None = any of the pool.
        estimate: False = the pinned `model` is called at once: no limit can rule it out (`overrides.is_unlimited`).
        messages: the conversation in the wire format; () = made of the query. fields: further fields of the wire format.
        needs: what the model must support, as in `ModelCard.supports`.
        verify: samples of an answer on the device to compare; less than 2 = no comparison.
        previous_model: the model that answered last in this conversation; it is kept unless another one's utility is higher by
            more than `stick`.
        started: when the time limit began to run, by time.monotonic().
    """

    query: Query
    preference: Preference
    top_k: int | None = None
    model: str | None = None
    estimate: bool = True
    messages: tuple[Mapping[str, Any], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    verify: int = 0
    previous_model: str | None = None
    stick: float = 0.0
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer to be read. sticky: the conversation stays with its model. deciding: seconds that the decision took."""

    execution: Execution
    decision: Decision
    sticky: bool
    deciding: float


@dataclass(frozen=True, slots=True)
class Request:
    """A decided query, to be answered.

    Attributes:
        budget: the limits of the decision. Enforced while the answer is written, unless the decision exceeds it already.
        ceiling: likewise, but always enforced.
        messages: the conversation in the wire format, passed on unchanged; () = made of the query.
        fields: of the wire format, passed on to servers; a model on the device heeds those that it understands.
        local_only: no model in the cloud is called, whatever the decision says.
        verify: samples of an answer on the device to compare; less than 2 = no comparison.
        encoded: the query, for the journal. started: by time.monotonic(), when the seconds of the budget began.
    """

    query: Query
    decision: Decision
    budget: Budget = field(default_factory=Budget)
    ceiling: Budget = field(default_factory=Budget)
    messages: tuple[Mapping[str, Any], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    local_only: bool = False
    verify: int = 0
    encoded: EncodedQuery | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def conversation(self) -> tuple[Mapping[str, Any], ...]:
        """The messages to send."""
        system = [] if self.query.system is None else [("system", self.query.system)]
        turns = (*system, *self.query.history, ("user", self.query.text))
        return self.messages or tuple({"role": role, "content": text} for role, text in turns)

    @property
    def limits(self) -> Budget:
        """The answer's limits. A caller that asks for a fallback over the budget lifts them, up to the ceiling."""
        return self.ceiling if self.decision.over_budget else self.budget

    @property
    def until(self) -> float:
        """When the answer must be whole, by time.monotonic()."""
        seconds = self.limits.seconds
        return math.inf if seconds is None else self.started + seconds


def texts_of(messages: Messages) -> tuple[list[str], bool]:
    """Return the text of every message, and whether there are other parts than text, such as a picture."""
    texts, other = [], False
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        plain = [part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
        other |= len(plain) < len(parts)
        texts.append("\n".join(plain))
    return texts, other


def whole_number(text: str) -> int:
    """Read a whole number of JSON. Raises ValueError: beyond 64 bits other programs read another number, or none."""
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise ValueError(f"{text[:40]} is out of range; send a smaller number")
    return int(text)


def read_options(options: Any, known: tuple[str, ...]) -> dict[str, Any]:
    """Check the options' names. Raises UsageError for an unknown one."""
    for name in options:
        if name not in known:
            raise UsageError(f"unknown option {name!r}{suggestion(name, known)}; the options are {', '.join(known)}")
    return dict(options)


def read_preference(options: Mapping[str, Any], settings: Settings) -> Preference:
    """Lay the options over the settings. Raises UsageError for an invalid value; model ids are not looked up."""
    changes: dict[str, Any] = {
        key: CHECKS[key](key, options[key]) for key in PREFERENCES if options.get(key) is not None
    }
    exclude = options.get("exclude") or ()
    if not isinstance(exclude, Iterable):
        raise UsageError(f"exclude must be a model's id, or several, not {exclude!r}")
    models = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    return replace(settings, **changes).preference(exclude=tuple(check_name("exclude", model) for model in models))


def read_query(text: Any, options: Mapping[str, Any]) -> Query:
    """Make a query of a text and its options. Raises UsageError for a value of another type."""
    system, id = options.get("system"), options.get("id")
    for name, value in (("text", text), ("system", system), ("id", id)):
        if not isinstance(value, str) and not (name != "text" and value is None):
            raise UsageError(f"{name} must be a string, not {type(value).__name__}")
    system = None if system is None else replace_surrogates(system)
    return Query(replace_surrogates(text), system=system, id=id, history=_history(options.get("history") or ()))


def read_fields(given: Any) -> dict[str, Any]:
    """Check extra fields of the wire format. Raises UsageError for what cannot be sent as JSON."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise UsageError(f"fields must be a mapping of names to values, not {given!r:.80}")
    try:
        json.loads(json.dumps(dict(given), allow_nan=False), parse_int=whole_number)
    except (TypeError, ValueError) as error:
        raise UsageError(f"fields cannot be sent as JSON: {error}") from error
    for name in TOKEN_LIMITS:
        if given.get(name) is not None and not (type(given[name]) is int and 1 <= given[name] < 2**63):
            raise UsageError(f"fields: {name} must be a whole number, at least 1")
    return dict(replace_surrogates_in_body(given))


def limited(fields: Mapping[str, Any], most: int | None) -> Mapping[str, Any]:
    """Return the fields with a limit on the answer's tokens, unless they have a lower one. most: None = unlimited."""
    if most is None:
        return fields
    rest = {name: value for name, value in fields.items() if name not in TOKEN_LIMITS}
    wanted = wanted_tokens(fields)
    return {**rest, TOKEN_LIMITS[0]: most if wanted is None else min(most, wanted)}


def wanted_tokens(fields: Mapping[str, Any]) -> int | None:
    """Return the limit on the answer's tokens in a request, under either name; None = unlimited."""
    return min((value for name in TOKEN_LIMITS if type(value := fields.get(name)) is int), default=None)


def read_verify(options: Mapping[str, Any], settings: Settings) -> int:
    """Return the number of samples to compare: the option, or the setting. Raises UsageError for an invalid number."""
    given = options.get("verify")
    value: Any = settings.verify if given is None else CHECKS["verify"]("verify", given)
    return int(value)


def _history(given: Any) -> tuple[tuple[str, str], ...]:
    turns = tuple(given) if isinstance(given, Iterable) else (given,)
    for turn in turns:
        pair = isinstance(turn, Sequence) and len(turn) == 2 and turn[0] in _ROLES and isinstance(turn[1], str)
        if not pair:
            raise UsageError(f"history must be pairs of a role ({', '.join(_ROLES)}) and a text, not {turn!r:.80}")
    return tuple((role, replace_surrogates(text)) for role, text in turns)
