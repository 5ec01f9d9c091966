"""What a query would cost."""

from __future__ import annotations

import numpy as np
import pytest
from policy_cases import NAN, PROMPT, card

from scope_edge.policy.costs import expected_costs, pool_columns, query_costs

PROMPTS = (PROMPT.expected, PROMPT.high)
TOKENS, TOKENS_HI = np.array([400.0]), np.array([1000.0])


def test_dollars_are_prompt_and_completion_tokens_at_their_prices_and_the_bound_uses_both_bounds() -> None:
    pool = pool_columns([card("m", None, usd_in=2.0, usd_out=10.0)])
    unpriced = query_costs(pool, TOKENS, TOKENS_HI, PROMPTS, 0.0)
    assert unpriced.usd[0] == pytest.approx((100 * 2 + 400 * 10) / 1e6)
    assert unpriced.usd_hi[0] == pytest.approx((150 * 2 + 1000 * 10) / 1e6)


def test_prompt_tokens_are_counted_in_the_models_own_tokens() -> None:
    pool = pool_columns([card("m", 1.0, token_factor=1.25)])
    costs = query_costs(pool, TOKENS, TOKENS_HI, PROMPTS, 0.0)
    assert (costs.prompt_tokens[0], costs.prompt_tokens_hi[0]) == (125.0, 187.5)
    assert costs.usd[0] == pytest.approx((125 + 400) / 1e6)


@pytest.mark.parametrize("prices", [{"usd_in": 1.0}, {"usd_out": 1.0}, {}])
def test_half_a_price_is_an_unknown_price_and_never_zero(prices: dict[str, float]) -> None:
    pool = pool_columns([card("m", None, **{"usd_in": None, "usd_out": None, **prices})])
    costs = query_costs(pool, TOKENS, TOKENS_HI, PROMPTS, 0.0)
    assert np.isnan([costs.usd[0], costs.usd_hi[0], costs.cost[0]]).all()


def test_a_free_model_costs_nothing_however_many_tokens_it_takes() -> None:
    unknown = np.array([NAN])
    assert query_costs(pool_columns([card("m", 0)]), unknown, unknown, PROMPTS, 0.0).usd_hi[0] == 0.0
    assert np.isnan(query_costs(pool_columns([card("m", 1.0)]), unknown, unknown, PROMPTS, 0.0).usd_hi[0])


def test_seconds_include_loading_reading_the_prompt_and_writing_the_answer() -> None:
    pool = pool_columns([card("m", 0, load_seconds=3.0, prompt_tokens_per_second=50.0, tokens_per_second=20.0)])
    costs = query_costs(pool, TOKENS, TOKENS_HI, PROMPTS, 0.001)
    assert costs.seconds[0] == pytest.approx(3 + 100 / 50 + 400 / 20)
    assert costs.seconds_hi[0] == pytest.approx(3 + 150 / 50 + 1000 / 20)
    assert costs.cost[0] == pytest.approx(0.025)


@pytest.mark.parametrize("missing", ["load_seconds", "prompt_tokens_per_second", "tokens_per_second"])
def test_a_device_model_with_an_unmeasured_speed_has_unknown_seconds_and_then_cost(missing: str) -> None:
    speeds = {"load_seconds": 3.0, "prompt_tokens_per_second": 50.0, "tokens_per_second": 20.0, missing: None}
    pool = pool_columns([card("m", 0, **speeds)])
    assert np.isnan(query_costs(pool, TOKENS, TOKENS_HI, PROMPTS, 0.001).cost[0])
    assert query_costs(pool, TOKENS, TOKENS_HI, PROMPTS, 0.0).cost[0] == 0.0


def test_a_cloud_model_has_nothing_to_load() -> None:
    pool = pool_columns([card("m", 1.0, prompt_tokens_per_second=1000.0, tokens_per_second=100.0)])
    assert query_costs(pool, TOKENS, TOKENS_HI, PROMPTS, 0.0).seconds[0] == pytest.approx(0.1 + 4.0)


def test_a_table_of_queries_costs_what_each_query_costs_alone() -> None:
    rng = np.random.default_rng(0)
    speeds = {"load_seconds": 1.0, "prompt_tokens_per_second": 90.0, "tokens_per_second": 30.0}
    pool = pool_columns([card("a", 0, **speeds), card("b", 3.0, token_factor=1.2, **speeds), card("c", None, **speeds)])
    tokens, prompts = rng.uniform(10, 900, (5, 3)), rng.uniform(10, 900, 5)
    together = expected_costs(pool, tokens, prompts, 0.002)
    for row, prompt, table in zip(tokens, prompts, together, strict=True):
        alone = query_costs(pool, row, row, (prompt, prompt), 0.002).cost
        assert np.array_equal(alone, table, equal_nan=True)


def test_models_known_by_price_alone_go_from_cheap_to_dear_then_device_first() -> None:
    cards = [
        card("dear", 5.0),
        card("unknown", None),
        card("cloud", 0, where="cloud"),
        card("device", 0),
        card("mid", 1.0),
    ]
    order = np.argsort(pool_columns(cards).price_rank)
    assert [cards[i].id for i in order] == ["device", "cloud", "mid", "dear", "unknown"]
