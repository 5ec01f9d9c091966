"""The way of a query to a decision, on one page:

    Query -> encoder -> EncodedQuery -> bank -> Neighbors -> estimator (-> refiner) -> Estimates -> policy -> Decision

The parts are Protocols here. `factory.py` puts the real ones in: encoding/, estimation/, estimator/ and policy/.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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

# Longer than any context window on the market: a longer query is a mistake, and refusing it bounds memory.
MAX_QUERY_CHARACTERS = 16 * 1024 * 1024
_VISIBLE = re.compile(r"[^\s\0]")


class QueryEncoder(Protocol):
    """Turns text into a unit vector."""

    def encode(self, query: Query) -> EncodedQuery: ...

    def encode_many(self, queries: Iterable[Query]) -> Iterator[EncodedQuery]: ...


class NeighborSearch(Protocol):
    """Finds the anchors that a user sees as similar questions. note: a sentence on the search for the user."""

    @property
    def note(self) -> str | None: ...

    def nearest(self, vector: Vector, k: int) -> tuple[Neighbor, ...]: ...

    def similarity(self, vector: Vector, neighbors: Sequence[Neighbor]) -> float: ...


class Estimator(Protocol):
    """Estimates P(correct) and tokens of every model of the pool, and reports what estimating cost."""

    def estimate(self, encoded: EncodedQuery, similarity: float) -> tuple[Estimates, EstimatorReport]: ...

    def slices(self, encoded: EncodedQuery) -> tuple[Slice, ...]: ...


class Refiner(Protocol):
    """Improves the estimates of models that could still be chosen, in the time there is; never fails."""

    def refine(self, encoded: EncodedQuery, estimates: Estimates, could_win: CouldWin) -> Refinement: ...

    def close(self) -> None: ...


class Policy(Protocol):
    """Chooses a model by the estimates and the user's preference."""

    pool: tuple[ModelCard, ...]

    def decide(
        self, query: Query, estimates: Estimates, preference: Preference, slices: tuple[Slice, ...]
    ) -> PolicyDecision: ...

    def contest(self, query: Query, preference: Preference, slices: tuple[Slice, ...]) -> CouldWin: ...


class PrivacyCheck(Protocol):
    """Tightens the preference of a query that holds something private, and warns of it."""

    def check(self, query: Query, preference: Preference) -> tuple[Preference, tuple[str, ...]]: ...


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Pipeline:
    """Routes queries within one pool. Threads may share one; as a context manager it ends the processes it started."""

    encoder: QueryEncoder
    bank: NeighborSearch
    estimator: Estimator
    policy: Policy
    refiner: Refiner | None = None
    guard: PrivacyCheck | None = None

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the refiner's process, if it runs. The next query would start it again."""
        if self.refiner is not None:
            self.refiner.close()

    @property
    def pool(self) -> tuple[ModelCard, ...]:
        """The model cards a decision may choose from, in order."""
        return self.policy.pool

    def route(self, query: Query, preference: Preference, *, top_k: int = 10) -> Decision:
        """Decide where one query should run; no model runs.

        top_k: similar anchors to report. Raises UsageError for a blank or oversized text, an alpha or a budget out of
        range. A decision without a choice is not an error: see `Decision.feasible`.
        """
        start = perf_counter()
        encoded = self.encode(query)
        return self.decide(encoded, preference, top_k=top_k, encode_ms=(perf_counter() - start) * 1e3)

    def encode(self, query: Query) -> EncodedQuery:
        """Encode a query for `decide`. Raises UsageError for a text that cannot be routed."""
        check_query(query)
        return self.encoder.encode(query)

    def decide_many(
        self, requests: Iterable[tuple[Query, Preference]], *, top_k: int = 10
    ) -> Iterator[tuple[EncodedQuery, Decision]]:
        """Decide many queries, in order, encoding on all cores. Requests are pulled a few ahead, so memory stays flat.

        Every decision is the one `route` would make. Raises as `route` does, at the request that is at fault.
        """
        preferences: deque[Preference] = deque()

        def queries() -> Iterator[Query]:
            for query, preference in requests:
                check_query(query)
                preferences.append(preference)
                yield query

        for encoded in self.encoder.encode_many(queries()):
            yield encoded, self.decide(encoded, preferences.popleft(), top_k=top_k)

    def decide(
        self, encoded: EncodedQuery, preference: Preference, *, top_k: int = 10, encode_ms: float | None = None
    ) -> Decision:
        """Decide an encoded query. encode_ms: what encoding took, for the timings. Raises UsageError as `route` does."""
        query, cautions = encoded.query, tuple[str, ...]()
        if self.guard is not None:
            preference, cautions = self.guard.check(query, preference)
        timer = _Timer({} if encode_ms is None else {"encode": round(encode_ms, 3)})

        # Always searched: the similarity of the nearest bundled anchor says how far the estimates can be trusted.
        neighbors = self.bank.nearest(encoded.vector, max(top_k, 1))
        similarity = self.bank.similarity(encoded.vector, neighbors)
        timer.stop("index")

        slices = self.estimator.slices(encoded) if preference.policy == "paper" else ()
        refined = Refinement(*self.estimator.estimate(encoded, similarity))
        timer.stop("estimate")

        if self.refiner is not None:
            could_win = self.policy.contest(query, preference, slices)
            refined = self.refiner.refine(encoded, refined.estimates, could_win)
            timer.stop("refine")

        chosen = self.policy.decide(query, refined.estimates, preference, slices)
        timer.stop("policy")

        return Decision(
            choice=chosen.choice,
            where=chosen.where,
            alpha=preference.alpha,
            policy=preference.policy,
            feasible=chosen.feasible,
            bound=chosen.bound,
            over_budget=chosen.over_budget,
            estimator=refined.report,
            candidates=chosen.candidates,
            neighbors=neighbors[: max(top_k, 0)],
            flip_below=chosen.flip_below,
            flip_above=chosen.flip_above,
            truncated=encoded.truncated,
            degraded=(*filter(None, [self.bank.note]), *refined.degraded),
            warnings=(*cautions, *refined.warnings, *chosen.warnings),
            timings_ms=timer.milliseconds,
            query_id=query.id,
            task=refined.estimates.task,
            unknowable=round(refined.estimates.unknowable, 4),
        )


class _Timer:
    """Measures one step after the other."""

    def __init__(self, milliseconds: dict[str, float]) -> None:
        self.milliseconds, self._start = milliseconds, perf_counter()

    def stop(self, step: str) -> None:
        now = perf_counter()
        self.milliseconds[step] = round((now - self._start) * 1e3, 3)
        self._start = now


def check_query(query: Query) -> None:
    """Raise UsageError for a blank text and for a query over `MAX_QUERY_CHARACTERS`."""
    size = len(query.text) + len(query.system or "") + sum(len(text) for _, text in query.history)
    if size > MAX_QUERY_CHARACTERS:
        raise UsageError(
            f"the query is {size:,} characters, more than the {MAX_QUERY_CHARACTERS:,} that are read; shorten it"
        )
    if _VISIBLE.search(query.text) is None:
        raise UsageError("the query is blank; give the text to route")
