"""The project's words as frozen dataclasses: what flows, one way, from a query to a decision.

    Query -> EncodedQuery -> Neighbors, Slices -> Estimates -> Decision

Numbers that are not known are `None` (or NaN inside arrays), never 0. Probabilities are in [0, 1], similarities are
cosines in [-1, 1], money is US dollars, time is seconds, prices are US dollars per million tokens. Completion tokens are
in the *model's own* tokens from `Estimates` on (see `ModelCard.token_factor`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Vector = NDArray[np.float32]

Where = Literal["device", "cloud"]
Evidence = Literal["strong", "weak", "none"]
PolicyName = Literal["scope-edge", "paper"]
Fallback = Literal["none", "cheapest"]
Counted = Literal["server", "tokenizer", "estimate"]
Ending = Literal["complete", "cut", "broken", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Query:
    """The text to route. `system` and `history` ((role, text) said before) are sent along: they cost tokens but are not encoded."""

    text: str
    system: str | None = None
    id: str | None = None
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A query as the encoder has it.

    Attributes:
        vector: shape (d,), float32, L2 norm 1: what it is about.
        state: shape (d,), float32: the mean of its tokens' states half way up the encoder, where more is left of what is to be done.
        windows: how many encoder windows were averaged into it.
        truncated: whether text beyond the last window was left unread.
    """

    query: Query
    vector: Vector
    state: Vector
    windows: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Neighbor:
    """An anchor and its cosine similarity to the query. source: "bank", or the name of the user's anchor set."""

    anchor: str
    similarity: float
    category: str
    source: str = "bank"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a model did on one anchor: `correct` in [0, 1]; `completion_tokens` as counted (cl100k for routing data)."""

    correct: float | None
    completion_tokens: float | None


@dataclass(frozen=True, slots=True)
class Slice:
    """One model's outcomes on the anchors nearest to the query among those it was measured on, nearest first."""

    model: str
    neighbors: tuple[Neighbor, ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known about one model: identity, where it runs, what it costs, how much it holds.

    Attributes:
        usd_in, usd_out: US dollars per million prompt / completion tokens; None = unknown (never taken as free).
        price_as_of, price_source: ISO date and where the price was read.
        token_factor: the model's own tokens per cl100k token of the same text.
        context_tokens: prompt + completion limit in own tokens; None = unknown.
        parameters_b: in billions. size_gb: file size when quantized (device models).
        tokens_per_second, prompt_tokens_per_second, load_seconds: decoding, prefill, until a cold model answers; None = unmeasured.
        status: "available", "retired" or "unknown". retires: ISO date of (announced) retirement.
        licence: of the weights, for open ones. note: anything a user should know, one line.
        endpoint: base address of an OpenAI-compatible server that answers for it. served_as: its name there; None = id.
        key_env: the environment variable with the endpoint's key; None = it wants none. gguf: the file to run it from, here.
        supports: beside text ("tools", "json", "images", "audio", "files"); what is not named is taken not to be.
    """

    id: str
    where: Where
    name: str = ""
    usd_in: float | None = None
    usd_out: float | None = None
    price_as_of: str | None = None
    price_source: str | None = None
    token_factor: float = 1.0
    context_tokens: int | None = None
    parameters_b: float | None = None
    size_gb: float | None = None
    tokens_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    load_seconds: float | None = None
    status: Literal["available", "retired", "unknown"] = "unknown"
    retires: str | None = None
    licence: str | None = None
    note: str = ""
    endpoint: str | None = None
    served_as: str | None = None
    key_env: str | None = None
    gguf: str | None = None
    supports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """Hard limits for one query, checked on upper bounds. None = no limit; 0 is a valid limit.

    tokens: prompt + completion, in the model's own tokens. usd: US dollars. seconds: wall time, loading included.
    """

    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Preference:
    """What the user wants of one decision. alpha: 0 = cheapest, 1 = most accurate."""

    alpha: float = 0.5
    budget: Budget = field(default_factory=Budget)
    local_only: bool = False
    exclude: tuple[str, ...] = ()
    fallback: Fallback = "none"
    policy: PolicyName = "scope-edge"


@dataclass(frozen=True, slots=True)
class Estimates:
    """What every model of the pool is expected to do on one query; one row a model, in pool order.

    Columns rather than a record a model, so that a pool of a thousand costs what a pool of ten does.

    Attributes:
        models: model ids, length n.
        p_correct, p_low, p_high: shape (n,), calibrated probability and its 90 % band; NaN = not known.
        tokens, tokens_hi: shape (n,), median and upper bound of completion tokens, own tokens; NaN = not known.
        evidence: how far the numbers can be trusted, per model. "none" = no fingerprint, nothing guessed.
        source: "prior", "scope" (the GGUF estimator) or "none", per model.
        rationales: model id -> why, for the models an estimator wrote one for.
    """

    models: tuple[str, ...]
    p_correct: Floats
    p_low: Floats
    p_high: Floats
    tokens: Floats
    tokens_hi: Floats
    evidence: tuple[Evidence, ...]
    source: tuple[str, ...]
    rationales: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EstimatorReport:
    """What estimating cost.

    Attributes:
        name: "prior", or the installed estimator that refined at least one estimate.
        prompts_run: models a prompt was run for. prompts_saved: models that could have had one and did not need or get it.
        tokens: read and written by the language model. seconds: in all, loading it aside.
    """

    name: str
    prompts_run: int = 0
    prompts_saved: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Refinement:
    """What became of the prior's estimates when a language model looked at those who could still be chosen.

    Attributes:
        estimates: refined where that was done, the prior's elsewhere.
        degraded, warnings: sentences for the decision.
    """

    estimates: Estimates
    report: EstimatorReport
    degraded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model of the pool in a decision, with every number the choice was made on.

    Attributes:
        prompt_tokens: expected prompt tokens, own tokens. usd, usd_hi: expected cost and its upper bound.
        seconds: expected time to the full answer. utility: what the policy ranked by.
        excluded_by: the limit or rule that ruled the model out, None if it could be chosen.
    """

    model: str
    where: Where
    p_correct: float | None
    p_low: float | None
    p_high: float | None
    tokens: float | None
    tokens_hi: float | None
    prompt_tokens: float | None
    usd: float | None
    usd_hi: float | None
    seconds: float | None
    utility: float | None
    evidence: Evidence
    excluded_by: str | None
    rationale: str | None


@dataclass(frozen=True, slots=True)
class BindingConstraint:
    """The limit that left nothing to choose: its name, its value, and the smallest value that would do."""

    limit: str
    value: float | None
    needed: float | None


@dataclass(frozen=True, slots=True)
class AlphaSwitch:
    """The nearest alpha at which the choice becomes `model`."""

    alpha: float
    model: str


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """The policy's part of a `Decision`, field for field."""

    choice: str | None
    where: Where | None
    feasible: bool
    bound: BindingConstraint | None
    over_budget: bool
    candidates: tuple[Candidate, ...]
    flip_below: AlphaSwitch | None
    flip_above: AlphaSwitch | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """The choice, every candidate with its numbers, the constraint that bound, and why.

    `candidates` are best first: those that could be chosen by the policy's order, then the excluded ones.
    """

    choice: str | None
    where: Where | None
    alpha: float
    policy: PolicyName
    feasible: bool
    bound: BindingConstraint | None
    over_budget: bool
    estimator: EstimatorReport
    candidates: tuple[Candidate, ...] = field(repr=False)
    neighbors: tuple[Neighbor, ...] = field(repr=False)
    flip_below: AlphaSwitch | None
    flip_above: AlphaSwitch | None
    truncated: bool
    degraded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    query_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The documented JSON object of a decision (docs/json.md): plain types only, unknown numbers None."""
        body: dict[str, Any] = {} if self.query_id is None else {"id": self.query_id}
        body |= {
            "choice": self.choice,
            "where": self.where,
            "alpha": to_json(self.alpha),
            "policy": self.policy,
            "feasible": self.feasible,
            "bound": row(self.bound),
            "over_budget": self.over_budget,
            "estimator": row(self.estimator),
            "candidates": [row(candidate) for candidate in self.candidates],
            "neighbors": [row(neighbor) for neighbor in self.neighbors],
            "flip_alpha": {"below": row(self.flip_below), "above": row(self.flip_above)},
            "truncated": self.truncated,
            "degraded": list(self.degraded),
            "warnings": list(self.warnings),
            "timings_ms": {step: to_json(value) for step, value in self.timings_ms.items()},
        }
        return body


@dataclass(frozen=True, slots=True)
class Attempt:
    """A model that was asked and did not answer, and why, in one line."""

    model: str
    where: Where
    error: str


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a decision: who answered, after whom, for how much.

    Attributes:
        model, where: of the answer; None = nobody answered. attempts: those asked before, in order.
        prompt_tokens, completion_tokens: own tokens; counted: by whom. usd: what it cost in all.
        first_token_seconds, seconds: from the call to the first token and to the last.
        ending: complete, cut (by a limit on tokens), broken (midway), cancelled (by the caller), failed (no answer).
    """

    model: str | None
    where: Where | None
    attempts: tuple[Attempt, ...]
    prompt_tokens: float | None
    completion_tokens: float | None
    counted: Counted | None
    usd: float | None
    first_token_seconds: float | None
    seconds: float | None
    ending: Ending


# What a query got in the end: the answer, and how it goes out as JSON.


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query got: the text, who wrote it and what it cost (`run`), and why that one was asked (`decision`).

    Attributes:
        id: of the journal's entry, for `scope-edge feedback`; None where nothing is written down.
        warnings: sentences on this answer: it was cut, it cost more than it should have.
    """

    text: str
    decision: Decision
    run: Run
    id: str | None = None
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The documented JSON object of an answer (docs/json.md)."""
        return {
            "answer": self.text,
            "id": self.id,
            "run": run_body(self.run),
            "warnings": list(self.warnings),
            "decision": self.decision.as_dict(),
        }


# Records as JSON knows them: plain types by field name, and None for what is no number.


def row(record: Any) -> dict[str, Any] | None:
    """A flat record's fields by name, in order; None stays None."""
    return None if record is None else {name: to_json(getattr(record, name)) for name in record.__slots__}


def run_body(run: Run) -> dict[str, Any]:
    """Give the documented JSON object of a run (docs/json.md)."""
    body = {name: to_json(getattr(run, name)) for name in run.__slots__ if name != "attempts"}
    return body | {"attempts": [row(one) for one in run.attempts]}


def to_json(value: Any) -> Any:
    """The value as JSON knows it: numpy's numbers as Python's, and None for what is no number."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
