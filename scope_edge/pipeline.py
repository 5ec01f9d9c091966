"""The flow, once: query -> encoder -> index -> slices -> prior -> calibration (-> refiner) -> policy -> decision.

This room knows only Protocols; `assemble.py` puts the concrete parts in.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from scope_edge.errors import UsageError
from scope_edge.types import (
    Decision,
    EncodedQuery,
    Estimates,
    EstimatorReport,
    ModelCard,
    Neighbor,
    PolicyDecision,
    Preference,
    Query,
    Refinement,
    Slice,
)

if TYPE_CHECKING:
    from scope_edge.types import Floats, Vector

    # Estimates and the range (low, high) each p may still take -> the models that could be chosen, best first.
    CouldWin = Callable[[Estimates, Floats, Floats], tuple[int, ...]]

# A prompt longer than any context window on the market: what is over it is a mistake, and refusing it bounds memory.
MAX_QUERY_CHARACTERS = 16 * 1024 * 1024
_VISIBLE = re.compile(r"[^\s\0]")


class QueryEncoder(Protocol):
    """Text -> unit vector."""

    def encode(self, query: Query) -> EncodedQuery: ...

    def encode_many(self, queries: Iterable[Query]) -> Iterator[EncodedQuery]: ...


class NeighborSearch(Protocol):
    """The anchors a user sees as similar questions."""

    @property
    def note(self) -> str | None: ...

    def nearest(self, vector: Vector, k: int) -> tuple[Neighbor, ...]: ...

    def similarity(self, vector: Vector, neighbors: Sequence[Neighbor]) -> float: ...


class Estimator(Protocol):
    """Query -> calibrated estimates of every model of the pool, and what estimating cost."""

    def estimate(self, encoded: EncodedQuery, similarity: float) -> tuple[Estimates, EstimatorReport]: ...

    def slices(self, encoded: EncodedQuery) -> tuple[Slice, ...]: ...


class Refiner(Protocol):
    """Better estimates for the models that could still be chosen, in the time there is; never fails."""

    def refine(self, encoded: EncodedQuery, estimates: Estimates, could_win: CouldWin) -> Refinement: ...

    def close(self) -> None: ...


class Policy(Protocol):
    """Estimates -> verdict, under what the user wants."""

    pool: tuple[ModelCard, ...]

    def decide(
        self, query: Query, estimates: Estimates, preference: Preference, slices: tuple[Slice, ...]
    ) -> PolicyDecision: ...

    def contest(self, query: Query, preference: Preference, slices: tuple[Slice, ...]) -> CouldWin: ...


class PrivacyCheck(Protocol):
    """What a query holds may forbid what its preference allows."""

    def check(self, query: Query, preference: Preference) -> tuple[Preference, tuple[str, ...]]:
        """The preference that holds, and warnings for the decision."""


class Pipeline:
    """Routes queries within one pool. Safe to call from several threads at once; a context manager that ends what it runs."""

    def __init__(
        self,
        *,
        encoder: QueryEncoder,
        bank: NeighborSearch,
        estimator: Estimator,
        policy: Policy,
        refiner: Refiner | None = None,
        guard: PrivacyCheck | None = None,
    ) -> None:
        self._encoder = encoder
        self._bank = bank
        self._estimator = estimator
        self._policy = policy
        self._refiner = refiner
        self._guard = guard

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process an estimator runs in, if there is one. The next query would start it again."""
        if self._refiner is not None:
            self._refiner.close()

    @property
    def pool(self) -> tuple[ModelCard, ...]:
        """The model cards a decision may choose from, in order."""
        return self._policy.pool

    def route(self, query: Query, preference: Preference, *, top_k: int = 10) -> Decision:
        """Decide where one query should run; no model runs.

        top_k: similar anchors to report. Raises UsageError for a blank or oversized text, an alpha or a budget out of
        range. That nothing keeps to the limits is no error: see `Decision.feasible`.
        """
        start = perf_counter()
        encoded = self.encode(query)
        encode_ms = (perf_counter() - start) * 1e3
        return self.decide(encoded, preference, top_k=top_k, encode_ms=encode_ms)

    def encode(self, query: Query) -> EncodedQuery:
        """The query with its vector: what `decide` takes. Raises UsageError for a text that cannot be routed."""
        check_query(query)
        return self._encoder.encode(query)

    def decide_many(
        self, requests: Iterable[tuple[Query, Preference]], *, top_k: int = 10
    ) -> Iterator[tuple[EncodedQuery, Decision]]:
        """Decide many queries, in order, encoding over all cores. Requests are pulled a few ahead, so memory stays flat.

        Every decision is the one `route` would make. Raises as `route` does, at the request that is at fault.
        """
        preferences: deque[Preference] = deque()

        def queries() -> Iterator[Query]:
            for query, preference in requests:
                check_query(query)
                preferences.append(preference)
                yield query

        for encoded in self._encoder.encode_many(queries()):
            yield encoded, self.decide(encoded, preferences.popleft(), top_k=top_k)

    def decide(
        self, encoded: EncodedQuery, preference: Preference, *, top_k: int = 10, encode_ms: float | None = None
    ) -> Decision:
        """Decide an encoded query: everything of `route` but the encoder. Raises UsageError as `route` does."""
        cautions: tuple[str, ...] = ()
        if self._guard is not None:
            preference, cautions = self._guard.check(encoded.query, preference)
        start = perf_counter()
        # Always looked up: how near the nearest bundled anchor is says how far the estimates can be trusted.
        neighbors = self._bank.nearest(encoded.vector, max(top_k, 1))
        similarity = self._bank.similarity(encoded.vector, neighbors)
        found = perf_counter()
        slices = self._estimator.slices(encoded) if preference.policy == "paper" else ()
        estimates, report = self._estimator.estimate(encoded, similarity)
        estimated = perf_counter()
        refined = Refinement(estimates, report)
        if self._refiner is not None:
            could_win = self._policy.contest(encoded.query, preference, slices)
            refined = self._refiner.refine(encoded, estimates, could_win)
        settled = perf_counter()
        verdict = self._policy.decide(encoded.query, refined.estimates, preference, slices)
        done = perf_counter()
        marks = {"index": found - start, "estimate": estimated - found}
        if self._refiner is not None:
            marks["refine"] = settled - estimated
        marks["policy"] = done - settled
        timings = {name: round(seconds * 1e3, 3) for name, seconds in marks.items()}
        if encode_ms is not None:
            timings = {"encode": round(encode_ms, 3), **timings}
        note = self._bank.note
        return Decision(
            choice=verdict.choice,
            where=verdict.where,
            alpha=preference.alpha,
            policy=preference.policy,
            feasible=verdict.feasible,
            bound=verdict.bound,
            over_budget=verdict.over_budget,
            estimator=refined.report,
            candidates=verdict.candidates,
            neighbors=neighbors[: max(top_k, 0)],
            flip_below=verdict.flip_below,
            flip_above=verdict.flip_above,
            truncated=encoded.truncated,
            degraded=refined.degraded if note is None else (note, *refined.degraded),
            warnings=(*cautions, *refined.warnings, *verdict.warnings),
            timings_ms=timings,
            query_id=encoded.query.id,
        )


def check_query(query: Query) -> None:
    """Refuse what cannot be routed. Raises UsageError for a blank text and for one over `MAX_QUERY_CHARACTERS`."""
    size = len(query.text) + len(query.system or "") + sum(len(text) for _, text in query.history)
    if size > MAX_QUERY_CHARACTERS:
        raise UsageError(
            f"the query is {size:,} characters, more than the {MAX_QUERY_CHARACTERS:,} that are read; shorten it"
        )
    if _VISIBLE.search(query.text) is None:
        raise UsageError("the query is blank; give the text to route")
