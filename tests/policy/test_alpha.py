"""What alpha means in a pool."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from policy_cases import NAN, World, world

from scope_edge.policy.alpha import INDIFFERENCE, alpha_curve, switches
from scope_edge.policy.costs import expected_costs
from scope_edge.policy.policy import choose_many

ALPHAS = [step / 20 for step in range(21)]
DEVICE_AND_CLOUD = [0, 0, 0, 0.1, 0.4, 0.6, 6.0, 15.0]
ABILITIES = [-1.0, -0.6, -0.1, 0.3, 0.7, 1.1, 1.6, 2.0]
WORLDS = {
    "device and cloud": (DEVICE_AND_CLOUD, ABILITIES),
    "dearest is not the best": (DEVICE_AND_CLOUD, [-1.0, -0.5, 0.0, 0.3, 1.0, 0.8, 2.0, 1.2]),
    "two": ([0, 15.0], [0.0, 1.5]),
    "three": ([0, 0.4, 15.0], [0.0, 1.0, 1.5]),
    "one price": ([1.0] * 8, ABILITIES),
    "cloud only": ([0.1, 0.2, 0.4, 0.6, 1.0, 3.0, 6.0, 15.0], ABILITIES),
    "one unpriced": ([0, 0.4, None, 15.0], [0.0, 1.0, 3.0, 1.5]),
    "one model": ([3.0], [1.0]),
    "all free": ([0, 0, 0], [0.0, 0.5, 1.0]),
}
TABLE = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: st.tuples(
        arrays(float, shape, elements=st.one_of(st.floats(0, 1), st.sampled_from([0.5, 0.504, 0.505, NAN]))),
        arrays(float, shape, elements=st.one_of(st.floats(1e-7, 0.1), st.sampled_from([0.0, 1e-3, NAN]))),
    )
)


def replay(case: World, anchors: slice, queries: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(choices, spend, accuracy) over `queries` at every alpha, with alpha read off `anchors`."""
    pool = case.pool(anchors)
    p, tokens = case.p[:, queries].T, case.tokens[:, queries].T
    cost = expected_costs(pool.columns, tokens, case.prompt_tokens[queries])
    choices = np.array([choose_many(pool, p, cost, alpha) for alpha in ALPHAS])
    rows = np.arange(len(p))
    return choices, cost[rows, choices].mean(axis=1), case.correct[:, queries].T[rows, choices].mean(axis=1)


@pytest.mark.parametrize("name", WORLDS)
def test_no_small_step_of_alpha_moves_more_than_a_quarter_of_unseen_queries(name: str) -> None:
    choices, _, _ = replay(world(*WORLDS[name]), slice(0, 500), slice(500, None))
    assert (choices[1:] != choices[:-1]).mean(axis=1).max() <= 0.25


@pytest.mark.parametrize("name", WORLDS)
def test_at_every_alpha_the_toll_costs_less_than_three_points_at_equal_cost(name: str) -> None:
    """Of accuracy, against the best lambda without a toll."""
    case, queries = world(*WORLDS[name]), slice(500, None)
    pool = case.pool(slice(0, 500))
    _, spend, accuracy = replay(case, slice(0, 500), queries)
    p = case.p[:, queries]
    cost = expected_costs(pool.columns, case.tokens[:, queries].T, case.prompt_tokens[queries]).T
    priced = np.isfinite(cost).all(axis=1)
    p, cost, correct = p[priced], cost[priced], case.correct[:, queries][priced]
    rows = np.arange(p.shape[1])
    front = []
    for lam in [0.0, *np.geomspace(1e-2, 1e8, 300)]:
        best = np.argmax(p - lam * cost, axis=0)
        front.append((cost[best, rows].mean(), correct[best, rows].mean()))
    prices, reached = np.array(sorted(front)).T
    assert (np.interp(spend, prices, np.maximum.accumulate(reached)) - accuracy).max() <= 0.03


@pytest.mark.parametrize("name", WORLDS)
def test_a_larger_alpha_never_spends_less(name: str) -> None:
    _, spend, _ = replay(world(*WORLDS[name]), slice(0, 200), slice(0, 200))
    assert (np.diff(spend) >= 0).all()


