"""What choices are worth: the pool's common queries replayed at every alpha, by every router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.estimation.irt import EstimateTable
from scope_edge.evaluation.paper import statistics
from scope_edge.evaluation.predict import OURS, SplitPredictions
from scope_edge.evaluation.report import RoutingPoint, Tuned
from scope_edge.policy.constraints import context_need
from scope_edge.policy.costs import PoolColumns, expected_costs, pool_columns
from scope_edge.policy.policy import choose_many
from scope_edge.policy.utility import policy_pool
from scope_edge.tuning.forecast import Prospect, believed, choices, forecast_query, without_traits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.policy.utility import PolicyPool
    from scope_edge.types import Floats, ModelCard

    Ints = NDArray[np.intp]

PAPER = "scope-paper"
# Choices on fewer queries than this say nothing.
LEAST_COMMON = 10
# A query's alphas at which what was foreseen is compared with what came.
_TUNED = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """The pool's common scored queries of all splits in a line, arrays (queries, models).

    Attributes:
        columns: of the pool. correct, tokens, usd: what came, tokens and US dollars a query; prompts: (queries, models) own.
        chosen: router -> alpha (None: it has no such knob) -> (queries,) the model chosen, index in the pool.
        query, groups: (queries,) which query of the data it is, and of which family.
        tuned: what was foreseen of each alpha, split by split, and how many queries the split scored.
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
    """The cards whose choices can be compared, and why the others cannot.

    A model needs a price, token counts where that is not zero, and outcomes. One that ran few of the queries would leave
    few to compare the others on: while fewer than half of the queries are common, the one that costs most of them goes.
    """
    left_out: dict[str, str] = {}
    ran: dict[str, NDArray[np.bool_]] = {}
    for card in cards:
        if any(card.id not in one.part.names for one in found):
            left_out[card.id] = "too few outcomes in these data"
            continue
        places = [one.part.names.index(card.id) for one in found]
        columns = [(one.correct[:, at], one.tokens[:, at]) for one, at in zip(found, places, strict=True)]
        correct, tokens = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        if card.usd_in is None or card.usd_out is None:
            left_out[card.id] = "price unknown"
            continue
        counted = np.isfinite(tokens) | (card.usd_out == 0)
        if not counted.any():
            left_out[card.id] = "tokens unknown, and so the cost"
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
    """Scored queries that all these models ran and one's context holds, (rows,), and whose context does, (rows, models)."""
    at, columns = places_of(cards, one), pool_columns(cards)
    ran = (np.isfinite(one.correct[:, at]) & (np.isfinite(one.tokens[:, at]) | (columns.usd_out == 0))).all(axis=1)
    need = context_need(one.part.prompts[1][:, None] * columns.token_factor, one.table.tokens_hi[:, at])
    allowed = ~(need > columns.context_tokens)
    rows = np.flatnonzero(ran & allowed.any(axis=1))
    return rows, allowed[rows]


def places_of(cards: Sequence[ModelCard], one: SplitPredictions) -> Ints:
    """Return the candidates' indices of these models, (models,)."""
    return np.array([one.part.names.index(card.id) for card in cards], np.intp)


