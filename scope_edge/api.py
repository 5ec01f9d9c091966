"""The library's face: a router that decides, and asks the model it decided for. `from scope_edge import Router`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

from scope_edge.allowed import CHECKS
from scope_edge.answer import Answer
from scope_edge.askable import askable
from scope_edge.assemble import load_executor, load_flow, open_catalog, open_journal
from scope_edge.checks import check_name, suggestion
from scope_edge.config import DEFAULT_POOL, Settings, load_settings
from scope_edge.errors import InfeasibleError, UsageError
from scope_edge.executor.request import Request
from scope_edge.executor.room import TOKEN_LIMITS
from scope_edge.records import Attempt, Decision, ModelCard, Query
from scope_edge.unmet import unmet
from scope_edge.whole import whole, whole_body

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from scope_edge.executor import Execution, Executor
    from scope_edge.journal import Journal
    from scope_edge.records import Fallback, PolicyName, Preference, Where
    from scope_edge.router import Flow


class Wishes(TypedDict, total=False):
    """What one call may ask for beside the text; what it does not say, the settings say.

    `Router` says what each of them is.
    """

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


class AskWishes(Wishes, total=False):
    """And for an answer."""

    model: str | None
    verify: int | None
    fields: Mapping[str, Any]


_SETTINGS = ("alpha", "max_tokens", "max_usd", "max_seconds", "local_only", "fallback", "policy")
_QUERY = ("system", "history", "id")
_ROUTE = (*_QUERY, *_SETTINGS, "exclude")
_ASK = (*_ROUTE, "model", "verify", "fields")
_ROLES = ("system", "user", "assistant")


class Router:
    """Decides which model of a pool a query should go to, and asks it. Safe to call from several threads at once.

    A context manager: its end ends the processes that models run in.

    A call may ask for, by keyword (None, or left out: as the settings say):

    alpha: 0 = cheapest ... 1 = most accurate. max_tokens: of prompt and completion together, the model's own. max_usd: US
    dollars. max_seconds: loading included. local_only: models on the device alone. exclude: model ids, or one of them.
    fallback: "none" or "cheapest", where nothing keeps to the limits. policy: "scope-edge" or "paper".
    system, history: what is sent along; history is (role, text) pairs, oldest first. id: given back as the decision's query_id.

    And for an answer: model: this one alone is asked. verify: 2 = a second sample of answers on the device, 0 = none. fields: of
    the wire format, passed on to the model ("temperature", "stop", "max_tokens", ...).
    """

    def __init__(self, settings: Settings, parts: tuple[Flow, Executor] | None = None) -> None:
        """parts: of somebody who goes on using them, and ends them. Raises as `load` does."""
        self._settings = settings
        self._journal = None if parts else _journal(settings)
        self._flow: Flow = (
            parts[0] if parts else load_flow(settings, None if self._journal is None else self._journal.noted)
        )
        self._lock = threading.Lock()
        self._executor: Executor | None = parts[1] if parts else None
        self._lent = parts is not None

    @classmethod
    def load(cls, profile: str | None = None, **settings: Any) -> Router:
        """A router under the user's settings, those given here before all others (docs/models.md#settings).

        Raises UsageError (a setting that makes no sense, an unknown pool or profile), AssetError (a file missing or damaged),
        MissingExtraError (an optional library asked for by name is not installed).
        """
        return cls(load_settings({**settings, "profile": profile}))

    def __enter__(self) -> Router:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what runs. The next question would start it again."""
        if self._lent:
            return
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.close()
        self._flow.close()
        if self._journal is not None:
            self._journal.close()

    @property
    def pool(self) -> tuple[ModelCard, ...]:
        """The model cards a decision may choose from, in order."""
        return self._flow.pool

    def __repr__(self) -> str:
        return f"<Router of {len(self.pool)} models, alpha {self._settings.alpha:g}>"

    def route(self, text: str, **wishes: Unpack[Wishes]) -> Decision:
        """Where a query should go; no model of the pool runs.

        That nothing keeps to the limits is no error: see `Decision.feasible`. Raises UsageError for what makes no sense.
        """
        given = _known(wishes, _ROUTE)
        return self._flow.route(_query(text, given), self._preference(given), top_k=self._settings.top_k)

    def route_many(self, texts: Iterable[str], **wishes: Unpack[Wishes]) -> Iterator[Decision]:
        """Where each of many queries should go, in order, on all cores; read a few ahead, so that memory stays flat.

        Each decision is the one that `route` would make. Raises as `route` does, at the text that is at fault.
        """
        given = _known(wishes, _ROUTE)
        preference = self._preference(given)
        requests = ((_query(text, given), preference) for text in texts)
        return self._flow.route_many(requests, top_k=self._settings.top_k)

    def ask(self, text: str, **wishes: Unpack[AskWishes]) -> Answer:
        """The answer of the model that was chosen, or of the next best where that one does not answer.

        Raises InfeasibleError (nothing keeps to the limits), UnansweredError (nobody answered), BrokenAnswerError (the answer
        broke off; it has what came), BudgetError (a cap on spending), UsageError (what was asked makes no sense, nobody can
        be called, or a server refuses it).
        """
        with self.stream(text, **wishes) as stream:
            for _ in stream:
                pass
        if stream.answer is None:
            raise RuntimeError("an answer came to its end and is not there")
        return stream.answer

    def stream(self, text: str, **wishes: Unpack[AskWishes]) -> Stream:
        """As `ask`, piece by piece. The decision is made now, and may raise; the model is asked when the first piece is."""
        started = time.monotonic()
        given = _known(wishes, _ASK)
        preference, query = self._preference(given), _query(text, given)
        pinned = given.get("model")
        only = None if pinned is None else self._check_model(check_name("model", pinned))
        can = askable(self.pool, only, preference, picked=self._settings.pool != DEFAULT_POOL)
        # Before the decision: an estimator that makes it may load a model, and the memory there is is shared.
        executor = self._running()
        encoded = self._flow.encode(query)
        decision = can.noted(self._flow.decide(encoded, can.preference, top_k=self._settings.top_k))
        if decision.choice is None:
            if executor.journal is not None:
                executor.journal.record(query, decision, None, encoded=encoded)
            raise InfeasibleError(unmet(decision.bound), decision)
        request = Request(
            query=query,
            decision=decision,
            budget=preference.budget,
            fields=_fields(given.get("fields")),
            local_only=can.preference.local_only,
            verify=_verify(given, self._settings),
            encoded=encoded,
            started=started,
        )
        return Stream(executor.start(request))

    def _running(self) -> Executor:
        with self._lock:
            if self._executor is None:
                self._executor = load_executor(self._settings, self._flow.pool, self._flow.encode)
            return self._executor

    def _preference(self, given: Mapping[str, Any]) -> Preference:
        changes: dict[str, Any] = {key: CHECKS[key](key, given[key]) for key in _SETTINGS if given.get(key) is not None}
        exclude = given.get("exclude") or ()
        if not isinstance(exclude, Iterable):
            raise UsageError(f"exclude must be a model's id, or several, not {exclude!r}")
        models = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        for model in models:
            self._check_model(check_name("exclude", model))
        return replace(self._settings, **changes).preference(exclude=models)

    def _check_model(self, model: str) -> str:
        """Raises UsageError naming the nearest ids for one that the catalog does not know."""
        if model not in {card.id for card in self.pool}:
            open_catalog(self._settings).card(model)
        return model


