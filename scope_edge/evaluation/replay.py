"""Replay the pool's common queries at every alpha, by every router; score the choices, growing pools and joining models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.estimation.irt import EstimateTable
from scope_edge.evaluation.predict import OURS, SplitPredictions
from scope_edge.evaluation.prediction_scores import number
from scope_edge.evaluation.report import Joining, PoolSize, RoutingPoint, Tuned
from scope_edge.policy.constraints import context_need
from scope_edge.policy.costs import PoolColumns, expected_costs, pool_columns
from scope_edge.policy.paper import NEAREST, SIMILARITY_POWER, AnchorStatistics
from scope_edge.policy.policy import choose_many
from scope_edge.policy.utility import policy_pool
from scope_edge.tuning.forecast import Prospect, believed, choices, forecast_query, without_traits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.policy.utility import PolicyPool
    from scope_edge.types import Floats, ModelCard

    Ints = NDArray[np.intp]

PAPER = "scope-paper"
# Choices on fewer queries are not compared.
LEAST_COMMON = 10
# Alphas at which forecasts are compared with outcomes.
_TUNED = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """The pool's common scored queries of all splits, one after another; arrays (queries, models).

    Attributes:
        columns: of the pool. correct, tokens, usd: outcomes, completion tokens and US dollars. prompts: the models' own tokens.
        chosen: router -> alpha (None: it has none) -> (queries,) the model chosen, index in the pool.
        query, groups: (queries,) index of the query in the data, and its family.
        tuned: for each split, the number of scored queries and the forecast at each alpha.
    """

    columns: PoolColumns
    correct: Floats
    tokens: Floats
    usd: Floats
    prompts: Floats
    chosen: Mapping[str, Mapping[float | None, Ints]]
    query: Ints
    groups: NDArray[np.object_]
    tuned: Sequence[tuple[int, Sequence[Tuned]]]


def pool_of(
    cards: Sequence[ModelCard], found: Sequence[SplitPredictions]
) -> tuple[tuple[ModelCard, ...], dict[str, str]]:
    """Return the cards whose choices can be compared, and why the others cannot.

    A model needs a price, token counts unless it is free, and outcomes. While fewer than half of the queries are common to
    all models, the model that excludes most of them is left out.
    """
    left_out: dict[str, str] = {}
    ran: dict[str, NDArray[np.bool_]] = {}
    for card in cards:
        if any(card.id not in one.part.names for one in found):
            left_out[card.id] = "too few outcomes in this data"
            continue
        columns_at = [one.part.names.index(card.id) for one in found]
        columns = [(one.correct[:, at], one.tokens[:, at]) for one, at in zip(found, columns_at, strict=True)]
        correct, tokens = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        if card.usd_in is None or card.usd_out is None:
            left_out[card.id] = "price unknown"
            continue
        counted = np.isfinite(tokens) | (card.usd_out == 0)
        if not counted.any():
            left_out[card.id] = "tokens unknown, so the cost is unknown"
            continue
        ran[card.id] = np.isfinite(correct) & counted
    while len(ran) > 2 and np.all(list(ran.values()), axis=0).mean() < 0.5:
        without = {model: np.all([row for other, row in ran.items() if other != model], axis=0).sum() for model in ran}
        worst = max(without, key=lambda model: (without[model], model))
        left_out[worst] = "ran few of the queries that the others ran"
        del ran[worst]
    kept = tuple(card for card in cards if card.id in ran)
    if kept and sum(len(common(kept, one)[0]) for one in found) < LEAST_COMMON:
        return (), left_out | dict.fromkeys(ran, "has too few queries in common with the others")
    return kept, left_out


def common(cards: Sequence[ModelCard], one: SplitPredictions) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the scored queries that all models ran and that fit some context, (rows,), and which contexts, (rows, models)."""
    at, columns = columns_of(cards, one), pool_columns(cards)
    ran = (np.isfinite(one.correct[:, at]) & (np.isfinite(one.tokens[:, at]) | (columns.usd_out == 0))).all(axis=1)
    need = context_need(one.part.prompts[1][:, None] * columns.token_factor, one.table.tokens_hi[:, at])
    allowed = ~(need > columns.context_tokens)
    rows = np.flatnonzero(ran & allowed.any(axis=1))
    return rows, allowed[rows]


def columns_of(cards: Sequence[ModelCard], one: SplitPredictions) -> Ints:
    """Return the candidates' indices of these models, (models,)."""
    return np.array([one.part.names.index(card.id) for card in cards], np.intp)


