"""What an evaluation found, as records; `Report.as_dict` is the documented JSON (docs/evaluation.md). Unknown numbers are None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

# Rows of `Report.prediction` that pool models.
ALL, UNSEEN = "all", "unseen"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One router's predictions for one model, or pooled over several.

    Attributes:
        n: outcomes scored. accuracy: of p > 0.5 as a verdict. auc, brier, logloss: as usual; auc None with one class only.
        mean_auc: mean over models and seeds of their own, which what tells models apart does not raise.
        ece: expected calibration error over 10 bins of equal mass; ece_floor: what perfect calibration would show at this n.
        length_log_mae: median |log(true / predicted tokens)|. coverage: share of lengths not above tokens_hi.
        width: median tokens_hi / tokens. The last three are None for routers that predict no length.
    """

    n: int
    accuracy: float
    auc: float | None
    mean_auc: float | None
    brier: float
    logloss: float
    ece: float
    ece_floor: float
    length_log_mae: float | None
    coverage: float | None
    width: float | None


@dataclass(frozen=True, slots=True)
class RoutingPoint:
    """What one router's choices were worth at one alpha (None: the router has no such knob), on the pool's common queries.

    Attributes:
        accuracy: share right. usd_per_1k: US dollars for 1,000 queries; None when a chosen model has no price.
        tokens: completion tokens a query, the models' own. device_share: of queries that stay on the device.
        pgr: (accuracy - worst single) / (oracle - worst single).
        cheapest_correct: share of the queries some model gets right where the cheapest such model was chosen.
        portfolio: model -> share of queries.
    """

    router: str
    alpha: float | None
    accuracy: float
    usd_per_1k: float | None
    tokens: float | None
    device_share: float
    pgr: float | None
    cheapest_correct: float | None
    portfolio: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """`router` minus `against` in one metric, with its 95 % interval by bootstrap over models and queries."""

    router: str
    against: str
    metric: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    """One router's accuracy against cost as alpha moves.

    Attributes:
        usd_per_1k, accuracy: the points of its upper envelope, cheapest first.
        area: mean accuracy along it over spending from the cheapest model's to the best single one's; None without prices.
        usd_at_best_single: the least spending that reaches the accuracy of the best single model; None if it never does.
        usd_near_best_single: likewise to within half a point.
        arena: the best arena score of its points, (1 + b) A C / (b A + C), b = 0.1, C = log2-scaled cost between 0.0044 and
            200 US dollars per 1,000 queries (RouterArena, arXiv 2510.00202).
    """

    router: str
    usd_per_1k: tuple[float, ...]
    accuracy: tuple[float, ...]
    area: float | None
    usd_at_best_single: float | None
    usd_near_best_single: float | None
    arena: float | None


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """A tenth of one router's predictions, by size: how many, their mean p, and the share that was right."""

    router: str
    n: int
    predicted: float
    observed: float


@dataclass(frozen=True, slots=True)
class Length:
    """One of a sample of lengths: what was predicted, its upper bound and what came, in tokens."""

    model: str
    predicted: float
    high: float
    observed: float


@dataclass(frozen=True, slots=True)
class FieldScore:
    """One model in one field (category): scored outcomes, share right, mean p."""

    model: str
    category: str
    n: int
    observed: float
    predicted: float


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What so many anchors of a model not seen before are worth: means over those models."""

    anchors: int
    auc: float | None
    accuracy: float
    logloss: float


@dataclass(frozen=True, slots=True)
class EvidenceScore:
    """Predictions that carried one evidence word: are those that claim less worth less?

    Attributes:
        signed_error: mean p - share right. calibration_error: mean |mean p - share right| over fields, weighted by size.
        excess_logloss: log-loss beyond what these p would give if they were true.
        excess_brier: likewise mean (p - y)^2 beyond mean p (1 - p).
    """

    evidence: str
    n: int
    signed_error: float
    calibration_error: float
    excess_logloss: float
    excess_brier: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """What `tune` foresaw at an alpha, from fingerprints alone, and what came."""

    alpha: float
    expected_accuracy: float
    accuracy: float
    expected_usd_per_1k: float | None
    usd_per_1k: float | None


@dataclass(frozen=True, slots=True)
class PoolSize:
    """Tokens a query as the pool grows: of the model routed to at alpha 1, and of running every model, prompts included."""

    models: int
    routed: float
    every: float


@dataclass(frozen=True, slots=True)
class Joining:
    """FLOPs (2 x parameters x tokens) for a model to answer the anchors, and the whole training split."""

    model: str
    anchors: float
    everything: float


@dataclass(frozen=True, slots=True)
class Stability:
    """Share of decisions that stay, and mean |change of p|, when a query is misspelled or written in other case and spacing."""

    edit: str
    queries: int
    same_choice: float
    moved_p: float


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """All of it. Figures are means over seeds, unless said otherwise.

    Attributes:
        data: the set's name. test: the folders of what was held back. split: how it was parted, in words. seeds: which.
        queries: scored in all, over seeds. models: model -> "seen" (taught the bank) or "unseen" (known by its anchors only).
        anchors: how many a model was known by, at most. pool: whose choices were replayed. common: queries they all ran.
        left_out: model -> why it is not in the pool's figures.
        prediction: router -> model, "all" or "unseen" -> figures.
        singles: every model of the pool alone, as a router of that name.
        seconds: what the replay took, encoding aside.
    """

    data: str
    test: str | None
    split: str
    seeds: tuple[int, ...]
    queries: int
    models: Mapping[str, str]
    anchors: int
    pool: tuple[str, ...]
    common: int
    left_out: Mapping[str, str]
    prediction: Mapping[str, Mapping[str, Prediction]]
    routing: tuple[RoutingPoint, ...]
    singles: tuple[RoutingPoint, ...]
    paired: tuple[PairedDifference, ...]
    curve: Mapping[str, Curve]
    reliability: tuple[ReliabilityBin, ...]
    lengths: tuple[Length, ...]
    fields: tuple[FieldScore, ...]
    adaptation: tuple[Adaptation, ...]
    evidence: tuple[EvidenceScore, ...]
    tuned: tuple[Tuned, ...]
    scaling: tuple[PoolSize, ...]
    joining: tuple[Joining, ...]
    stability: tuple[Stability, ...]
    latency_ms: Mapping[str, float]
    seconds: float
    warnings: tuple[str, ...] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        """Plain types only."""
        body: dict[str, Any] = _plain(self)
        return body


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "__dataclass_fields__"):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    return value