class Stream:
    """An answer on its way: iterate over its text, once; then `answer` has it whole.

    `cancel` ends it from another thread; leaving its `with` block, or `close`, from this one.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def __repr__(self) -> str:
        run = None if self.answer is None else self.answer.run
        return f"<Stream of {self.model or self.decision.choice}, {'under way' if run is None else run.ending}>"

    @property
    def decision(self) -> Decision:
        """Why who is asked."""
        return self._execution.decision

    @property
    def model(self) -> str | None:
        """Who answers; None before the first piece."""
        return self._execution.model

    @property
    def where(self) -> Where | None:
        """Where that one runs; None before the first piece."""
        return self._execution.where

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Who was asked before and did not answer."""
        return tuple(self._execution.attempts)

    @property
    def answer(self) -> Answer | None:
        """The whole answer; None until it has come to its end."""
        return self._execution.answer

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            text = next(self._execution).text
            if text:
                return text

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """What has not come yet does not."""
        self._execution.close()

    def cancel(self) -> None:
        """End it, from whichever thread: iterating comes to its end soon."""
        self._execution.cancel()


def _journal(settings: Settings) -> Journal | None:
    """Where decisions are recorded that nobody runs, if the user wants that."""
    if settings.journal != "all":
        return None
    return open_journal(settings)


def _known(wishes: Any, known: tuple[str, ...]) -> dict[str, Any]:
    for name in wishes:
        if name not in known:
            raise UsageError(f"{name!r} cannot be asked for{suggestion(name, known)}; what can is {', '.join(known)}")
    return dict(wishes)


def _query(text: Any, given: Mapping[str, Any]) -> Query:
    system, id = given.get("system"), given.get("id")
    for name, value in (("text", text), ("system", system), ("id", id)):
        if not isinstance(value, str) and not (name != "text" and value is None):
            raise UsageError(f"{name} must be a string, not {type(value).__name__}")
    system = None if system is None else whole(system)
    return Query(whole(text), system=system, id=id, history=_history(given.get("history") or ()))


def _history(given: Any) -> tuple[tuple[str, str], ...]:
    turns = tuple(given) if isinstance(given, Iterable) else (given,)
    for turn in turns:
        pair = isinstance(turn, Sequence) and len(turn) == 2 and turn[0] in _ROLES and isinstance(turn[1], str)
        if not pair:
            raise UsageError(f"history must be pairs of a role ({', '.join(_ROLES)}) and a text, not {turn!r:.80}")
    return tuple((role, whole(text)) for role, text in turns)


def _fields(given: Any) -> dict[str, Any]:
    """Fields of the wire format, as they can be sent."""
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
    return dict(whole_body(given))


def _verify(given: Mapping[str, Any], settings: Settings) -> int:
    value: Any = settings.verify if given.get("verify") is None else CHECKS["verify"]("verify", given["verify"])
    return int(value)
