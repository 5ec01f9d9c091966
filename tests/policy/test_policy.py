"""Which model is chosen, in which order the others follow, and what is said about it."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from policy_cases import NAN, PROMPT, card, cases, estimates, pool_like, world

from scope_edge.encoding.token_count import PromptTokens
from scope_edge.policy.costs import expected_costs
from scope_edge.policy.policy import choose_many, decide
from scope_edge.policy.utility import PolicyPool
from scope_edge.types import Budget, Estimates, ModelCard, PolicyDecision, PolicyName, Preference

Case = tuple[tuple[ModelCard, ...], PolicyPool, Estimates]
POLICIES: tuple[PolicyName, ...] = ("scope-edge", "paper")
DEVICE, CHEAP, DEAR = card("device", 0), card("cheap", 1.0), card("dear", 10.0)


def decided(cards: list[ModelCard], row: Estimates, alpha: float = 0.5, **wishes: object) -> PolicyDecision:
    return decide(pool_like(cards, row), row, PROMPT, Preference(alpha, **wishes))  # type: ignore[arg-type]


def known(case: Case) -> list[int]:
    """Models of the pool with a p and a cost."""
    cards, _, row = case
    return [i for i, one in enumerate(cards) if not math.isnan(row.p_correct[i]) and one.usd_in is not None]


def cost_of(case: Case, index: int) -> float:
    cards, _, row = case
    price = cards[index].usd_in
    assert price is not None
    return (PROMPT.expected + float(row.tokens[index])) * price / 1e6 if price else 0.0


@given(cases(), st.floats(0, 1))
def test_the_cheapest_within_half_a_point_and_the_toll_of_the_best_utility_is_chosen(case: Case, alpha: float) -> None:
    cards, pool, row = case
    weighable = known(case)
    assume(weighable)
    lam = pool.curve.lambda_at(alpha)
    assume(lam < 1e12)
    utility = {i: row.p_correct[i] - lam * cost_of(case, i) for i in weighable}
    short = {i: max(utility.values()) - value - 0.005 - lam * pool.curve.toll for i, value in utility.items()}
    assume(all(abs(value) > 1e-9 * (1 + lam) for value in short.values()))
    near = [i for i in weighable if short[i] <= 0]
    best = min(near, key=lambda i: (cost_of(case, i), -row.p_correct[i], cards[i].where == "cloud", i))
    assert decide(pool, row, PROMPT, Preference(alpha)).choice == cards[best].id


@given(cases())
def test_alpha_0_is_the_cheapest_and_of_those_the_most_accurate(case: Case) -> None:
    cards, pool, row = case
    weighable = known(case)
    assume(weighable)
    cheapest = min(weighable, key=lambda i: (cost_of(case, i), -row.p_correct[i]))
    choice = [one.id for one in cards].index(decide(pool, row, PROMPT, Preference(0.0)).choice or "")
    assert cost_of(case, choice) == pytest.approx(cost_of(case, cheapest), rel=1e-12)
    if cost_of(case, choice) == 0:
        assert row.p_correct[choice] == row.p_correct[cheapest]


def test_alpha_1_is_the_cheapest_within_half_a_point_of_the_most_accurate() -> None:
    cards = [card("best", 10.0), card("nearly", 5.0), card("close", 1.0), card("behind", 0.1)]
    verdict = decided(cards, estimates(cards, [0.9, 0.898, 0.896, 0.894]), 1.0)
    assert [one.model for one in verdict.candidates] == ["close", "best", "nearly", "behind"]


@given(cases(), st.floats(0, 1), st.sampled_from(POLICIES), st.randoms(use_true_random=False))
def test_the_order_of_the_pool_decides_nothing_but_ties(
    case: Case, alpha: float, policy: PolicyName, random: object
) -> None:
    cards, pool, row = case
    costs = [(round(float(p), 12), one.usd_in, one.where) for one, p in zip(cards, row.p_correct, strict=True)]
    assume(len(set(costs)) == len(costs))
    order = list(range(len(cards)))
    random.shuffle(order)  # type: ignore[attr-defined]
    turned_row = replace(
        row,
        **{name: getattr(row, name)[order] for name in ("p_correct", "p_low", "p_high", "tokens", "tokens_hi")},
        **{name: tuple(getattr(row, name)[i] for i in order) for name in ("models", "evidence", "source")},
    )
    turned = replace(pool_like([cards[i] for i in order], turned_row), curve=pool.curve, span=pool.span)
    wish = Preference(alpha, policy=policy)
    before, after = decide(pool, row, PROMPT, wish), decide(turned, turned_row, PROMPT, wish)
    equals = {(one.p_correct, one.usd, one.where) for one in before.candidates}
    assume(len(equals) == len(cards))
    assert before.choice == after.choice
    assert (before.flip_below, before.flip_above) == (after.flip_below, after.flip_above)


@given(st.lists(st.integers(0, 299), min_size=1, max_size=8), st.floats(0, 1), st.sampled_from(POLICIES))
def test_a_query_is_decided_alike_alone_in_any_table_and_by_decide(
    rows: list[int], alpha: float, policy: PolicyName
) -> None:
    case = world([0, 0, 0.4, None, 6.0, 15.0], [-1.0, 0.0, 0.7, 3.0, 1.6, 2.0], queries=300)
    pool = case.pool(slice(0, 100))
    p, tokens = case.p.T, case.tokens.T
    cost = expected_costs(pool.columns, tokens, case.prompt_tokens)
    together = choose_many(pool, p[rows], cost[rows], alpha, policy=policy)
    for row, chosen in zip(rows, together.tolist(), strict=True):
        assert choose_many(pool, p[[row]], cost[[row]], alpha, policy=policy).tolist() == [chosen]
        alone = estimates(case.cards, p[row].tolist(), tokens[row].tolist())
        prompt = PromptTokens(float(case.prompt_tokens[row]), float(case.prompt_tokens[row]))
        assert decide(pool, alone, prompt, Preference(alpha, policy=policy)).choice == case.cards[chosen].id


@given(cases(), st.floats(0, 1), st.sampled_from(POLICIES), st.none() | st.floats(0, 0.01))
def test_candidates_are_all_there_the_choice_first_the_excluded_last(
    case: Case, alpha: float, policy: PolicyName, usd: float | None
) -> None:
    cards, pool, row = case
    verdict = decide(pool, row, PROMPT, Preference(alpha, Budget(usd=usd), policy=policy))
    assert sorted(one.model for one in verdict.candidates) == sorted(one.id for one in cards)
    assert verdict.choice == (verdict.candidates[0].model if verdict.feasible else None)
    excluded = [one.excluded_by is not None for one in verdict.candidates]
    assert excluded == sorted(excluded)
    utilities = [one.utility for one in verdict.candidates[1:] if not one.excluded_by and one.utility is not None]
    assert utilities == sorted(utilities, reverse=True)


def test_a_candidate_carries_its_numbers_and_unknown_ones_are_none() -> None:
    cards = [card("m", 2.0, token_factor=1.5), card("unmeasured", None)]
    row = estimates(cards, [0.7, NAN], rationales={"m": "because"})
    told = {one.model: one for one in decided(cards, row).candidates}
    one = told["m"]
    assert (one.where, one.p_correct, one.tokens, one.tokens_hi, one.prompt_tokens) == (
        "cloud",
        0.7,
        100.0,
        200.0,
        150.0,
    )
    assert (one.p_low, one.p_high) == (pytest.approx(0.6), pytest.approx(0.8))
    assert one.usd == pytest.approx(250 * 2 / 1e6)
    assert one.usd_hi == pytest.approx((225 + 200) * 2 / 1e6)
    assert (one.seconds, one.evidence, one.excluded_by, one.rationale) == (None, "strong", None, "because")
    other = told["unmeasured"]
    assert (other.p_correct, other.tokens, other.usd, other.utility) == (None, None, None, None)
    assert (other.evidence, other.rationale, other.prompt_tokens) == ("none", None, 100.0)


def test_at_alpha_0_the_utility_shown_is_the_cost_negated() -> None:
    told = decided([CHEAP], estimates([CHEAP], [0.5]), 0.0).candidates[0]
    assert told.utility == -(told.usd or 0)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_a_pool_of_free_models_gives_the_most_accurate_at_every_alpha(alpha: float) -> None:
    cards = [card("a", 0), card("b", 0), card("c", 0)]
    verdict = decided(cards, estimates(cards, [0.4, 0.402, 0.401]), alpha)
    assert verdict.choice == "b"
    assert (verdict.flip_below, verdict.flip_above, verdict.warnings) == (None, None, ())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("policy", POLICIES)
def test_equals_go_to_the_device_then_to_pool_order(alpha: float, policy: PolicyName) -> None:
    cards = [card("cloud", 0, where="cloud"), card("second", 0), card("third", 0)]
    assert decided(cards, estimates(cards, [0.5, 0.5, 0.5]), alpha, policy=policy).choice == "second"


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("policy", POLICIES)
def test_an_unknown_price_ranks_after_every_priced_model_and_is_said(alpha: float, policy: PolicyName) -> None:
    cards = [card("unpriced", None), DEAR]
    verdict = decided(cards, estimates(cards, [0.99, 0.01]), alpha, policy=policy)
    assert [one.model for one in verdict.candidates] == ["dear", "unpriced"]
    assert verdict.warnings == ("price unknown, ranked after every priced model: unpriced",)
    assert (verdict.flip_below, verdict.flip_above) == (None, None)


def test_of_unpriced_models_alone_the_most_accurate_is_chosen() -> None:
    cards = [card("a", None), card("b", None)]
    assert decided(cards, estimates(cards, [0.4, 0.6]), 0.0).choice == "b"


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_model_of_unknown_accuracy_ranks_after_every_other_one(alpha: float) -> None:
    cards = [DEVICE, card("unpriced", None), DEAR]
    verdict = decided(cards, estimates(cards, [NAN, 0.1, 0.1]), alpha)
    assert [one.model for one in verdict.candidates] == ["dear", "unpriced", "device"]
    assert "accuracy unknown, ranked after every other model: device" in verdict.warnings


def test_a_model_that_was_never_measured_does_not_lose_to_a_measured_bad_one() -> None:
    cards = [DEVICE, DEAR]
    row = estimates(cards, [0.55, 0.1], evidence=("none", "strong"))
    for alpha in (0.0, 0.5, 1.0):
        verdict = decided(cards, row, alpha)
        assert verdict.choice == "device"
        assert verdict.warnings == (
            "device was never measured: its numbers are an average model's; `scope-edge fingerprint device` measures it",
        )


def test_of_unmeasured_models_alone_the_cheapest_is_chosen_with_a_warning() -> None:
    cards = [card("unpriced", None), DEAR, CHEAP]
    verdict = decided(cards, estimates(cards, [NAN, NAN, NAN]), 1.0)
    assert [one.model for one in verdict.candidates] == ["cheap", "dear", "unpriced"]
    assert "no measured model could be chosen; the accuracy of cheap is unknown" in verdict.warnings
    assert decided([*cards, DEVICE], estimates([*cards, DEVICE], [NAN] * 4), 1.0).choice == "device"


def test_unknown_tokens_make_the_cost_unknown_unless_tokens_are_free() -> None:
    cards = [CHEAP, DEAR, DEVICE]
    row = estimates(cards, [0.9, 0.5, 0.1], tokens=[NAN, 100.0, NAN])
    verdict = decided(cards, row, 1.0)
    assert [one.model for one in verdict.candidates] == ["dear", "device", "cheap"]
    assert verdict.warnings == ("tokens unknown and so the cost, ranked after every model of known cost: cheap",)


def test_time_that_has_a_value_counts_and_an_unknown_speed_is_an_unknown_cost() -> None:
    fast = {"load_seconds": 0.0, "prompt_tokens_per_second": 1e4, "tokens_per_second": 100.0}
    slow = {**fast, "load_seconds": 60.0}
    cards = [card("slow", 0, **slow), card("fast", 1.0, **fast), card("unknown", 0)]
    row = estimates(cards, [0.5, 0.5, 0.9])
    patient = decide(pool_like(cards, row), row, PROMPT, Preference(0.0))
    assert patient.choice == "unknown"
    hurried = decide(pool_like(cards, row, value_of_time=0.001), row, PROMPT, Preference(0.0))
    assert [one.model for one in hurried.candidates] == ["fast", "slow", "unknown"]
    assert hurried.warnings == (
        "speed or tokens unknown and so the cost, ranked after every model of known cost: unknown",
    )


def test_retired_models_are_marked_and_still_chosen() -> None:
    yesterday, tomorrow = (date.today() + timedelta(days=days) for days in (-1, 1))
    cards = [
        card("gone", 0, status="retired"),
        card("passed", 1.0, retires=yesterday.isoformat()),
        card("leaving", 1.0, retires=tomorrow.isoformat()),
    ]
    verdict = decided(cards, estimates(cards, [0.9, 0.5, 0.5]))
    assert verdict.choice == "gone"
    assert verdict.warnings == ("retired, may no longer answer: gone, passed",)


def test_a_warning_about_many_models_stays_short() -> None:
    cards = [CHEAP, *(card(f"u{i}", None) for i in range(40))]
    (warning,) = decided(cards, estimates(cards, [0.5] * 41)).warnings
    assert warning.endswith(": u0, u1, u2, u3, u4 and 35 more")


def test_estimates_of_other_models_are_refused() -> None:
    cards = [CHEAP, DEAR]
    row = estimates(cards, [0.5, 0.5])
    with pytest.raises(ValueError, match="not those of this pool"):
        decide(pool_like(cards, row), replace(row, models=("dear", "cheap")), PROMPT, Preference())


def test_a_thousand_models_are_decided_like_ten() -> None:
    rng = np.random.default_rng(3)
    p, price = rng.random(1000), rng.exponential(5.0, 1000)
    cards = [card(f"m{i}", value) for i, value in enumerate(price.tolist())]
    row = estimates(cards, p.tolist())
    pool = pool_like(cards, row)
    lam = pool.curve.lambda_at(0.7)
    utility = p - lam * (PROMPT.expected + 100.0) * price / 1e6
    near = np.flatnonzero(utility >= utility.max() - 0.005 - lam * pool.curve.toll)
    verdict = decide(pool, row, PROMPT, Preference(0.7))
    assert verdict.choice == f"m{near[np.argmin(price[near])]}"
    assert len(verdict.candidates) == 1000
