"""Reports as `scope-edge eval` makes them, of seeded made-up outcomes: for tests of what shows them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from scope_edge.evaluation.report import (
    Adaptation,
    Curve,
    EvaluationReport,
    EvidenceScore,
    FieldScore,
    Length,
    Prediction,
    ReliabilityBin,
    RoutingPoint,
    Tuned,
)

ALPHAS = tuple(round(0.05 * i, 2) for i in range(21))
# Model -> share right, US dollars per 1,000 queries.
POOL = {
    "gemma-2-2b-it": (0.186, 0.0),
    "qwen2.5-7b-instruct": (0.534, 0.0),
    "llama-3.1-8b-instruct": (0.432, 0.0),
    "mixtral-8x7b-instruct-v0.1": (0.31, 0.085),
    "llama-3.1-70b-instruct": (0.68, 0.045),
    "qwen2.5-72b-instruct": (0.741, 0.118),
    "llama-3.1-405b-instruct": (0.735, 0.22),
    "mistral-large-2407": (0.739, 1.52),
}
# As letters are given: free ones by name.
BY_COST = sorted(POOL, key=lambda model: (POOL[model][1], model))
ROUTERS = {"scope-edge": 0.0, "scope-paper": -0.05, "knn5": -0.06, "knn": -0.025, "logreg": -0.015, "svm": -0.03}
CATEGORIES = ("math-grade-school", "code-reasoning", "math-competition-l5", "number-sense", "logic", "law")


def report(**changes: Any) -> EvaluationReport:
    """A report of eight models and six routers; `changes` replace what it holds."""
    dice = random.Random(5)
    points = [*(point for router in ROUTERS for point in _sweep(router, dice)), *_fixed()]
    singles = [_single(model, model) for model in POOL]
    body: dict[str, Any] = {
        "data": "zeroeval",
        "test": None,
        "split": "50% of the query families and 33% of the models held out, by sha256, for each seed",
        "seeds": (0, 1, 2, 3, 4),
        "queries": 5870,
        "models": {model: "unseen" if i % 3 == 0 else "seen" for i, model in enumerate(POOL)},
        "anchors": 250,
        "pool": tuple(POOL),
        "common": 5102,
        "left_out": {"gpt-4o-2024-08-06": "ran few of the queries that the others ran"},
        "prediction": {
            router: {"all": prediction(0.8 + lead), "unseen": prediction(0.79 + lead)}
            for router, lead in ROUTERS.items()
        },
        "routing": tuple(points),
        "singles": tuple(singles),
        "paired": (),
        "curve": {
            router: curve(router, [p for p in points if p.router == router])
            for router in (*ROUTERS, "oracle", "random")
        },
        "reliability": tuple(_tenths(dice)),
        "lengths": tuple(_lengths(dice)),
        "fields": tuple(_field_scores(dice)),
        "adaptation": (
            Adaptation(10, 0.742, 0.701, 0.571),
            Adaptation(25, 0.789, 0.737, 0.532),
            Adaptation(50, 0.798, 0.744, 0.524),
            Adaptation(100, 0.803, 0.747, 0.519),
            Adaptation(250, 0.807, 0.75, 0.515),
        ),
        "evidence": (
            EvidenceScore("strong", 48120, 0.004, 0.021, 0.003, 0.001),
            EvidenceScore("weak", 7410, -0.031, 0.062, 0.019, 0.008),
        ),
        "tuned": tuple(Tuned(a, 0.54 + 0.19 * a, 0.53 + 0.2 * a**0.8, 1.5 * a * a, 1.46 * a**2.1) for a in ALPHAS[::2]),
        "scaling": (),
        "joining": (),
        "stability": (),
        "latency_ms": {"encode": 4.1},
        "seconds": 12.5,
        "warnings": (),
    }
    return EvaluationReport(**(body | changes))


def empty_report() -> EvaluationReport:
    """A report of which every part that may be empty is, and every number that may be unknown."""
    nothing: Any = dict.fromkeys(("pool", "routing", "singles", "reliability", "lengths", "fields", "adaptation"), ())
    return report(**nothing, evidence=(), tuned=(), left_out={}, prediction={}, curve={}, common=0, models={}, seeds=())


def unpriced_report() -> EvaluationReport:
    """A report whose routers and models have no known cost or length."""
    whole = report()
    unknown = {"usd_per_1k": None, "tokens": None, "pgr": None, "cheapest_correct": None}
    curves = {router: Curve(router, (), (), None, None, None, None) for router in whole.curve}
    return report(
        routing=tuple(_changed(one, **unknown) for one in whole.routing),
        singles=tuple(_changed(one, **unknown) for one in whole.singles),
        curve=curves,
        prediction={"scope-edge": {"all": prediction(None, length_log_mae=None, coverage=None, width=None)}},
        lengths=(),
        tuned=tuple(_changed(one, expected_usd_per_1k=None, usd_per_1k=None) for one in whole.tuned),
        adaptation=tuple(_changed(one, auc=None) for one in whole.adaptation),
    )


def one_model_report() -> EvaluationReport:
    """A pool of one: one point, one alpha, one tenth."""
    model = "qwen2.5-7b-instruct"
    point = RoutingPoint("scope-edge", 0.5, 0.534, 0.0, 140.0, 1.0, None, 1.0, {model: 1.0})
    return report(
        models={model: "seen"},
        pool=(model,),
        routing=(point, _single("oracle", model)),
        singles=(_single(model, model),),
        curve={"scope-edge": curve("scope-edge", [point])},
        reliability=(ReliabilityBin("scope-edge", 1, 0.5, 1.0),),
        lengths=(Length(model, 10.0, 30.0, 12.0),),
        fields=(FieldScore(model, "law", 1, 1.0, 0.5),),
        adaptation=(Adaptation(250, None, 0.75, 0.5),),
        evidence=(EvidenceScore("weak", 10, 0.0, 0.0, 0.0, 0.0),),
        tuned=(Tuned(0.5, 0.5, 0.5, 0.0, 0.0),),
    )


def many_models_report() -> EvaluationReport:
    """A pool of sixty models in thirty fields, with names that differ only in the middle."""
    dice = random.Random(7)
    names = [f"a-family-of-models-with-a-long-name-{i:02d}-instruct-and-its-version-2024-08-06" for i in range(60)]
    costs = {model: (0.0 if i < 10 else 0.01 * 1.15**i) for i, model in enumerate(names)}
    singles = tuple(
        RoutingPoint(m, None, dice.uniform(0.3, 0.9), costs[m], 100.0, 0.0, 0.5, 0.5, {m: 1.0}) for m in names
    )
    sweep = [
        RoutingPoint("scope-edge", a, 0.5 + 0.4 * a, 20 * a * a, 100.0, 0.1, 0.5, 0.5, dict.fromkeys(names, 1 / 60))
        for a in ALPHAS
    ]
    cells = tuple(
        FieldScore(m, f"field-{k}", 50, dice.random(), dice.random())
        for m in names
        for k in range(30)
        if dice.random() < 0.8
    )
    return report(
        models=dict.fromkeys(names, "seen"),
        pool=tuple(names),
        routing=tuple(sweep),
        singles=singles,
        curve={"scope-edge": curve("scope-edge", sweep)},
        fields=cells,
    )


def renamed(names: Sequence[str]) -> EvaluationReport:
    """The report with other names for the first of its models."""
    whole = report()
    new = dict(zip(POOL, names, strict=False))

    def name(model: str) -> str:
        return new.get(model, model)

    return report(
        models={name(model): kind for model, kind in whole.models.items()},
        pool=tuple(map(name, whole.pool)),
        routing=tuple(
            _changed(one, portfolio={name(model): share for model, share in one.portfolio.items()})
            for one in whole.routing
        ),
        singles=tuple(_changed(one, router=name(one.router)) for one in whole.singles),
        lengths=tuple(_changed(one, model=name(one.model)) for one in whole.lengths),
        fields=tuple(_changed(one, model=name(one.model)) for one in whole.fields),
    )


def prediction(auc: float | None, **changes: Any) -> Prediction:
    """Scores of one router; a field that is not named here is 0.5."""
    told = {"n": 57222, "accuracy": 0.75, "auc": auc, "brier": 0.17, "logloss": 0.51, "ece": 0.021, "ece_floor": 0.006}
    told |= {"length_log_mae": 0.31, "coverage": 0.893, "width": 2.9} | changes
    return Prediction(**{one.name: told.get(one.name, 0.5) for one in fields(Prediction)})  # type: ignore[arg-type]


def curve(router: str, points: Sequence[RoutingPoint]) -> Curve:
    """The envelope of these points."""
    kept: list[RoutingPoint] = []
    for point in sorted(points, key=lambda one: (one.usd_per_1k, -one.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    usd, accuracy = tuple(one.usd_per_1k for one in kept), tuple(one.accuracy for one in kept)
    area = sum(accuracy) / len(accuracy)
    near = next((cost for cost, right in zip(usd, accuracy, strict=True) if right >= 0.736), None)
    return Curve(router, usd, accuracy, area, None, near, 0.7)  # type: ignore[arg-type]


def _changed(one: Any, **changes: Any) -> Any:
    return type(one)(**{field.name: getattr(one, field.name) for field in fields(one)} | changes)


def _single(router: str, model: str) -> RoutingPoint:
    right, usd = POOL[model]
    return RoutingPoint(router, None, right, usd, 140.0, float(usd == 0), 0.5, 0.4, {model: 1.0})


def _fixed() -> list[RoutingPoint]:
    mean = [sum(column) / len(POOL) for column in zip(*POOL.values(), strict=True)]
    return [
        RoutingPoint("random", None, mean[0], mean[1], 120.0, 0.375, 0.5, 0.2, dict.fromkeys(POOL, 1 / len(POOL))),
        _single("cheapest", "qwen2.5-7b-instruct"),
        _single("dearest", "mistral-large-2407"),
        _single("best-single", "qwen2.5-72b-instruct"),
        _single("always-device", "qwen2.5-7b-instruct"),
        RoutingPoint("oracle", None, 0.871, 0.038, 90.0, 0.62, 1.0, 1.0, {"qwen2.5-7b-instruct": 1.0}),
    ]


def _sweep(router: str, dice: random.Random) -> list[RoutingPoint]:
    points = []
    for alpha in ALPHAS:
        portfolio = _portfolio(alpha)
        usd = sum(share * POOL[model][1] for model, share in portfolio.items())
        device = sum(share for model, share in portfolio.items() if POOL[model][1] == 0)
        lead = (0.75 * (1 - 2.718 ** (-30 * usd - 1.24)) + 0.01 * alpha) + ROUTERS[router] * (usd > 0)
        right = lead + dice.uniform(-0.004, 0.004)
        points.append(RoutingPoint(router, alpha, right, usd, 100 + 60 * alpha, device, right, 0.5, portfolio))
    return points


def _portfolio(alpha: float) -> dict[str, float]:
    """Weights that wander from the cheap to the dear."""
    order = [
        "qwen2.5-7b-instruct",
        "llama-3.1-70b-instruct",
        "qwen2.5-72b-instruct",
        "llama-3.1-405b-instruct",
        "mistral-large-2407",
    ]
    weights = {
        m: 2.718 ** (-(((alpha - centre) / 0.17) ** 2))
        for m, centre in zip(order, (0, 0.2, 0.5, 0.78, 1.05), strict=True)
    }
    weights["gemma-2-2b-it"] = 0.01 if alpha < 0.5 else 0.0
    weights["mixtral-8x7b-instruct-v0.1"] = 0.03 if 0.2 <= alpha <= 0.6 else 0.0
    if alpha == 0:
        weights = {"qwen2.5-7b-instruct": 1.0}
    return {model: weight / sum(weights.values()) for model, weight in weights.items() if weight}


def _tenths(dice: random.Random) -> list[ReliabilityBin]:
    bins = []
    for router, bend in (("scope-edge", 0.02), ("knn5", 0.5), ("knn", 0.15), ("logreg", -0.2)):
        for i in range(10):
            p = 0.06 + 0.093 * i + dice.uniform(-0.02, 0.02)
            bins.append(
                ReliabilityBin(router, 5722, p, min(max(p - bend * (p - 0.5) + dice.uniform(-0.01, 0.01), 0), 1))
            )
    return bins


def _lengths(dice: random.Random) -> list[Length]:
    found = []
    for _ in range(600):
        median = 2.718 ** dice.gauss(5.2, 0.9)
        high = median * dice.uniform(2.2, 4.0)
        found.append(
            Length(dice.choice(list(POOL)), median, high, max(1.0, round(median * 2.718 ** dice.gauss(0, 0.75))))
        )
    return sorted(found, key=lambda one: one.predicted)


def _field_scores(dice: random.Random) -> list[FieldScore]:
    found = []
    for i, (model, (right, _)) in enumerate(POOL.items()):
        for k, category in enumerate(CATEGORIES):
            if (i, k) in ((0, 5), (3, 2), (3, 5)):
                continue
            observed = min(max(right + 0.12 * (2 - k) / 2 + dice.uniform(-0.08, 0.08), 0.02), 0.98)
            n = 11 if (i, k) in ((1, 5), (6, 5)) else 900 - 130 * k
            found.append(FieldScore(model, category, n, observed, min(max(observed + dice.uniform(-0.05, 0.05), 0), 1)))
    return found