def replay(
    cards: Sequence[ModelCard], found: Sequence[SplitPredictions], alphas: Sequence[float], policies: str = "all"
) -> Replay:
    """Replay the common queries of the pool `cards`, as `pool_of` returned it."""
    parts = [_one_split(cards, one, alphas, policies) for one in found]
    chosen = {
        router: {alpha: np.concatenate([one.chosen[router][alpha] for one in parts]) for alpha in by_alpha}
        for router, by_alpha in parts[0].chosen.items()
    }
    joined = {
        name: np.concatenate([getattr(one, name) for one in parts])
        for name in ("correct", "tokens", "usd", "prompts", "query", "groups")
    }
    tuned = [row for one in parts for row in one.tuned]
    return Replay(columns=parts[0].columns, chosen=chosen, tuned=tuned, **joined)


def _one_split(
    cards: Sequence[ModelCard], one: SplitPredictions, alphas: Sequence[float], policies: str = "all"
) -> Replay:
    at = columns_of(cards, one)
    data, models = one.part.data, one.part.models[at]
    prepared = prepare(cards, one)
    columns = prepared.columns
    free = columns.usd_out == 0
    rows, allowed = common(cards, one)
    where = one.part.rows[rows]
    correct, spent = one.correct[np.ix_(rows, at)], one.tokens[np.ix_(rows, at)]
    counted = data.prompt_tokens[np.ix_(models, where)].T
    prompts = np.where(np.isfinite(counted), counted, data.text_tokens[where][:, None]) * columns.token_factor
    paid = prompts * columns.usd_in + np.where(free, 0.0, spent * columns.usd_out)
    billed = data.usd[np.ix_(models, where)].T
    usd = np.where(np.isfinite(billed), billed, paid)
    expected_prompts = one.part.prompts[0][rows]
    table = _columns(one.table, at, rows)
    cost = expected_costs(columns, table.tokens, expected_prompts)
    flat = expected_costs(columns, np.broadcast_to(one.mean_tokens[at], table.tokens.shape), expected_prompts)

    def sweep(p: Floats, cost: Floats, **how: Any) -> dict[float | None, Ints]:
        return {alpha: choose_many(prepared, p, cost, alpha, allowed=allowed, **how) for alpha in alphas}

    chosen: dict[str, dict[float | None, Ints]] = {OURS: sweep(table.p_correct, cost)}
    if policies != OURS:
        anchors = anchor_statistics(one, at, prepared, rows, expected_prompts)
        chosen[PAPER] = sweep(table.p_correct, cost, policy="paper", anchors=anchors)
    chosen |= {router: sweep(p[np.ix_(rows, at)], flat) for router, p in one.p.items() if router != OURS}
    chosen |= {name: {None: pick} for name, pick in _fixed(one, at, prepared, correct, usd, cost).items()}
    # As `tune` forecasts the user's own queries: their texts are known, their outcomes are not.
    prospect = Prospect(
        columns=columns,
        table=table,
        prompt_tokens=expected_prompts,
        believed=believed(
            table.p_correct, without_traits(one.estimator, one.part.positions).p_correct[np.ix_(rows, at)]
        ),
        usd=expected_costs(columns, table.tokens_mean, expected_prompts),
        allowed=allowed,
    )
    tuned = [(len(rows), _tuned(prepared, prospect, correct, usd))]
    return Replay(columns, correct, spent, usd, prompts, chosen, where, data.groups[where], tuned)


def _tuned(pool: PolicyPool, prospect: Prospect, correct: Floats, usd: Floats) -> list[Tuned]:
    """Return forecasts for the queries at some alphas, with their outcomes."""
    line = np.arange(len(correct))
    found = []
    for seen in forecast_query(pool, prospect, _TUNED):
        pick = choices(pool, prospect, seen.alpha)
        expected_usd = None if seen.usd is None else seen.usd * 1e3
        accuracy, spent = float(correct[line, pick].mean()), float(usd[line, pick].mean() * 1e3)
        found.append(Tuned(seen.alpha, seen.accuracy, accuracy, expected_usd, spent))
    return found


def prepare(cards: Sequence[ModelCard], one: SplitPredictions) -> PolicyPool:
    """Prepare the pool for the policy by training queries."""
    reference = one.part.reference
    table = _columns(one.estimator.table(reference.places, np.ones(len(reference))), columns_of(cards, one))
    return policy_pool(cards, table.p_correct.T, table.tokens.T, reference.prompt_tokens)


