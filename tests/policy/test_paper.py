"""The paper's formula, held against a plain reading of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_cases import NAN, PROMPT, card, estimates, pool_like

from scope_edge.policy.costs import pool_columns
from scope_edge.policy.paper import AnchorStatistics, CostRange, anchor_statistics, cost_range, paper_utility
from scope_edge.policy.policy import choose_many, decide
from scope_edge.types import Neighbor, Outcome, Preference, Slice

COSTS = st.one_of(st.just(0.0), st.floats(1e-8, 1.0))
MODELS = st.lists(st.tuples(st.floats(0, 1), COSTS, st.floats(0, 1), COSTS), min_size=1, max_size=6)


def plainly(alpha: float, models: list[tuple[float, float, float, float]], low: float, high: float) -> list[float]:
    """U = alpha p + (1 - alpha)(1 - c)^gamma, from predictions and from anchors, blended: model by model, in scalars."""

    def share(value: float, smallest: float, largest: float) -> float:
        return min(max((value - smallest) / (largest - smallest), 0.0), 1.0) if largest - smallest > 1e-9 else 0.0

    gamma, weight = 2.0 * (1 + 2 * (1 - alpha)), 0.3 * (0.5 + 0.5 * alpha)
    right = [accuracy for _, _, accuracy, _ in models]
    spent = [math.log(cost + 1e-9) for _, _, _, cost in models]
    found = []
    for (p, cost, accuracy, _), log_cost in zip(models, spent, strict=True):
        c = share(math.log(cost + 1e-9), low, high)
        predicted = alpha * p + (1 - alpha) * (1 - c) ** gamma
        c = share(log_cost, min(spent), max(spent))
        anchored = alpha * share(accuracy, min(right), max(right)) + (1 - alpha) * (1 - c) ** gamma
        found.append((1 - weight) * predicted + weight * anchored)
    return found


@given(st.floats(0, 1), MODELS, st.floats(-21, 0), st.floats(0, 10))
def test_utility_is_the_papers(
    alpha: float, models: list[tuple[float, float, float, float]], low: float, width: float
) -> None:
    p, cost, accuracy, spent = np.array(models).T
    span = CostRange(low, low + width)
    found = paper_utility(alpha, p, cost, span, AnchorStatistics(accuracy, spent))
    assert found == pytest.approx(np.array(plainly(alpha, models, span.low, span.high)), abs=1e-9)


@given(MODELS)
def test_many_alphas_at_once_are_each_alpha_alone(models: list[tuple[float, float, float, float]]) -> None:
    p, cost, accuracy, spent = np.array(models).T
    span, anchors = CostRange(-20.0, -2.0), AnchorStatistics(accuracy, spent)
    alphas = np.array([0.0, 0.4, 1.0])
    table = paper_utility(alphas[:, None], p, cost, span, anchors)
    for alpha, row in zip(alphas.tolist(), table, strict=True):
        assert np.array_equal(row, paper_utility(alpha, p, cost, span, anchors))


def test_a_model_without_outcomes_on_the_anchors_is_scored_by_its_prediction_alone() -> None:
    p, cost, span = np.array([0.5, 0.9]), np.array([0.001, 0.01]), CostRange(-10.0, -2.0)
    alone = paper_utility(0.5, p, cost, span, None)
    half = paper_utility(0.5, p, cost, span, AnchorStatistics(np.array([0.7, NAN]), np.array([0.001, NAN])))
    assert half[1] == alone[1]
    assert half[0] != alone[0]


def test_unknown_numbers_stay_unknown_even_where_the_range_is_empty() -> None:
    for span in (CostRange(-10.0, -2.0), CostRange(0.0, 0.0)):
        found = paper_utility(0.5, np.array([NAN, 0.5, 0.5]), np.array([0.01, NAN, 0.01]), span, None)
        assert np.isnan(found).tolist() == [True, True, False]


def test_cost_is_placed_between_the_ends_of_the_pools_anchors_and_clipped() -> None:
    span = cost_range(np.array([[0.001, NAN], [0.1, 0.01]]))
    assert (span.low, span.high) == (pytest.approx(math.log(0.001 + 1e-9)), pytest.approx(math.log(0.1 + 1e-9)))
    cost = np.array([1e-6, 0.001, 0.01, 0.1, 5.0])
    assert paper_utility(0.0, np.zeros(5), cost, span, None) == pytest.approx([1, 1, 0.5**6, 0, 0], abs=1e-6)
    assert cost_range(np.array([NAN])) == CostRange(0.0, 0.0)


def test_an_unmeasured_model_does_not_stretch_the_pools_cost_range() -> None:
    cards = [card("a", 1.0), card("b", 5.0), card("free and unmeasured", 0)]
    with_it, without = (pool_like(cards[:n], estimates(cards[:n], [0.5, 0.6, NAN][:n])) for n in (3, 2))
    assert with_it.span == without.span


def test_anchor_statistics_weigh_the_six_nearest_by_squared_similarity_and_leave_missing_outcomes_out() -> None:
    pool = pool_columns([card("m", 2.0, token_factor=1.5), card("other", 1.0), card("blank", 1.0)])
    similarities = [0.9, 0.8, 0.7, 0.6, 0.5, -0.4, 0.3]
    correct = [1.0, 0.0, None, 0.5, 1.0, 1.0, 1.0]
    tokens = [100.0, None, 300.0, 200.0, 50.0, 9999.0, 9999.0]
    neighbors = tuple(Neighbor(f"a{i}", value, "math") for i, value in enumerate(similarities))
    outcomes = tuple(Outcome(right, length) for right, length in zip(correct, tokens, strict=True))
    unknown = Slice("blank", neighbors[:1], (Outcome(None, None),))
    found = anchor_statistics(pool, [unknown, Slice("m", neighbors, outcomes)], 100.0)
    # The sixth is unlike the query (weight 0) and the seventh too far down to count.
    assert found.accuracy[0] == pytest.approx((0.81 + 0.5 * 0.36 + 0.25) / (0.81 + 0.64 + 0.36 + 0.25))
    length = (0.81 * 100 + 0.49 * 300 + 0.36 * 200 + 0.25 * 50) / (0.81 + 0.49 + 0.36 + 0.25)
    assert found.cost[0] == pytest.approx((100 * 1.5 + length * 1.5) * 2 / 1e6)
    assert np.isnan([*found.accuracy[1:], *found.cost[1:]]).all()


def test_slices_change_the_papers_choice_and_only_the_papers() -> None:
    cards = [card("a", 1.0), card("b", 1.0)]
    row = estimates(cards, [0.51, 0.5])
    pool = pool_like(cards, row)
    near = (Neighbor("x", 0.9, "math"),)
    slices = [Slice("a", near, (Outcome(0.0, 100.0),)), Slice("b", near, (Outcome(1.0, 100.0),))]
    wish = Preference(1.0, policy="paper")
    assert decide(pool, row, PROMPT, wish).choice == "a"
    assert decide(pool, row, PROMPT, wish, slices).choice == "b"
    ours = Preference(1.0)
    assert decide(pool, row, PROMPT, ours, slices) == decide(pool, row, PROMPT, ours)


def test_a_table_of_queries_can_be_chosen_with_the_anchors_of_each() -> None:
    cards = [card("a", 1.0), card("b", 1.0)]
    pool = pool_like(cards, estimates(cards, [0.5, 0.5]))
    p, cost = np.full((2, 2), 0.5), np.full((2, 2), 0.001)
    anchors = AnchorStatistics(np.array([[0.0, 1.0], [1.0, 0.0]]), cost)
    assert choose_many(pool, p, cost, 1.0, policy="paper", anchors=anchors).tolist() == [1, 0]
