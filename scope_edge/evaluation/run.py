"""`scope-edge eval`: read, split, learn anew, predict, replay, score. One report a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from scope_edge.catalog.cards import Catalog
from scope_edge.encoding.encoder import Encoder
from scope_edge.errors import MissingExtraError, UsageError
from scope_edge.evaluation import bootstrap, curves, prediction_scores, replay, scaling
from scope_edge.evaluation.baselines import check_learned
from scope_edge.evaluation.live import Live, live_flow, look
from scope_edge.evaluation.predict import SplitPredictions, predict
from scope_edge.evaluation.report import Curve, EvaluationReport, PairedDifference, PoolSize, RoutingPoint, Tuned
from scope_edge.evaluation.splits import MODEL_SHARE, QUERY_SHARE, Split, sources_of, split, split_by_folder
from scope_edge.factory import open_catalog
from scope_edge.settings.config import read_file
from scope_edge.storage import assets
from scope_edge.types import ModelCard

# Prices and places of models from a file, laid over the cards for one evaluation.


def with_prices(own: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, dict[str, Any]]:
    """Lay the cards of a TOML file over the user's own: `[models."id"]` with `usd_in` and `usd_out`, as in the settings.

    A model without a card runs in the cloud unless `where` says otherwise. Raises UsageError, ConfigError.
    """
    from scope_edge.catalog.cards import load_catalog

    if not path.is_file():
        raise UsageError(f"{path}: no such file of prices")
    table = read_file(path).get("models", {})
    if not isinstance(table, dict) or not table or not all(isinstance(card, dict) for card in table.values()):
        raise UsageError(
            f'{path}: no prices there; write [models."the-id"] with usd_in and usd_out, per million tokens'
        )
    known = load_catalog(own, file=assets.user_config_file()).by_id
    cards: dict[str, dict[str, Any]] = {id: dict(card) for id, card in own.items()}
    for id, card in table.items():
        cards[id] = {**({} if id in known else {"where": "cloud"}), **cards.get(id, {}), **card}
    return cards


if TYPE_CHECKING:
    from collections.abc import Callable

    from scope_edge.settings.config import Settings
    from scope_edge.training.dataset import Pooled, PooledReading

    Progress = Callable[[str, int, int], None]

CHEAP = ("knn5", "knn", "logreg")
STEP = 0.05


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What is to be evaluated.

    Attributes:
        data: folders of labelled queries; test: folders whose further queries are scored, and nothing else of them.
        unseen: models (ids, spellings or pools) that teach the bank nothing; None = a third by hash.
        pool: whose choices are replayed; None = the active pool, as far as it was measured.
        policy: "scope-edge", "paper" or "all". baselines: names in LEARNED_NAMES.
        anchors: a candidate is known by so many at most. seeds: of the splits.
        bank: "refit" learns it from the data's training part; "bundled" is the one that comes along, as `route` uses it.
        estimator: "gguf" scores the installed estimator's word in the prior's place. limit: queries scored of a split.
        prices: a file of prices. cache: whether vectors are kept.
    """

    data: tuple[Path, ...]
    test: tuple[Path, ...] = ()
    unseen: tuple[str, ...] | None = None
    pool: str | None = None
    anchors: int = 250
    alphas: tuple[float, ...] = tuple(round(STEP * i, 10) for i in range(21))
    policy: str = "all"
    baselines: tuple[str, ...] = CHEAP
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    bank: Literal["refit", "bundled"] = "refit"
    estimator: Literal["prior", "gguf"] = "prior"
    limit: int | None = None
    prices: Path | None = None
    cache: bool = True


@dataclass(frozen=True, slots=True)
class _Setting:
    """What holds for all sets."""

    request: EvaluationRequest
    settings: Settings
    catalog: Catalog
    reading: PooledReading
    encoder: Encoder
    progress: Progress
    warnings: list[str] = field(default_factory=list)