def _columns(table: EstimateTable, models: Ints, rows: Ints | None = None) -> EstimateTable:
    """Return only these models, and queries, of a table."""
    at = np.ix_(np.arange(len(table.p_correct)) if rows is None else rows, models)
    arrays = {one.name: getattr(table, one.name)[at] for one in fields(table) if one.name != "models"}
    return EstimateTable(models=tuple(table.models[i] for i in models), **arrays)


def _fixed(
    one: SplitPredictions, at: Ints, pool: PolicyPool, correct: Floats, usd: Floats, cost: Floats
) -> dict[str, Ints]:
    """Return the choices of routers that ignore the query, and of the oracle, which knows the outcome."""
    taught = one.part.material.correct[np.ix_(one.part.models[at], one.part.taught)]
    common = np.isfinite(taught).all(axis=0)
    # Models that ran different queries are compared on common ones, if there are enough.
    share = np.nanmean(taught[:, common] if common.sum() >= LEAST_COMMON else taught, axis=1)
    mean_cost = cost.mean(axis=0)
    n = len(correct)
    device = np.flatnonzero(~pool.columns.cloud)
    found = {
        "cheapest": int(np.lexsort((-share, mean_cost))[0]),
        "dearest": int(np.lexsort((-share, -mean_cost))[0]),
        "best-single": int(np.argmax(share)),
    }
    if device.size:
        found["always-device"] = int(device[np.argmax(share[device])])
    # The cheapest of those that did best; where no model is right, the oracle too pays for a wrong answer.
    oracle = np.where(correct == correct.max(axis=1, keepdims=True), usd, np.inf).argmin(axis=1)
    return {**{name: np.full(n, model) for name, model in found.items()}, "oracle": oracle}


def points(one: Replay) -> tuple[RoutingPoint, ...]:
    """Score every router at every alpha."""
    n, m = one.correct.shape
    rows = [
        _point(one, router, alpha, np.eye(m)[pick])
        for router, by_alpha in one.chosen.items()
        for alpha, pick in by_alpha.items()
    ]
    return (*rows, _point(one, "random", None, np.full((n, m), 1 / m)))


def singles(one: Replay) -> tuple[RoutingPoint, ...]:
    """Score every model of the pool alone."""
    models = one.columns.models
    rows = [np.broadcast_to(row, one.correct.shape) for row in np.eye(len(models))]
    return tuple(_point(one, model, None, row) for model, row in zip(models, rows, strict=True))


def _point(one: Replay, router: str, alpha: float | None, shares: Floats) -> RoutingPoint:
    """Score choices. shares: (queries, models), the probability of each choice."""
    alone = one.correct.mean(axis=0)
    best = one.correct.max(axis=1).mean()
    accuracy = float((shares * one.correct).sum() / len(shares))
    span = best - alone.min()
    right = one.correct > 0.5
    some = right.any(axis=1)
    price = np.where(right, one.usd, np.inf)
    cheapest = right & (price <= price.min(axis=1, keepdims=True))
    tokens = np.nan_to_num(one.tokens)
    known = bool(np.isfinite(one.tokens[shares > 0]).all())
    mean = shares.mean(axis=0)
    return RoutingPoint(
        router=router,
        alpha=alpha,
        accuracy=accuracy,
        usd_per_1k=float((shares * one.usd).sum() / len(shares) * 1e3),
        tokens=float((shares * tokens).sum() / len(shares)) if known else None,
        device_share=float(mean[~one.columns.cloud].sum()),
        pgr=float((accuracy - alone.min()) / span) if span > 0 else None,
        cheapest_correct=float((shares * cheapest)[some].sum() / some.sum()) if some.any() else None,
        portfolio={model: float(s) for model, s in zip(one.columns.models, mean, strict=True) if s > 0},
    )


def tuned(one: Replay) -> tuple[Tuned, ...]:
    """Average forecasts and outcomes over splits, weighted by their queries."""
    weights = [n for n, _ in one.tuned]
    rows = []
    for group in zip(*(rows for _, rows in one.tuned), strict=True):
        table = np.array([astuple(row) for row in group], np.float64)  # None becomes NaN
        _, expected, accuracy, expected_usd, usd = np.average(table, axis=0, weights=weights).tolist()
        rows.append(Tuned(group[0].alpha, expected, accuracy, number(expected_usd), usd))
    return tuple(rows)


# The paper's policy: anchor statistics for many queries at once.


