"""The results of an evaluation; `EvaluationReport.as_dict` is the documented JSON (docs/evaluation.md). Unknown numbers are None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# Rows of `EvaluationReport.prediction` that pool models.
ALL, UNSEEN = "all", "unseen"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One router's predictions for one model, or pooled over several.

    Attributes:
        n: outcomes scored. accuracy: of p > 0.5 as a verdict. auc: None with one class only.
        mean_auc: mean of each model's own AUC over models and seeds; differences between models do not raise it.
        ece: expected calibration error over 10 bins of equal mass. ece_floor: the ECE of perfect probabilities at this n.
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
    """The value of one router's choices at one alpha (None: the router has none), on the pool's common queries.

    Attributes:
        accuracy: share right. usd_per_1k: US dollars for 1,000 queries; None if a chosen model has no price.
        tokens: completion tokens per query, in the models' own. device_share: share of queries that stay on the device.
        pgr: (accuracy - worst single) / (oracle - worst single).
        cheapest_correct: of the queries that some model gets right, the share where the cheapest such model was chosen.
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
        usd_near_best_single: the same to within half a point.
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
    """One of a sample of lengths: the prediction, its upper bound and the true length, in tokens."""

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
    """Scores of unseen models that are known by this many anchors: means over those models."""

    anchors: int
    auc: float | None
    accuracy: float
    logloss: float


@dataclass(frozen=True, slots=True)
class EvidenceScore:
    """Predictions with one evidence word: are those that claim less worth less?

    Attributes:
        signed_error: mean p - share right. calibration_error: mean |mean p - share right| over fields, weighted by size.
        excess_logloss: log-loss beyond what these p would give if they were true.
        excess_brier: mean (p - y)^2 beyond mean p (1 - p).
    """

    evidence: str
    n: int
    signed_error: float
    calibration_error: float
    excess_logloss: float
    excess_brier: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """The forecast of `tune` at an alpha, from fingerprints alone, and the outcome."""

    alpha: float
    expected_accuracy: float
    accuracy: float
    expected_usd_per_1k: float | None
    usd_per_1k: float | None


@dataclass(frozen=True, slots=True)
class PoolSize:
    """Tokens per query as the pool grows, prompts included: of the model chosen at alpha 1, and of running every model."""

    models: int
    routed: float
    every: float


@dataclass(frozen=True, slots=True)
class Joining:
    """FLOPs (2 x parameters x tokens) for a model to answer the anchors, or the whole training split."""

    model: str
    anchors: float
    everything: float


@dataclass(frozen=True, slots=True)
class Stability:
    """The share of decisions that stay, and mean |change of p|, after an edit of case and spacing or misspellings."""

    edit: str
    queries: int
    same_choice: float
    moved_p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """One set's results, as docs/evaluation.md describes the fields. Figures are means over seeds, unless said otherwise.

    Defaults are for choices that are not replayed, of fewer than two comparable models.
    """

    data: str
    test: str | None
    split: str
    seeds: tuple[int, ...]
    queries: int
    models: Mapping[str, str]
    anchors: int
    pool: tuple[str, ...]
    common: int = 0
    left_out: Mapping[str, str]
    prediction: Mapping[str, Mapping[str, Prediction]]
    routing: tuple[RoutingPoint, ...] = ()
    singles: tuple[RoutingPoint, ...] = ()
    paired: tuple[PairedDifference, ...]
    curve: Mapping[str, Curve] = field(default_factory=dict)
    reliability: tuple[ReliabilityBin, ...]
    lengths: tuple[Length, ...]
    fields: tuple[FieldScore, ...]
    adaptation: tuple[Adaptation, ...]
    evidence: tuple[EvidenceScore, ...]
    tuned: tuple[Tuned, ...] = ()
    scaling: tuple[PoolSize, ...] = ()
    joining: tuple[Joining, ...]
    stability: tuple[Stability, ...] = ()
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain dicts and tuples."""
        return asdict(self)