def replay(
    cards: Sequence[ModelCard], found: Sequence[SplitPredictions], alphas: Sequence[float], policies: str = "all"
) -> Replay:
    """Replay the common queries of the pool `cards`, which `pool_of` gave."""
    parts = [_one_split(cards, one, alphas, policies) for one in found]
    chosen: dict[str, dict[float | None, Ints]] = {}
    for router in parts[0].chosen:
        chosen[router] = {
            alpha: np.concatenate([one.chosen[router][alpha] for one in parts]) for alpha in parts[0].chosen[router]
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
    at = places_of(cards, one)
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
    told = data.usd[np.ix_(models, where)].T
    usd = np.where(np.isfinite(told), told, paid)
    expected_prompts = one.part.prompts[0][rows]
    table = _columns(one.table, at, rows)
    cost = expected_costs(columns, table.tokens, expected_prompts)
    flat = expected_costs(columns, np.broadcast_to(one.mean_tokens[at], table.tokens.shape), expected_prompts)

    def sweep(p: Floats, cost: Floats, **how: Any) -> dict[float | None, Ints]:
        return {alpha: choose_many(prepared, p, cost, alpha, allowed=allowed, **how) for alpha in alphas}

    chosen: dict[str, dict[float | None, Ints]] = {OURS: sweep(table.p_correct, cost)}
    if policies != OURS:
        anchors = statistics(one, at, prepared, rows, expected_prompts)
        chosen[PAPER] = sweep(table.p_correct, cost, policy="paper", anchors=anchors)
    others = {router: p[np.ix_(rows, at)] for router, p in one.p.items() if router != OURS}
    chosen |= {router: sweep(p, flat) for router, p in others.items()}
    chosen |= {name: {None: pick} for name, pick in _fixed(one, at, prepared, correct, usd, cost).items()}
    # As `tune` foresees the user's own queries: their texts are known, what will become of them is not.
    prospect = Prospect(
        columns=columns,
        table=table,
        prompt_tokens=expected_prompts,
        believed=believed(table.p_correct, without_traits(one.prior, one.part.places).p_correct[np.ix_(rows, at)]),
        usd=expected_costs(columns, table.tokens_mean, expected_prompts),
        allowed=allowed,
    )
    tuned = _tuned(prepared, prospect, correct, usd)
    groups = data.groups[where]
    return Replay(columns, correct, spent, usd, prompts, chosen, where, groups, [(len(rows), tuned)])


def _tuned(pool: PolicyPool, prospect: Prospect, correct: Floats, usd: Floats) -> list[Tuned]:
    """What was foreseen of the queries at some alphas, and what came."""
    line = np.arange(len(correct))
    found = []
    for seen in forecast_query(pool, prospect, _TUNED):
        pick = choices(pool, prospect, seen.alpha)
        usd_per_1k = None if seen.usd is None else seen.usd * 1e3
        came = float(correct[line, pick].mean()), float(usd[line, pick].mean() * 1e3)
        found.append(Tuned(seen.alpha, seen.accuracy, came[0], usd_per_1k, came[1]))
    return found


def prepare(cards: Sequence[ModelCard], one: SplitPredictions) -> PolicyPool:
    """The pool as the policy knows it, read off training queries."""
    reference = one.part.reference
    table = _columns(one.prior.table(reference.places, np.ones(len(reference))), places_of(cards, one))
    return policy_pool(cards, table.p_correct.T, table.tokens.T, reference.prompt_tokens)


def _columns(table: EstimateTable, models: Ints, rows: Ints | None = None) -> EstimateTable:
    """Only these models, and queries, of a table."""
    at = np.ix_(np.arange(len(table.p_correct)) if rows is None else rows, models)
    return EstimateTable(
        models=tuple(table.models[i] for i in models),
        p_correct=table.p_correct[at],
        tokens=table.tokens[at],
        tokens_mean=table.tokens_mean[at],
        tokens_hi=table.tokens_hi[at],
        strong=table.strong[at],
    )


def _fixed(
    one: SplitPredictions, at: Ints, pool: PolicyPool, correct: Floats, usd: Floats, cost: Floats
) -> dict[str, Ints]:
    """The routers that look at no query, as far as they choose; and the oracle, which looks at the outcome."""
    taught = one.part.material.correct[np.ix_(one.part.models[at], one.part.taught)]
    common = np.isfinite(taught).all(axis=0)
    # Models that ran different queries are compared on those that all of them ran, if there are enough.
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
    """Every router at every alpha."""
    n, m = one.correct.shape
    rows = [
        _point(one, router, alpha, np.eye(m)[pick])
        for router, by_alpha in one.chosen.items()
        for alpha, pick in by_alpha.items()
    ]
    return (*rows, _point(one, "random", None, np.full((n, m), 1 / m)))


def singles(one: Replay) -> tuple[RoutingPoint, ...]:
    """Every model of the pool alone."""
    one_hot = np.eye(len(one.columns.models))
    return tuple(
        _point(one, model, None, np.broadcast_to(row, one.correct.shape))
        for model, row in zip(one.columns.models, one_hot, strict=True)
    )


def _point(one: Replay, router: str, alpha: float | None, shares: Floats) -> RoutingPoint:
    """shares: (queries, models), the chance with which each is chosen."""
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
    """Foreseen and realised, averaged over splits by their queries."""
    weights = np.array([n for n, _ in one.tuned], np.float64)
    rows = []
    for group in zip(*(rows for _, rows in one.tuned), strict=True):

        def mean(name: str, group: tuple[Tuned, ...] = group) -> float:
            return float(np.average([getattr(row, name) for row in group], weights=weights))

        priced = all(row.expected_usd_per_1k is not None for row in group)
        rows.append(
            Tuned(
                group[0].alpha,
                mean("expected_accuracy"),
                mean("accuracy"),
                mean("expected_usd_per_1k") if priced else None,
                mean("usd_per_1k"),
            )
        )
    return tuple(rows)