def anchor_statistics(
    one: SplitPredictions, models: Ints, pool: PolicyPool, rows: Ints, prompts: Floats
) -> AnchorStatistics:
    """Return `policy.paper.anchor_statistics` of many queries at once, (queries, models).

    models: indices of candidates; rows: of scored queries; prompts: (rows,) cl100k tokens.
    """
    part = one.part
    vectors = part.data.vectors[part.rows[rows]]
    fingerprints = part.fingerprints(one.anchors)
    accuracy, tokens = np.full((2, len(rows), len(models)), np.nan)
    similar: dict[int, Floats] = {}
    for column, m in enumerate(models.tolist()):
        parts = fingerprints[part.names[m]]
        for known in parts:
            if id(known.anchors) not in similar:
                similar[id(known.anchors)] = (vectors @ known.anchors.vectors.T).astype(np.float64)
        asked = [(known, np.flatnonzero(np.isfinite(known.correct))) for known in parts]
        cosines = np.hstack([similar[id(known.anchors)][:, at] for known, at in asked])
        correct = np.concatenate([known.correct[at] for known, at in asked])
        lengths = np.concatenate([known.tokens[at] for known, at in asked])
        near = np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]
        weights = np.maximum(np.take_along_axis(cosines, near, axis=1), 0.0) ** SIMILARITY_POWER
        accuracy[:, column] = _average(weights, correct[near])
        tokens[:, column] = _average(weights, lengths[near])
    return AnchorStatistics(accuracy, expected_costs(pool.columns, tokens * pool.columns.token_factor, prompts))


def _average(weights: Floats, values: Floats) -> Floats:
    known = np.where(np.isfinite(values), weights, 0.0)
    with np.errstate(invalid="ignore"):
        mean: Floats = (known * np.nan_to_num(values)).sum(axis=1) / known.sum(axis=1)
    return mean


# Growing pools and models that join.


def pool_sizes(cards: Sequence[ModelCard], found: Sequence[SplitPredictions], one: Replay) -> tuple[PoolSize, ...]:
    """Return tokens per query, prompt and completion, for the first 1, 2, ... models of the pool at alpha 1.

    Models without token counts are left out.
    """
    counted = np.flatnonzero(np.isfinite(one.tokens).all(axis=0))
    spent = (one.prompts + one.tokens)[:, counted]
    rows = []
    for size in range(1, len(counted) + 1):
        chosen = np.concatenate([_most_accurate([cards[i] for i in counted[:size]], split, one) for split in found])
        routed, every = spent[np.arange(len(spent)), chosen], spent[:, :size].sum(axis=1)
        rows.append(PoolSize(size, float(routed.mean()), float(every.mean())))
    return tuple(rows)


def _most_accurate(cards: Sequence[ModelCard], split: SplitPredictions, one: Replay) -> Ints:
    """Return the choices among these cards at alpha 1 for the queries of one split that are in the replay."""
    at = columns_of(cards, split)
    rows = np.flatnonzero(np.isin(split.part.rows, one.query))
    p, tokens = (column[np.ix_(rows, at)] for column in (split.table.p_correct, split.table.tokens))
    prompts = split.part.prompts[0][rows]
    pool = policy_pool(cards, p.T, tokens.T, prompts)
    return choose_many(pool, p, expected_costs(pool.columns, tokens, prompts), 1.0)


def joining(cards: Sequence[ModelCard], found: Sequence[SplitPredictions]) -> tuple[Joining, ...]:
    """Return FLOPs for the anchors, and for all training queries, of each candidate with a known number of parameters.

    Every token read or written takes 2 FLOPs per parameter (Kaplan et al. 2020, arXiv 2001.08361). A learned router needs
    the second before its training begins. Means over splits.
    """
    rows = []
    for card in cards:
        costs = []
        for one in found:
            if card.parameters_b is None or card.id not in one.part.names:
                continue
            material, taught = one.part.material, one.part.taught
            m = one.part.models[one.part.names.index(card.id)]
            tokens = (material.tokens[m, taught] + material.text_tokens[taught]) * card.token_factor
            asked = min(one.anchors, int(np.isfinite(material.correct[m, taught]).sum()))
            if np.isfinite(tokens).any():
                each = 2e9 * card.parameters_b * float(np.nanmean(tokens))
                costs.append((each * asked, each * len(taught)))
        if costs:
            anchors, everything = np.mean(costs, axis=0)
            rows.append(Joining(card.id, float(anchors), float(everything)))
    return tuple(rows)
