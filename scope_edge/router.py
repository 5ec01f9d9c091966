"""The public interface: a router that decides, and calls the chosen model. `from scope_edge import Router`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from scope_edge.errors import InfeasibleError
from scope_edge.execution.attached import attached_strings
from scope_edge.execution.fallback import among_callable, callable_models
from scope_edge.execution.request import (
    ASK,
    ROUTE,
    Asked,
    AskRequest,
    Request,
    limited,
    read_fields,
    read_options,
    read_preference,
    read_query,
    read_verify,
)
from scope_edge.factory import load_executor, load_pipeline, open_catalog, open_journal
from scope_edge.policy.infeasible import explain_infeasible
from scope_edge.policy.overrides import keep_model, pinned_decision
from scope_edge.settings.config import DEFAULT_POOL, Settings, load_settings
from scope_edge.settings.schema import is_recorded
from scope_edge.settings.validation import check_name
from scope_edge.types import Answer, Attempt, Decision, ModelCard, Query

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from scope_edge.catalog.cards import Catalog
    from scope_edge.execution import Execution, Executor
    from scope_edge.execution.request import AskOptions, RouteOptions
    from scope_edge.history import Journal
    from scope_edge.pipeline import Pipeline
    from scope_edge.types import EncodedQuery, Preference, Where


class SharedParts(Protocol):
    """Parts that routers of several settings share, such as those of a server, which also closes them."""

    @property
    def catalog(self) -> Catalog: ...

    def load_flow(self, settings: Settings) -> Pipeline: ...

    def load_executor(self, settings: Settings, journal: Journal) -> Executor: ...


class Router:
    """Decides which model of a pool should answer a query, and calls it. Threads may share one.

    As a context manager it ends the processes that models run in.

    The keyword options of a call (missing or None: as the settings say):

    alpha: 0 = cheapest ... 1 = most accurate. max_tokens: of prompt and answer together, in the model's own tokens.
    max_usd: US dollars. max_seconds: loading included. local_only: only models on the device. exclude: one or several model ids.
    fallback: "none" or "cheapest", for when no model keeps to the limits. policy: "scope-edge" or "paper".
    system, history: sent along with the text; history is (role, text) pairs, oldest first. id: returned as the decision's query_id.

    Options of an answer: model: the only model to call. verify: 2 = take a second sample of answers on the device, 0 = do not.
    fields: further fields of the wire format, passed on to the model ("temperature", "stop", ...). There, as in OpenAI's API,
    "max_tokens" is of the answer alone, as the setting max_answer_tokens.
    """

    def __init__(self, settings: Settings, shared: SharedParts | None = None) -> None:
        """Raise as `load` does; with `shared` parts, which load when they are first needed, the first call does."""
        self._settings, self._shared = settings, shared
        self._loading, self._lock = threading.Lock(), threading.Lock()
        self._loaded: Pipeline | None = None if shared else load_pipeline(settings)
        self._executor: Executor | None = None
        self._journal: Journal | None = None

    @classmethod
    def load(cls, profile: str | None = None, **settings: Any) -> Router:
        """Load a router under the user's settings; those given here win over all others (docs/models.md#settings).

        Raises UsageError (an invalid setting, an unknown pool or profile), AssetError (a file is missing or damaged),
        MissingExtraError (an optional library requested by name is not installed).
        """
        return cls(load_settings({**settings, "profile": profile}))

    def __enter__(self) -> Router:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes and close all files that are not shared. The next call starts them again."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None and self._shared is None:
            executor.close()
        elif executor is not None:
            executor.release()
        if self._loaded is not None:
            self._loaded.close()
        if self._journal is not None:
            self._journal.close()

    @property
    def pool(self) -> tuple[ModelCard, ...]:
        """The model cards a decision may choose from, in order."""
        return self._flow.pool

    @property
    def journal_problem(self) -> str | None:
        """Why the last decision could not be recorded, in one line; None = it was recorded, or did not have to be."""
        return None if self._journal is None else self._journal.problem

    def __repr__(self) -> str:
        return f"<Router of {len(self.pool)} models, alpha {self._settings.alpha:g}>"

    def route(self, text: str, **options: Unpack[RouteOptions]) -> Decision:
        """Decide where a query should go; no model of the pool runs.

        A decision without a choice is not an error: see `Decision.feasible`. Raises UsageError for an invalid text or option.
        """
        given = read_options(options, ROUTE)
        return self.decide(read_query(text, given), read_preference(given, self._settings))

    def route_many(self, texts: Iterable[str], **options: Unpack[RouteOptions]) -> Iterator[Decision]:
        """Decide for many queries, in order, on all cores. Texts are read a few ahead, so that memory stays flat.

        Each decision is the one that `route` would make. Raises as `route` does, at the text that is at fault.
        """
        given = read_options(options, ROUTE)
        preference = self._checked(given)
        return self.decide_many((read_query(text, given), preference) for text in texts)

    def ask(self, text: str, **options: Unpack[AskOptions]) -> Answer:
        """Return the answer of the chosen model, or of the next best one where that does not answer.

        Raises InfeasibleError (no model keeps to the limits), UnansweredError (no model answered), BrokenAnswerError (the
        answer broke off; the error has its beginning), BudgetError (a cap on spending), RefusedError (a model's server refuses
        the request), UsageError (an invalid text or option, or no model can be called).
        """
        with self.stream(text, **options) as stream:
            for _ in stream:
                pass
        if stream.answer is None:
            raise RuntimeError("an answer came to its end and is missing")
        return stream.answer

    def stream(self, text: str, **options: Unpack[AskOptions]) -> Stream:
        """Ask as `ask` does, piece by piece. The decision is made now, and may raise; the model is called at the first piece."""
        started = time.monotonic()
        given = read_options(options, ASK)
        model, preference = given.get("model"), read_preference(given, self._settings)
        fields = limited(read_fields(given.get("fields")), self._settings.max_answer_tokens)
        request = AskRequest(
            query=replace(read_query(text, given), attached=attached_strings((), fields)),
            preference=preference,
            model=None if model is None else check_name("model", model),
            fields=fields,
            verify=read_verify(given, self._settings),
            started=started,
        )
        return Stream(self.start(request).execution)

    def prepare(self, text: str, **options: Unpack[RouteOptions]) -> tuple[Query, Preference]:
        """Check a text and its options for `decide_many`. Raises UsageError."""
        given = read_options(options, ROUTE)
        return read_query(text, given), self._checked(given)

    def decide(self, query: Query, preference: Preference, top_k: int | None = None) -> Decision:
        """Decide where a query should go. top_k: similar anchors to report. Raises as `route` does."""
        self._check_known(preference.exclude)
        flow = self._flow
        preference = among_callable(flow.pool, preference)
        started = time.perf_counter()
        encoded = flow.encode(query)
        milliseconds = (time.perf_counter() - started) * 1e3
        decision = flow.decide(encoded, preference, top_k=self._top_k(top_k), encode_ms=milliseconds)
        return self._recorded(encoded, decision, asked=False)

    def decide_many(self, requests: Iterable[tuple[Query, Preference]]) -> Iterator[Decision]:
        """Decide for many queries that `prepare` has checked, in order. Raises as `route_many` does."""
        among = ((query, among_callable(self.pool, preference)) for query, preference in requests)
        for encoded, decision in self._flow.decide_many(among, top_k=self._settings.top_k):
            yield self._recorded(encoded, decision, asked=False)

    def start(self, request: AskRequest) -> Asked:
        """Decide, and begin an answer; its model is called when it is iterated.

        Raises InfeasibleError (no model keeps to the limits), UsageError (no model can be called, an unknown model, a blank
        text), AssetError (a file is missing or damaged).
        """
        self._check_known((*request.preference.exclude, *filter(None, [request.model])))
        preference, encoded, kept = request.preference, None, False
        # Before the decision: an estimator that makes it may load a model, and both share one memory.
        executor = self._running()
        if request.model is not None and not request.estimate:
            decision = pinned_decision(self._catalog.card(request.model), request.query, preference)
        else:
            can = callable_models(
                self.pool, request.model, preference, request.needs, picked=self._settings.pool != DEFAULT_POOL
            )
            preference = can.preference
            encoded = self._flow.encode(request.query)
            best = can.noted(self._flow.decide(encoded, preference, top_k=self._top_k(request.top_k)))
            decision = keep_model(best, request.previous_model, request.stick)
            kept = decision.choice != best.choice
            if decision.choice is None:
                self._recorded(encoded, decision, asked=True)
                raise InfeasibleError(explain_infeasible(decision.bound), decision)
        # A fallback lifts the limit on prompt and answer together. The answer alone still keeps to it.
        most = preference.budget.tokens if decision.over_budget else None
        execution = executor.start(
            Request(
                query=request.query,
                decision=decision,
                budget=preference.budget,
                ceiling=preference.ceiling,
                messages=request.messages,
                fields=limited(request.fields, most),
                local_only=preference.local_only,
                verify=request.verify,
                encoded=encoded,
                started=request.started,
            )
        )
        return Asked(execution, decision, kept, time.monotonic() - request.started)

    @property
    def _flow(self) -> Pipeline:
        with self._loading:
            if self._loaded is None:
                self._loaded = self._shared.load_flow(self._settings) if self._shared else load_pipeline(self._settings)
            return self._loaded

    def _running(self) -> Executor:
        settings, shared = self._settings, self._shared
        with self._lock:
            if self._executor is None and shared is not None:
                self._executor = shared.load_executor(settings, self._opened())
            elif self._executor is None:
                self._executor = load_executor(settings, self._flow.pool, self._flow.encode, self._opened())
            return self._executor

    def _opened(self) -> Journal:
        self._journal = self._journal or open_journal(self._settings)
        return self._journal

    def _recorded(self, encoded: EncodedQuery, decision: Decision, *, asked: bool) -> Decision:
        """Record a decision that no model carries out: of `ask` always, of `route` only under journal = "all".

        The execution records a decision that is carried out, at its end.
        """
        if is_recorded(self._settings.journal, asked=asked):
            with self._lock:
                journal = self._opened()
            journal.record(encoded.query, decision, None, encoded=encoded)
        return decision

    def _top_k(self, given: int | None) -> int:
        return self._settings.top_k if given is None else given

    def _checked(self, given: dict[str, Any]) -> Preference:
        preference = read_preference(given, self._settings)
        self._check_known(preference.exclude)
        return preference

    def _check_known(self, models: Iterable[str]) -> None:
        """Raise UsageError naming the nearest ids for a model that the catalog does not know."""
        for model in models:
            self._catalog.card(model)

    @cached_property
    def _catalog(self) -> Catalog:
        if self._shared is not None:
            return self._shared.catalog
        return open_catalog(self._settings)


class Stream:
    """An answer that is being written: iterate over its text, once; then `answer` is complete.

    `cancel` ends it from another thread; `close`, or leaving its `with` block, from this one.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def __repr__(self) -> str:
        run = None if self.answer is None else self.answer.run
        return f"<Stream of {self.model or self.decision.choice}, {'under way' if run is None else run.ending}>"

    @property
    def decision(self) -> Decision:
        """The decision that is carried out."""
        return self._execution.decision

    @property
    def model(self) -> str | None:
        """The model that answers; None before the first piece."""
        return self._execution.model

    @property
    def where(self) -> Where | None:
        """Where that model runs; None before the first piece."""
        return self._execution.where

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The models that were called before and did not answer."""
        return tuple(self._execution.attempts)

    @property
    def answer(self) -> Answer | None:
        """The complete answer; None until it has ended."""
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
        """End the answer; no further piece follows."""
        self._execution.close()

    def cancel(self) -> None:
        """End the answer from any thread: iterating stops soon."""
        self._execution.cancel()
