"""`scope-edge eval`: read, split, learn, predict, replay, score. Each set of labelled queries gets one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from scope_edge.catalog.cards import Catalog, load_catalog
from scope_edge.encoding.encoder import Encoder
from scope_edge.errors import UsageError
from scope_edge.estimation.blas import one_thread
from scope_edge.evaluation import bootstrap, curves, prediction_scores, replay
from scope_edge.evaluation.baselines import check_installed
from scope_edge.evaluation.fit import bundled, in_bundled_bank, refitted
from scope_edge.evaluation.live import measure_live
from scope_edge.evaluation.predict import SplitPredictions, predict, refined
from scope_edge.evaluation.report import EvaluationReport
from scope_edge.evaluation.splits import MODEL_SHARE, QUERY_SHARE, Split, sources_of, split, split_by_folder
from scope_edge.factory import open_catalog
from scope_edge.fingerprinting.importing.naming import Cards
from scope_edge.settings.config import read_file
from scope_edge.storage import assets
from scope_edge.training.dataset import PooledReading, naming, read_pooled
from scope_edge.types import ModelCard

if TYPE_CHECKING:
    from scope_edge.settings.config import Settings
    from scope_edge.training.dataset import Progress

CHEAP = ("knn5", "knn", "logreg")
STEP = 0.05


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """The options of one evaluation.

    Attributes:
        data: folders of labelled queries. test: folders of held-back queries; only those not in `data` are scored.
        unseen: models (ids, spellings or pools) that teach the bank nothing; None = a third by hash.
        pool: the pool to replay; None = the active pool, as far as it was measured.
        policy: "scope-edge", "paper" or "all". baselines: names in LEARNED_NAMES.
        anchors: the most anchors that a candidate is known by. seeds: of the splits.
        bank: "refit" learns a bank from the data's training part; "bundled" uses the bundled one, as `route` does.
        estimator: "gguf" scores the installed language model instead of the anchors' estimate.
        limit: the most queries scored in a split. prices: a file of prices. cache: whether vectors are kept.
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
class _Evaluation:
    """One evaluation with everything that was loaded for it."""

    request: EvaluationRequest
    settings: Settings
    catalog: Catalog
    reading: PooledReading
    encoder: Encoder
    progress: Progress


@one_thread("scipy.linalg")
def evaluate(
    request: EvaluationRequest, settings: Settings, progress: Progress = lambda *_: None
) -> Mapping[str, EvaluationReport]:
    """Return each set's report by its name, in the order of the folders.

    Raises UsageError (folders without data, too little data, unknown names), AssetError (unreadable files) and
    MissingExtraError (scipy, or scikit-learn for a baseline, is not installed).
    """
    check_installed(request.baselines)
    sources = sources_of(request.data, request.test)
    if request.prices is not None:
        settings = replace(settings, models=with_prices(settings.models, request.prices), file=request.prices)
    catalog = open_catalog(settings)
    encoder = Encoder.load(provider=settings.provider, threads=settings.threads)
    cache = assets.user_cache_dir() if request.cache else None
    reading = read_pooled(sources, catalog, encoder, cache=cache, progress=progress)
    run = _Evaluation(request, settings, catalog, reading, encoder, progress)
    _wanted_pool(run)  # An impossible pool is an error before the work begins.
    start = perf_counter()
    found: dict[str, list[SplitPredictions]] = {}
    for one in _splits(run):
        for predicted in _predicted(run, one):
            found.setdefault(predicted.part.name, []).append(predicted)
    if not found:
        raise UsageError("no model has enough outcomes both to be known by and to be scored on; give more data")
    seconds = perf_counter() - start
    return {name: _report(run, name, parts, seconds) for name, parts in found.items()}


def with_prices(own: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, dict[str, Any]]:
    """Lay the cards of a TOML file over the user's own: `[models."id"]` with `usd_in` and `usd_out`, as in the settings.

    A model without a card runs in the cloud unless `where` says otherwise. Raises UsageError, ConfigError.
    """
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


def _splits(run: _Evaluation) -> list[Split]:
    request, data = run.request, run.reading.data
    unseen = None if request.unseen is None else _models(run, request.unseen)
    splits = [split(data, seed, unseen) for seed in request.seeds]
    if request.test:
        splits = [split_by_folder(run.reading, unseen or ())]
    if request.bank == "bundled":
        splits = _outside_the_bank(run, splits)
    return splits if request.limit is None else [one.limited(request.limit) for one in splits]


def _outside_the_bank(run: _Evaluation, splits: Sequence[Split]) -> list[Split]:
    """Return the splits without queries that the bundled bank was fitted to, which are counted. Raises UsageError: none is left."""
    taught = in_bundled_bank(run.reading.data)
    left = [replace(one, scored=one.scored & ~taught) for one in splits]
    if not all(one.scored.any() for one in left):
        raise UsageError(
            "every scored query is in the bundled bank, which was fitted to it; leave --bank out, and a bank is learned without it"
        )
    if taught.any():
        run.reading.dropped["questions that are in the bundled bank"] += int(taught.sum())
    return left


def _models(run: _Evaluation, names: Sequence[str]) -> set[str]:
    """Return the models that ids, spellings or pools stand for. Raises UsageError for a name without an outcome."""
    catalog, data = run.catalog, run.reading.data
    measured, cards = set(data.models.tolist()), Cards(catalog)
    found: set[str] = set()
    for name in names:
        if name in catalog.pools:
            found |= set(catalog.pools[name]) & measured
            continue
        known = {naming(one, catalog)(name, name) for one in data.set_names} | {name, cards.known_as(name)}
        if not known & measured:
            raise UsageError(
                f"{name} is no pool, and a model without an outcome in the data;"
                f" its models are {', '.join(sorted(measured))}"
            )
        found |= known & measured
    return found