def test_spend_on_the_anchors_is_alpha_squared_of_the_most_accurate_choices() -> None:
    case = world([0, 15.0], [0.0, 1.5])
    _, spend, _ = replay(case, slice(0, 2000), slice(0, 2000))
    curve = case.pool(slice(0, 2000)).curve
    assert curve.spend_low == 0.0
    assert curve.spend_high == pytest.approx(spend[-1])
    assert np.allclose(spend / spend[-1], np.square(ALPHAS), atol=0.005)


def test_without_a_free_model_spend_rises_from_the_cheapest_by_alpha_squared() -> None:
    _, spend, _ = replay(world([3.0, 15.0], [0.0, 1.5]), slice(0, 2000), slice(0, 2000))
    assert spend[0] > 0
    assert np.allclose((spend - spend[0]) / (spend[-1] - spend[0]), np.square(ALPHAS), atol=0.005)


def test_where_a_cheap_model_takes_over_at_once_spend_stays_below_alpha_squared() -> None:
    _, spend, _ = replay(world(DEVICE_AND_CLOUD, ABILITIES), slice(0, 2000), slice(0, 2000))
    assert (spend / spend[-1] <= np.square(ALPHAS) + 0.005).all()


def test_lambda_is_infinite_at_alpha_0_and_zero_at_alpha_1() -> None:
    for prices, abilities in WORLDS.values():
        curve = world(prices, abilities, queries=50).pool(slice(None)).curve
        assert curve.lambda_at(0.0) == math.inf
        assert curve.lambda_at(1.0) == 0.0


@given(TABLE)
def test_lambda_falls_strictly_and_alpha_at_inverts_it(table: tuple[np.ndarray, np.ndarray]) -> None:
    curve = alpha_curve(*table)
    alphas = [0.0001, 0.003, *ALPHAS[1:-1], 0.997, 0.9999]
    lambdas = [curve.lambda_at(alpha) for alpha in alphas]
    assert all(high > low for high, low in pairwise(lambdas))
    assert [curve.alpha_at(lam) for lam in lambdas] == pytest.approx(alphas, abs=1e-6)


@given(TABLE, st.floats(1e-3, 1e7), st.sampled_from((0.0, 1e-5, 0.01)))
def test_switches_name_the_cheapest_model_within_the_indifference_and_the_toll_of_the_best(
    table: tuple[np.ndarray, np.ndarray], lam: float, toll: float
) -> None:
    p, cost = table
    path = switches(p, cost, toll)
    for column in range(p.shape[1]):
        known = [m for m in range(len(p)) if not math.isnan(p[m, column] + cost[m, column])]
        mine = path.column == column
        if not known:
            assert not mine.any()
            continue
        utility = {m: p[m, column] - lam * cost[m, column] for m in known}
        short = {m: max(utility.values()) - value - INDIFFERENCE - lam * toll for m, value in utility.items()}
        if any(abs(value) < 1e-9 * (1 + lam) for value in short.values()):
            continue  # a rounding error away from two answers
        near = [m for m in known if short[m] <= 0]
        expected = min(near, key=lambda m: (cost[m, column], -p[m, column], m))
        assert path.model[mine][path.floor[mine] <= lam][0] == expected


def test_anchors_that_tie_switch_together_and_the_rest_of_alpha_is_not_lost() -> None:
    p, cost = np.array([[0.5] * 40, [0.7] * 40]), np.array([[0.0] * 40, [0.01] * 40])
    curve = alpha_curve(p, cost)
    lam = (0.2 - INDIFFERENCE) / (0.01 + curve.toll)
    assert curve.alpha_at(lam) == pytest.approx(0.5)
    assert curve.lambda_at(0.4) > lam > curve.lambda_at(0.6)


def test_a_reference_without_trades_still_gives_every_alpha_a_meaning() -> None:
    nothing = alpha_curve(np.full((2, 3), NAN), np.zeros((2, 3)))
    assert (nothing.spend_low, nothing.spend_high) == (None, None)
    best_is_cheapest = alpha_curve(np.array([[0.9], [0.5]]), np.array([[0.001], [0.01]]))
    assert best_is_cheapest.spend_low == best_is_cheapest.spend_high == pytest.approx(0.001)
    for curve in (nothing, best_is_cheapest, alpha_curve(np.empty((2, 0)), np.empty((2, 0)))):
        assert curve.lambda_at(0.2) > curve.lambda_at(0.5) > curve.lambda_at(0.8) > 0
