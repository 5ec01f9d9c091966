"""The records that flow from a query to a decision, and its answer:

    Query -> EncodedQuery -> Neighbors, Slices -> Estimates -> Decision -> Answer

Unknown numbers are `None` (or NaN inside arrays), never 0. Probabilities are in [0, 1], similarities are cosines in
[-1, 1], money is US dollars, time is seconds, prices are US dollars per million tokens. Completion tokens are in the
*model's own* tokens from `Estimates` on (see `ModelCard.token_factor`).
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
LeftOut = Literal["reference", "needs", "model"]
Counted = Literal["server", "tokenizer", "estimate"]
Ending = Literal["complete", "cut", "loop", "broken", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Query:
    """The text to route.

    `system`, `history` (earlier (role, text) turns) and `attached` (further strings, such as tools and their calls) are sent
    along: they cost tokens and are checked for private parts, but are not encoded.
    """

    text: str
    system: str | None = None
    id: str | None = None
    history: tuple[tuple[str, str], ...] = ()
    attached: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """An encoded query.

    Attributes:
        vector: shape (d,), float32, L2 norm 1: the subject of the text.
        state: shape (d,), float32: the mean of its tokens' states half way up the encoder, which say more about the task.
        multilingual: shape (512,), float32, L2 norm 1: the subject again, by an encoder that reads 16 languages.
        windows: how many encoder windows were averaged. truncated: whether text beyond the last window was left unread.
    """

    query: Query
    vector: Vector
    state: Vector
    multilingual: Vector
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
    """A model's result on one anchor: `correct` in [0, 1]; `completion_tokens` as counted (cl100k for routing data)."""

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
    """The facts about one model: identity, place, price, size, speed.

    Attributes:
        usd_in, usd_out: US dollars per million prompt / completion tokens; None = unknown (never taken as free).
        price_as_of, price_source: ISO date and source of the price.
        token_factor: the model's own tokens per cl100k token of the same text.
        context_tokens: prompt + completion limit in own tokens; None = unknown.
        parameters_b: in billions. size_gb: file size when quantized (device models).
        tokens_per_second, prompt_tokens_per_second, load_seconds: decoding, prefill, loading; None = unmeasured.
        status: "available", "retired" or "unknown". retires: ISO date of (announced) retirement.
        licence: of open weights. note: one line for the user.
        endpoint: base address of the OpenAI-compatible server that runs it. served_as: its name there; None = id.
        key_env: the environment variable with the endpoint's key; None = no key needed. gguf: the local file to run it from.
        supports: beside text ("tools", "json", "images", "audio", "files"); anything not named is taken as unsupported.
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
    """The user's wishes for one decision.

    Attributes:
        alpha: 0 = cheapest, 1 = most accurate. ceiling: limits that no fallback lifts.
        exclude: models that the user named. left_out: model id -> why else it is not a choice, as pairs: "reference" (its card
            does not say how it is called), "needs" (it does not support what the request needs), "model" (another was asked for).
    """

    alpha: float = 0.5
    budget: Budget = field(default_factory=Budget)
    local_only: bool = False
    exclude: tuple[str, ...] = ()
    fallback: Fallback = "none"
    policy: PolicyName = "scope-edge"
    ceiling: Budget = field(default_factory=Budget)
    left_out: tuple[tuple[str, LeftOut], ...] = ()


@dataclass(frozen=True, slots=True)
class Estimates:
    """Estimates of one query on every model, in pool order, in columns: a pool of a thousand costs what a pool of ten does.

    Attributes:
        models: model ids, length n.
        p_correct, p_low, p_high: shape (n,), calibrated probability and its 90 % band; NaN = unknown.
        tokens, tokens_hi: shape (n,), median and upper bound of completion tokens, own tokens; NaN = unknown.
        evidence: how far the numbers can be trusted, per model. "none" = no fingerprint, nothing guessed.
        source: "prior", "scope" (the GGUF estimator) or "none", per model.
        rationales: model id -> the estimator's reason, if it wrote one.
        task: what the query asks for, one of `estimation.tasks.TASKS`; None = unknown. unknowable: the probability that no
            model can know the answer; p_correct has been lowered by it.
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
    task: str | None = None
    unknowable: float = 0.0


@dataclass(frozen=True, slots=True)
class EstimatorReport:
    """The cost of estimating.

    Attributes:
        name: "prior", or the installed estimator that refined at least one estimate.
        prompts_run: models with a prompt run. prompts_saved: models whose prompt was unnecessary or came too late.
        tokens: read and written by the language model. seconds: in all, without loading.
    """

    name: str
    prompts_run: int = 0
    prompts_saved: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Refinement:
    """Estimates after the refiner looked at the models that could still be chosen. degraded, warnings: for the decision."""

    estimates: Estimates
    report: EstimatorReport
    degraded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model of the pool in a decision, with every number the choice was made on.

    Attributes:
        prompt_tokens: expected, own tokens. usd, usd_hi: expected cost and its upper bound.
        seconds: expected time to the full answer. utility: the policy's score.
        excluded_by: the limit that ruled the model out, None if it could be chosen.
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
    """The limit that left no model to choose: its name, its value, and the smallest value that is enough."""

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
    """The choice, every candidate with its numbers, and the constraint that bound.

    candidates: best first, those that could be chosen in the policy's order, then the excluded ones. task: what the query
    asks for, None = unknown. unknowable: the probability that no model can know the answer, None = not estimated.
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
    task: str | None = None
    unknowable: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the documented JSON object of a decision (docs/json.md): plain types only, unknown numbers None."""
        body: dict[str, Any] = {} if self.query_id is None else {"id": self.query_id}
        body |= {
            "choice": self.choice,
            "where": self.where,
            "alpha": to_json(self.alpha),
            "policy": self.policy,
            "feasible": self.feasible,
            "bound": row(self.bound),
            "over_budget": self.over_budget,
            "task": self.task,
            "unknowable": to_json(self.unknowable),
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
    """A model that was called and did not answer, and the reason in one line."""

    model: str
    where: Where
    error: str


@dataclass(frozen=True, slots=True)
class Run:
    """The execution of a decision: the model that answered, failed attempts, tokens, cost and time.

    Attributes:
        model, where: of the answer; None = no model answered. attempts: the models called before, in order.
        prompt_tokens, completion_tokens: own tokens; counted: the source of the count. usd: total cost.
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


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a query: its text, the model and cost (`run`), and the reason for that model (`decision`).

    Attributes:
        id: of the journal's entry, for `scope-edge feedback`; None without an entry.
        warnings: sentences on this answer: it was cut, it cost more than it should have.
    """

    text: str
    decision: Decision
    run: Run
    id: str | None = None
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the documented JSON object of an answer (docs/json.md)."""
        return {
            "answer": self.text,
            "id": self.id,
            "run": run_body(self.run),
            "warnings": list(self.warnings),
            "decision": self.decision.as_dict(),
        }


def row(record: Any) -> dict[str, Any] | None:
    """Return a flat record's fields by name, in order; None stays None."""
    return None if record is None else {name: to_json(getattr(record, name)) for name in record.__slots__}


def run_body(run: Run) -> dict[str, Any]:
    """Return the documented JSON object of a run (docs/json.md)."""
    body = {name: to_json(getattr(run, name)) for name in run.__slots__ if name != "attempts"}
    return body | {"attempts": [row(one) for one in run.attempts]}


def to_json(value: Any) -> Any:
    """Return the value as JSON has it: numpy's numbers as Python's, and None for NaN and infinity."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