def evaluate(
    request: EvaluationRequest, settings: Settings, progress: Progress = lambda *_: None
) -> Mapping[str, EvaluationReport]:
    """Evaluate; set name -> report, in the order of the folders.

    Raises UsageError (folders without data, too little of it, unknown names), AssetError (files that cannot be read),
    MissingExtraError (scipy, or scikit-learn for a baseline, is not installed).
    """
    _check_extra(request)
    sources = sources_of(request.data, request.test)
    if request.prices is not None:
        settings = replace(settings, models=with_prices(settings.models, request.prices), file=request.prices)
    catalog = open_catalog(settings)
    encoder = Encoder.load(provider=settings.provider, threads=settings.threads)
    from scope_edge.training.dataset import read_pooled

    cache = assets.user_cache_dir() if request.cache else None
    reading = read_pooled(sources, catalog, encoder, cache=cache, progress=progress)
    setting = _Setting(request, settings, catalog, reading, encoder, progress)
    _wanted_pool(setting)  # what cannot be is said before the work begins
    start = perf_counter()
    found: dict[str, list[SplitPredictions]] = {}
    for one in _splits(setting):
        for name, predicted in _predicted(setting, one):
            found.setdefault(name, []).append(predicted)
    if not found:
        raise UsageError("no model has enough outcomes both to be known by and to be scored on; give more data")
    seconds = perf_counter() - start
    return {name: _report(setting, name, parts, seconds) for name, parts in found.items()}


def _check_extra(request: EvaluationRequest) -> None:
    from importlib.util import find_spec

    if find_spec("scipy") is None:
        raise MissingExtraError("eval needs scipy, which is not installed; pip install 'scope-edge[eval]'")
    check_learned(request.baselines)


def _splits(setting: _Setting) -> list[Split]:
    request, reading = setting.request, setting.reading
    unseen = None if request.unseen is None else _models(setting.catalog, reading.data, request.unseen)
    splits = [split(reading.data, seed, unseen) for seed in request.seeds]
    if request.test:
        splits = [split_by_folder(reading, unseen or ())]
    return splits if request.limit is None else [one.limited(request.limit) for one in splits]


def _models(catalog: Catalog, data: Pooled, names: Sequence[str]) -> set[str]:
    """The models that names, spellings or pools stand for. Raises UsageError for one without an outcome."""
    from scope_edge.fingerprinting.importing.naming import Cards
    from scope_edge.training.dataset import naming

    here, cards = set(data.models.tolist()), Cards(catalog)
    found: set[str] = set()
    for name in names:
        if name in catalog.pools:
            found |= set(catalog.pools[name]) & here
            continue
        known = {naming(one, catalog)(name, name) for one in data.set_names} | {name, cards.known_as(name)}
        if not known & here:
            raise UsageError(
                f"{name} is no pool, and a model without an outcome in the data; its models are {', '.join(sorted(here))}"
            )
        found |= known & here
    return found


def _predicted(setting: _Setting, one: Split) -> list[tuple[str, SplitPredictions]]:
    """Every set's predictions by one split."""
    from scope_edge.evaluation.fit import bundled, refitted

    request, settings = setting.request, setting.settings
    setting.progress(f"seed {one.seed}: learning", 0, 1)
    found = []
    for part in (bundled if request.bank == "bundled" else refitted)(setting.reading.data, one):
        cards = cards_of(setting.catalog, part.names)
        predicted = predict(part, cards, request.anchors, settings.coverage, request.baselines, setting.progress)
        if request.estimator == "gguf":
            from scope_edge.evaluation.predict import refined

            predicted = refined(
                predicted,
                cards,
                setting.progress,
                name=settings.estimator_name,
                threads=settings.threads,
                coverage=settings.coverage,
            )
        found.append((part.name, predicted))
    return found


def cards_of(catalog: Catalog, names: Sequence[str]) -> tuple[ModelCard, ...]:
    """Each model's card; for one that has none, a card that knows nothing but its name."""
    return tuple(catalog.by_id.get(name) or ModelCard(id=name, where="cloud") for name in names)


