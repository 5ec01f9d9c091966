"""What is expected of a pool: it is what `route` would choose, priced as a whole, and no surer than it may be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scope_edge.estimation.irt import EstimateTable
from scope_edge.factory import open_catalog
from scope_edge.policy.costs import pool_columns
from scope_edge.policy.policy import choose_many
from scope_edge.policy.utility import PolicyPool, policy_pool
from scope_edge.settings.config import Settings
from scope_edge.tuning.forecast import Prospect, believed, choices, expected, forecast_query, lead, within_limits
from scope_edge.tuning.goals import TuningGoal, solve
from scope_edge.tuning.outlook import GRID, PoolForecast, forecast_pool
from scope_edge.types import ModelCard, Preference

CHEAP = ModelCard(id="cheap", where="device", usd_in=0, usd_out=0, context_tokens=4096)
DEAR = ModelCard(id="dear", where="cloud", usd_in=1.0, usd_out=10.0, context_tokens=4096)
RNG = np.random.default_rng(0)
QUERIES = 200


def table(models: tuple[str, ...] = ("cheap", "dear")) -> EstimateTable:
    p = np.clip(np.column_stack([RNG.uniform(0.1, 0.9, QUERIES), RNG.uniform(0.5, 0.99, QUERIES)]), 0, 1)
    tokens = RNG.uniform(50, 500, (QUERIES, 2))
    return EstimateTable(models, p, tokens, 1.5 * tokens, 3 * tokens, np.ones(p.shape, bool))


def prospect(one: EstimateTable, **changes: object) -> tuple[PolicyPool, Prospect]:
    prompts = np.full(QUERIES, 100.0)
    pool = policy_pool([CHEAP, DEAR], one.p_correct.T, one.tokens.T, prompts)
    usd = (prompts[:, None] * [0, 1e-6]) + one.tokens_mean * [0, 10e-6]
    return pool, replace(Prospect(pool_columns([CHEAP, DEAR]), one, prompts, one.p_correct, usd), **changes)


def test_what_is_expected_is_what_the_policy_would_choose() -> None:
    one = table()
    pool, seen = prospect(one)
    chosen = choices(pool, seen, 0.6)
    cost = 100 * np.array([0, 1e-6]) + one.tokens * [0, 10e-6]
    np.testing.assert_array_equal(chosen, choose_many(pool, one.p_correct, cost, 0.6))
    (row,) = forecast_query(pool, seen, [0.6])
    at = np.arange(QUERIES), chosen
    assert row.accuracy == pytest.approx(one.p_correct[at].mean())
    assert row.tokens == pytest.approx(one.tokens_mean[at].mean() + 100)
    assert row.device_share == pytest.approx((chosen == 0).mean()) == pytest.approx(row.portfolio["cheap"])


def test_spending_adds_up_by_the_mean_while_choices_go_by_the_median() -> None:
    one = table()
    longer = replace(one, tokens_mean=10 * one.tokens_mean)
    (row,), (more,) = (forecast_query(*prospect(each), [0.5]) for each in (one, longer))
    assert more.portfolio == row.portfolio
    assert more.usd is not None and row.usd is not None and more.usd > 5 * row.usd


def test_an_unknown_price_makes_the_cost_unknown_and_not_nothing() -> None:
    one = table()
    _, seen = prospect(one)
    nameless = replace(seen, usd=np.full((QUERIES, 2), np.nan))
    assert expected(nameless, np.ones(QUERIES, int)).usd is None
    assert expected(seen, np.zeros(QUERIES, int)).usd == 0


def test_queries_that_nothing_may_serve_are_counted_and_not_averaged_in() -> None:
    one = table()
    pool, seen = prospect(one)
    prompts = np.full(QUERIES, 100.0), np.full(QUERIES, 100.0)
    preference = Preference(budget=replace(Preference().budget, tokens=700))
    allowed, unlimited = within_limits(pool, one, prompts, preference)
    assert unlimited is None and 0 < allowed.mean() < 1
    np.testing.assert_array_equal(allowed, 3 * one.tokens + 100 <= 700)
    (row,) = forecast_query(pool, replace(seen, allowed=allowed), [1.0])
    assert row.unserved == pytest.approx((~allowed.any(axis=1)).mean()) and row.unserved > 0
    best = np.where(allowed, one.p_correct, 0).max(axis=1)
    assert row.accuracy <= best[allowed.any(axis=1)].mean() + 1e-9
    allowed, unlimited = within_limits(pool, one, prompts, replace(preference, fallback="cheapest"))
    (row,) = forecast_query(pool, replace(seen, allowed=allowed, unlimited=unlimited), [1.0])
    assert row.unserved == 0


def test_what_tells_models_apart_on_a_query_is_trusted_less_and_nothing_else() -> None:
    p = table().p_correct
    plain = np.clip(p + RNG.normal(0, 0.1, p.shape), 0, 1)
    found = believed(p, plain)
    np.testing.assert_allclose(found.mean(axis=0), p.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1) - p.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(believed(p, p), p)
    best = p.argmax(axis=1)
    (rows,) = np.nonzero(p.max(axis=1) - plain[np.arange(QUERIES), best] > 0.1)
    assert found[rows, best[rows]].mean() < p[rows, best[rows]].mean()


def test_a_model_that_nobody_measured_stays_unknown() -> None:
    p = table().p_correct
    p[:, 1] = np.nan
    found = believed(p, p)
    np.testing.assert_allclose(found[:, 0], p[:, 0])
    assert np.isnan(found[:, 1]).all()


def test_a_lead_over_a_model_is_surer_than_the_two_apart() -> None:
    one = table()
    shift = RNG.normal(0, 0.1, 30)
    # All models together may be better or worse than thought: that moves both, and not what lies between them.
    draws = [(one.p_correct + up, np.zeros((QUERIES, 2))) for up in shift]
    _, seen = prospect(one, draws=draws)
    chosen = np.zeros(QUERIES, int)
    ahead, error = lead(seen, chosen, 1)
    assert ahead == pytest.approx((one.p_correct[:, 0] - one.p_correct[:, 1]).mean())
    alone = expected(seen, chosen).accuracy_error
    assert error is not None and alone is not None and error < alone / 2
    assert lead(seen, np.ones(QUERIES, int), 1) == (0, 0)


@pytest.fixture(scope="module")
def outlook(tmp_path_factory: pytest.TempPathFactory) -> PoolForecast:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCOPE_EDGE_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        return forecast_pool(open_catalog(Settings()), Preference(), GRID, match="llama-3.1-405b-instruct")


def test_more_alpha_buys_more_accuracy_for_more_money(outlook: PoolForecast) -> None:
    accuracy = [row.accuracy for row in outlook.rows]
    usd = [row.usd for row in outlook.rows if row.usd is not None]
    assert len(usd) == len(GRID)
    assert (np.diff(usd) >= -1e-12).all() and (np.diff(accuracy) > -0.005).all()
    assert outlook.rows[0].usd == 0 and outlook.rows[0].device_share == 1
    assert accuracy[-1] > max(one.accuracy for one in outlook.alone.values()) - 0.005


def test_errors_are_there_and_of_a_sane_size(outlook: PoolForecast) -> None:
    for row in (*outlook.rows, *outlook.alone.values()):
        assert row.accuracy_error is not None and 0.005 < row.accuracy_error < 0.15


def test_a_wish_is_granted_by_the_best_alpha_that_keeps_to_it(outlook: PoolForecast) -> None:
    most = 0.0001
    found = solve(outlook, TuningGoal(usd=most)).found
    good = [row for row in outlook.rows if row.usd is not None and row.usd <= most]
    assert found is not None and found.accuracy == max(row.accuracy for row in good)
    granted = solve(outlook, TuningGoal(match="llama-3.1-405b-instruct", within=0.01))
    least = outlook.alone["llama-3.1-405b-instruct"].accuracy - 0.01
    good = [row for row in outlook.rows if row.accuracy >= least]
    assert granted.found is not None and granted.found.usd == min(row.usd or 0 for row in good)
    assert granted.lead is not None and granted.lead[0] == pytest.approx(
        granted.found.accuracy - least - 0.01, abs=1e-9
    )


def test_a_wish_that_cannot_be_says_what_can(outlook: PoolForecast) -> None:
    granted = solve(outlook, TuningGoal(tokens=1))
    (missed,) = granted.missed
    assert granted.found is None and granted.nearest is not None
    assert missed.part == "tokens" and missed.best == granted.nearest.tokens == min(
        row.tokens or 0 for row in outlook.rows
    )
    # Each alone can be had, both at once cannot.
    granted = solve(outlook, TuningGoal(usd=0.0, match="llama-3.1-405b-instruct"))
    assert granted.found is None and granted.missed == () and granted.nearest is not None


def test_an_alpha_that_serves_no_query_grants_nothing(outlook: PoolForecast) -> None:
    left = replace(outlook, rows=tuple(replace(row, unserved=1.0) for row in outlook.rows))
    granted = solve(left, TuningGoal(usd=1.0))
    assert granted.found is None and granted.nearest is None
