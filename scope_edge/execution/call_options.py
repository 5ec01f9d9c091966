"""The keyword options of one call of `Router`: what they are, and how they are checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

from scope_edge.encoding.unicode import replace_surrogates, replace_surrogates_in_body
from scope_edge.errors import UsageError
from scope_edge.execution.token_budget import TOKEN_LIMITS
from scope_edge.settings.schema import CHECKS
from scope_edge.settings.validation import check_name, suggestion
from scope_edge.types import Query

if TYPE_CHECKING:
    from scope_edge.settings.config import Settings
    from scope_edge.types import Fallback, PolicyName, Preference


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


PREFERENCES = ("alpha", "max_tokens", "max_usd", "max_seconds", "local_only", "fallback", "policy")
ROUTE = ("system", "history", "id", *PREFERENCES, "exclude")
ASK = (*ROUTE, "model", "verify", "fields")
_ROLES = ("system", "user", "assistant")


def read_options(options: Any, known: tuple[str, ...]) -> dict[str, Any]:
    """Check the options' names. Raises UsageError for an unknown one."""
    for name in options:
        if name not in known:
            raise UsageError(f"unknown option {name!r}{suggestion(name, known)}; the options are {', '.join(known)}")
    return dict(options)


def read_preference(options: Mapping[str, Any], settings: Settings) -> Preference:
    """Lay the options over the settings. Raises UsageError for an invalid value; unknown model ids are not noticed here."""
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
        json.dumps(dict(given), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"fields cannot be sent as JSON: {error}") from error
    for name in TOKEN_LIMITS:
        if given.get(name) is not None and not (type(given[name]) is int and given[name] >= 1):
            raise UsageError(f"fields: {name} must be a whole number, at least 1")
    return dict(replace_surrogates_in_body(given))


def read_verify(options: Mapping[str, Any], settings: Settings) -> int:
    """The number of samples to compare: the option, or the setting. Raises UsageError for an invalid number."""
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