def _predicted(run: _Evaluation, one: Split) -> list[SplitPredictions]:
    """Return the predictions for every set by one split."""
    request, settings = run.request, run.settings
    run.progress(f"seed {one.seed}: learning", 0, 1)
    found = []
    for part in (bundled if request.bank == "bundled" else refitted)(run.reading.data, one):
        cards = cards_of(run.catalog, part.names)
        predicted = predict(part, cards, request.anchors, settings.coverage, request.baselines, run.progress)
        if request.estimator == "gguf":
            name, threads, coverage = settings.estimator_name, settings.threads, settings.coverage
            predicted = refined(predicted, cards, run.progress, name=name, threads=threads, coverage=coverage)
        found.append(predicted)
    return found


def cards_of(catalog: Catalog, names: Sequence[str]) -> tuple[ModelCard, ...]:
    """Return each model's card; a model without one gets a card with nothing but its name."""
    return tuple(catalog.by_id.get(name) or ModelCard(id=name, where="cloud") for name in names)


def _report(run: _Evaluation, name: str, found: Sequence[SplitPredictions], seconds: float) -> EvaluationReport:
    request, texts = run.request, run.reading.data.texts
    start = perf_counter()
    joined = {model for one in found for model, new in zip(one.part.names, one.part.unseen, strict=True) if new}
    every = sorted({model for one in found for model in one.part.names})
    cards, left_out = replay.pool_of(_pool(run, every), found)
    report = EvaluationReport(
        data=name,
        test=", ".join(map(str, request.test)) or None,
        split=_split_text(request),
        seeds=tuple(one.part.split.seed for one in found),
        queries=sum(len(one.part.rows) for one in found),
        models={model: "unseen" if model in joined else "seen" for model in every},
        anchors=request.anchors,
        pool=tuple(card.id for card in cards),
        left_out=left_out,
        prediction=prediction_scores.prediction_scores(found),
        paired=bootstrap.paired(found),
        reliability=prediction_scores.reliability(found),
        lengths=prediction_scores.lengths(found),
        fields=prediction_scores.field_scores(found),
        adaptation=prediction_scores.adaptation(found),
        evidence=prediction_scores.evidence_scores(found),
        joining=replay.joining(cards_of(run.catalog, every), found),
        warnings=_warnings(run, cards),
    )
    if len(cards) > 1:
        report = _with_choices(report, request, cards, found)
    seconds += perf_counter() - start
    if len(cards) > 1:
        one = found[0]
        sample = texts[one.part.rows].tolist()
        latency, stability = measure_live(cards, one, run.encoder, run.settings.coverage, sample, run.progress)
        report = replace(report, latency_ms=latency, stability=stability)
    return replace(report, seconds=seconds)


def _with_choices(
    report: EvaluationReport, request: EvaluationRequest, cards: Sequence[ModelCard], found: Sequence[SplitPredictions]
) -> EvaluationReport:
    """Add the scores of choices among at least two models."""
    # A split may have drawn no query that all of them ran.
    found = [one for one in found if len(replay.common(cards, one)[0])]
    one = replay.replay(cards, found, request.alphas, request.policy)
    points, singles = replay.points(one), replay.singles(one)
    return replace(
        report,
        common=len(one.query),
        routing=points,
        singles=singles,
        paired=(*report.paired, *curves.ahead(one, singles)),
        curve=curves.curves(points, singles),
        tuned=replay.tuned(one),
        scaling=replay.pool_sizes(cards, found, one),
    )


def _wanted_pool(run: _Evaluation) -> tuple[ModelCard, ...]:
    """Return the requested pool, or the active one. Raises UsageError for a model that is neither known nor measured."""
    catalog, wanted = run.catalog, run.request.pool
    if wanted is None or wanted in catalog.pools or wanted in catalog.by_id:
        return catalog.pool(wanted if wanted is not None else run.settings.pool)
    names = [one.strip() for one in wanted.split(",") if one.strip()]
    ids = [id for name in names for id in sorted(_models(run, (name,)))]
    return cards_of(catalog, tuple(dict.fromkeys(ids)))


def _pool(run: _Evaluation, measured: Sequence[str]) -> tuple[ModelCard, ...]:
    """Return the requested pool; by default the active one, or all measured models if it holds fewer than two of them."""
    wanted = _wanted_pool(run)
    if run.request.pool is not None or sum(card.id in measured for card in wanted) > 1:
        return wanted
    return cards_of(run.catalog, measured)


def _split_text(request: EvaluationRequest) -> str:
    """Return a sentence on what was held out."""
    if request.test:
        named = ", except by the models named unseen" if request.unseen is not None else ""
        learned = "nothing is learned" if request.bank == "bundled" else f"the bank is learned from the rest{named}"
        return f"only queries that are in the test folders alone are scored; {learned}"
    if request.bank == "bundled":
        return (
            f"the bundled bank on {QUERY_SHARE:.0%} of the query families, by sha256; other routers learn from the rest"
        )
    models = "the named models" if request.unseen is not None else f"{MODEL_SHARE:.0%} of the models"
    return f"{QUERY_SHARE:.0%} of the query families and {models} held out, by sha256, for each seed"


def _warnings(run: _Evaluation, cards: Sequence[ModelCard]) -> tuple[str, ...]:
    warnings = [f"left out: {n} {reason}" for reason, n in sorted(run.reading.dropped.items()) if n]
    if len(cards) < 2:
        warnings.append("fewer than two models have prices and common queries: choices are not replayed; see left_out")
    base = int(run.reading.data.base.sum())
    if base:
        warnings.append(f"{base} base models taught difficulty and are not candidates")
    return tuple(warnings)