def _report(setting: _Setting, name: str, found: Sequence[SplitPredictions], seconds: float) -> EvaluationReport:
    request, data = setting.request, setting.reading.data
    start = perf_counter()
    cards, left_out = replay.pool_of(_pool(setting, found), found)
    routed = _Routed() if len(cards) < 2 else _routed(setting, cards, found)
    live = Live({}, ())
    timed = perf_counter() - start
    if len(cards) >= 2:
        router = live_flow(cards, found[0], setting.encoder, setting.settings.coverage)
        live = look(router, data.texts[found[0].part.rows].tolist(), 0, setting.progress)
    start = perf_counter()
    joined = {model for one in found for model, new in zip(one.part.names, one.part.unseen, strict=True) if new}
    every = {model for one in found for model in one.part.names}
    report = EvaluationReport(
        data=name,
        test=", ".join(map(str, request.test)) or None,
        split=_words(setting),
        seeds=tuple(one.part.split.seed for one in found),
        queries=sum(len(one.part.rows) for one in found),
        models={model: "unseen" if model in joined else "seen" for model in sorted(every)},
        anchors=request.anchors,
        pool=tuple(card.id for card in cards),
        common=routed.common,
        left_out=left_out,
        prediction=prediction_scores.prediction_scores(found),
        routing=routed.points,
        singles=routed.singles,
        paired=(*bootstrap.paired(found), *routed.ahead),
        curve=routed.curve,
        reliability=prediction_scores.reliability(found),
        lengths=prediction_scores.lengths(found),
        fields=prediction_scores.field_scores(found),
        adaptation=prediction_scores.adaptation(found),
        evidence=prediction_scores.evidence_scores(found),
        tuned=routed.tuned,
        scaling=routed.scaling,
        joining=scaling.joining(cards_of(setting.catalog, sorted(every)), found),
        stability=live.stability,
        latency_ms=live.latency_ms,
        seconds=0.0,
        warnings=_warnings(setting, cards),
    )
    return replace(report, seconds=seconds + timed + perf_counter() - start)


@dataclass(frozen=True, slots=True)
class _Routed:
    """A report's part on choices; empty where no two models can be compared."""

    common: int = 0
    points: tuple[RoutingPoint, ...] = ()
    singles: tuple[RoutingPoint, ...] = ()
    ahead: tuple[PairedDifference, ...] = ()
    curve: Mapping[str, Curve] = field(default_factory=dict)
    tuned: tuple[Tuned, ...] = ()
    scaling: tuple[PoolSize, ...] = ()


def _routed(setting: _Setting, cards: Sequence[ModelCard], found: Sequence[SplitPredictions]) -> _Routed:
    request = setting.request
    # A split may have drawn no query that all of them ran.
    found = [one for one in found if len(replay.common(cards, one)[0])]
    one = replay.replay(cards, found, request.alphas, request.policy)
    points, singles = replay.points(one), replay.singles(one)
    return _Routed(
        common=len(one.query),
        points=points,
        singles=singles,
        ahead=curves.ahead(one, singles),
        curve=curves.curves(points, singles),
        tuned=replay.tuned(one),
        scaling=scaling.pool_sizes(cards, found, one),
    )


def _wanted_pool(setting: _Setting) -> tuple[ModelCard, ...]:
    """The pool that was asked for, or the active one, in its order. Raises UsageError: a model neither known nor measured."""
    catalog, wanted = setting.catalog, setting.request.pool
    if wanted is None or wanted in catalog.pools or wanted in catalog.by_id:
        return catalog.pool(wanted if wanted is not None else setting.settings.pool)
    names = [one.strip() for one in wanted.split(",") if one.strip()]
    ids = [id for name in names for id in sorted(_models(catalog, setting.reading.data, (name,)))]
    return cards_of(catalog, tuple(dict.fromkeys(ids)))


def _pool(setting: _Setting, found: Sequence[SplitPredictions]) -> tuple[ModelCard, ...]:
    """The pool asked for; by default the active one, or everything measured where that holds fewer than two of it."""
    wanted, names = _wanted_pool(setting), {name for one in found for name in one.part.names}
    if setting.request.pool is not None or sum(card.id in names for card in wanted) > 1:
        return wanted
    return cards_of(setting.catalog, sorted(names))


def _words(setting: _Setting) -> str:
    if setting.request.test:
        named = ", but for the models named unseen" if setting.request.unseen is not None else ""
        taught = "nothing is learned" if setting.request.bank == "bundled" else f"all else teaches{named}"
        return f"scored are queries that stand in the test folders only; {taught}"
    if setting.request.bank == "bundled":
        return f"the bundled bank on {QUERY_SHARE:.0%} of the query families, by sha256; the rest teaches other routers"
    models = "the named models" if setting.request.unseen is not None else f"{MODEL_SHARE:.0%} of the models"
    return f"{QUERY_SHARE:.0%} of the query families and {models} held out, by sha256, for each seed"


def _warnings(setting: _Setting, cards: Sequence[ModelCard]) -> tuple[str, ...]:
    told = [f"left out: {n} {reason}" for reason, n in sorted(setting.reading.dropped.items()) if n]
    if len(cards) < 2:
        told.append("fewer than two models have prices and common queries: choices are not replayed; see left_out")
    base = int(setting.reading.data.base.sum())
    if base:
        told.append(f"{base} base models taught difficulty and are nobody's candidates")
    return tuple(told)
