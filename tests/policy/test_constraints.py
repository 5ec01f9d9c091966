"""Hard limits, and what is said when nothing keeps to them."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_cases import NAN, PROMPT, card, cases, estimates, pool_like

from scope_edge.errors import UsageError
from scope_edge.policy import constraints
from scope_edge.policy.infeasible import explain_infeasible
from scope_edge.policy.policy import decide
from scope_edge.policy.utility import PolicyPool
from scope_edge.types import BindingConstraint, Budget, Estimates, LeftOut, ModelCard, PolicyDecision, Preference

LOCAL = card("local", 0, load_seconds=2.0, prompt_tokens_per_second=100.0, tokens_per_second=10.0)
CHEAP, DEAR = card("cheap", 1.0), card("dear", 10.0)
SMALL = card("small", 1.0, context_tokens=300)
BUDGETS = st.builds(
    Budget,
    tokens=st.none() | st.integers(0, 6000),
    usd=st.none() | st.floats(0, 0.1),
    seconds=st.none() | st.floats(0, 100),
)
Case = tuple[tuple[ModelCard, ...], PolicyPool, Estimates]


def decided(cards: list[ModelCard], row: Estimates, **wishes: object) -> PolicyDecision:
    return decide(pool_like(cards, row), row, PROMPT, Preference(**wishes))  # type: ignore[arg-type]


def reasons(verdict: PolicyDecision) -> dict[str, str | None]:
    return {one.model: one.excluded_by for one in verdict.candidates}


@given(cases(), BUDGETS, st.booleans(), st.floats(0, 1))
def test_a_choice_keeps_to_every_limit_at_its_upper_bounds(
    case: Case, budget: Budget, local_only: bool, alpha: float
) -> None:
    _, pool, row = case
    verdict = decide(pool, row, PROMPT, Preference(alpha, budget, local_only, exclude=("m0",)))
    names = {one.model: one for one in verdict.candidates}
    if verdict.choice is None:
        assert not verdict.feasible
        assert all(
            one.excluded_by in ("exclude", "local_only", "cannot_load", "context", *constraints.BUDGETS)
            for one in verdict.candidates
        )
        return
    chosen = names[verdict.choice]
    assert verdict.choice == verdict.candidates[0].model != "m0"
    assert chosen.excluded_by is None
    assert not local_only or verdict.where == "device"
    if budget.tokens is not None:
        assert chosen.tokens_hi is not None
        assert PROMPT.high + chosen.tokens_hi <= budget.tokens
    if budget.usd is not None:
        assert chosen.usd_hi is not None
        assert chosen.usd_hi <= budget.usd
    assert budget.seconds is None  # no card of these pools knows its speed, and unknown never keeps to a limit


@given(cases(), BUDGETS, st.booleans())
def test_what_a_bound_asks_for_makes_a_choice_possible_and_anything_less_does_not(
    case: Case, budget: Budget, local_only: bool
) -> None:
    _, pool, row = case
    wish = Preference(budget=budget, local_only=local_only)
    verdict = decide(pool, row, PROMPT, wish)
    bound = verdict.bound
    assert (bound is None) == verdict.feasible
    if bound is None or bound.needed is None or any("not enough" in line for line in verdict.warnings):
        return
    field = bound.limit.removeprefix("max_")
    assert bound.value == getattr(budget, field) < bound.needed
    assert decide(pool, row, PROMPT, replace(wish, budget=replace(budget, **{field: bound.needed}))).feasible
    less = bound.needed - 1 if field == "tokens" else bound.needed * (1 - 1e-9)
    assert not decide(pool, row, PROMPT, replace(wish, budget=replace(budget, **{field: less}))).feasible


def test_each_limit_names_itself() -> None:
    cards = [LOCAL, CHEAP, DEAR, SMALL, card("unpriced", None), card("named", 1.0)]
    row = estimates(cards, [0.5] * 6, [100, 100, 100, 100, 100, 100])
    told = reasons(decided(cards, row, exclude=("named",), budget=Budget(usd=0.001)))
    assert told == {
        "local": None,
        "cheap": None,
        "dear": "max_usd",
        "small": "context",
        "unpriced": "max_usd",
        "named": "exclude",
    }
    assert set(reasons(decided(cards, row, local_only=True)).values()) == {None, "local_only"}
    assert reasons(decided(cards, row, budget=Budget(seconds=30)))["local"] is None
    assert reasons(decided(cards, row, budget=Budget(seconds=20)))["local"] == "max_seconds"
    assert reasons(decided(cards, row, budget=Budget(seconds=30)))["cheap"] == "max_seconds"
    assert reasons(decided(cards, row, budget=Budget(tokens=350)))["cheap"] is None
    assert reasons(decided(cards, row, budget=Budget(tokens=349)))["cheap"] == "max_tokens"


@pytest.mark.parametrize("fallback", ["none", "cheapest"])
@pytest.mark.parametrize("policy", ["scope-edge", "paper"])
def test_what_cannot_be_loaded_is_never_chosen_and_it_is_said_why(fallback: str, policy: str) -> None:
    cards = [LOCAL, DEAR]
    row = estimates(cards, [0.99, 0.1])
    stuck = replace(pool_like(cards, row), unloadable={"local": "no file there"})
    for alpha in (0.0, 0.5, 1.0):
        verdict = decide(stuck, row, PROMPT, Preference(alpha, fallback=fallback, policy=policy))  # type: ignore[arg-type]
        assert verdict.choice == "dear" and reasons(verdict) == {"local": "cannot_load", "dear": None}
        assert "local cannot be loaded: no file there" in verdict.warnings
    alone = decide(stuck, row, PROMPT, Preference(exclude=("dear",), fallback=fallback))  # type: ignore[arg-type]
    assert alone.choice is None and alone.bound == BindingConstraint("exclude", None, None)
    nothing = replace(pool_like([LOCAL], only := estimates([LOCAL], [0.9])), unloadable={"local": "no room"})
    verdict = decide(nothing, only, PROMPT, Preference(fallback=fallback))  # type: ignore[arg-type]
    assert verdict.choice is None and verdict.bound == BindingConstraint("cannot_load", None, None)


def test_tokens_are_limited_in_the_models_own_tokens() -> None:
    cards = [card("plain", 1.0), card("wordy", 1.0, token_factor=2.0)]
    told = reasons(decided(cards, estimates(cards, [0.5, 0.5]), budget=Budget(tokens=350)))
    assert told == {"plain": None, "wordy": "max_tokens"}


def test_a_budget_of_zero_leaves_what_is_free() -> None:
    cards = [DEAR, LOCAL]
    verdict = decided(cards, estimates(cards, [0.9, 0.1]), budget=Budget(usd=0.0), alpha=1.0)
    assert verdict.choice == "local"
    nothing = decided(cards, estimates(cards, [0.9, 0.1]), budget=Budget(tokens=0))
    assert nothing.bound == BindingConstraint("max_tokens", 0.0, 350.0)


def test_the_tokens_a_bound_asks_for_are_whole() -> None:
    verdict = decided([CHEAP], estimates([CHEAP], [0.5], 100.2), budget=Budget(tokens=100))
    assert verdict.bound == BindingConstraint("max_tokens", 100.0, 351.0)


def test_a_huge_budget_is_no_limit_for_what_is_known() -> None:
    cards = [CHEAP, card("unpriced", None)]
    told = reasons(decided(cards, estimates(cards, [0.5, 0.6]), budget=Budget(usd=1e308)))
    assert told == {"cheap": None, "unpriced": "max_usd"}


def test_unknown_tokens_keep_to_no_token_budget_but_only_the_prompt_counts_against_the_context() -> None:
    cards = [card("unmeasured", 0, context_tokens=200)]
    row = estimates(cards, [NAN])
    assert reasons(decided(cards, row, budget=Budget(tokens=10**9))) == {"unmeasured": "max_tokens"}
    assert reasons(decided(cards, row)) == {"unmeasured": None}
    tight = [card("unmeasured", 0, context_tokens=149)]
    verdict = decided(tight, estimates(tight, [NAN]))
    assert reasons(verdict) == {"unmeasured": "context"}
    assert verdict.bound == BindingConstraint("context", 149.0, 150.0)


def test_the_limit_to_blame_is_the_one_that_has_to_give_way_least() -> None:
    cards = [LOCAL, DEAR]
    row = estimates(cards, [0.5, 0.9], [100, 100])
    # LOCAL would need 23.5 of 20 seconds; DEAR would need seconds that nobody knows.
    verdict = decided(cards, row, budget=Budget(usd=0.001, seconds=20))
    assert verdict.choice is None
    assert verdict.bound == BindingConstraint("max_seconds", 20.0, pytest.approx(23.5))
    # DEAR would need $0.0035 of $0.003; for LOCAL the limit that is not a number would have to go.
    verdict = decided(cards, row, budget=Budget(usd=0.003), exclude=("local",))
    assert verdict.bound == BindingConstraint("max_usd", 0.003, pytest.approx(0.0035))
    verdict = decided([DEAR], estimates([DEAR], [0.9]), local_only=True)
    assert verdict.bound == BindingConstraint("local_only", None, None)
    verdict = decided([DEAR], estimates([DEAR], [0.9]), exclude=("dear",))
    assert verdict.bound == BindingConstraint("exclude", None, None)


def test_a_price_nobody_knows_is_blamed_without_a_figure() -> None:
    cards = [card("unpriced", None)]
    assert decided(cards, estimates(cards, [0.9]), budget=Budget(usd=5.0)).bound == BindingConstraint(
        "max_usd", 5.0, None
    )


def test_when_no_single_limit_would_do_it_says_so() -> None:
    verdict = decided([DEAR], estimates([DEAR], [0.9]), budget=Budget(tokens=10, usd=0.0001))
    assert verdict.bound == BindingConstraint("max_tokens", 10.0, 350.0)
    assert any("max_tokens alone is not enough" in line and "max_usd" in line for line in verdict.warnings)


def test_fallback_chooses_the_cheapest_and_flags_it() -> None:
    cards = [DEAR, CHEAP, SMALL, card("named", 0.1)]
    row = estimates(cards, [0.9, 0.5, 0.9, 0.9])
    verdict = decided(cards, row, budget=Budget(usd=1e-9), exclude=("named",), fallback="cheapest", alpha=1.0)
    assert (verdict.choice, verdict.where, verdict.feasible, verdict.over_budget) == ("cheap", "cloud", False, True)
    assert [one.model for one in verdict.candidates[:2]] == ["cheap", "dear"]
    assert verdict.bound is not None
    assert verdict.bound.limit == "max_usd"
    assert (verdict.flip_below, verdict.flip_above) == (None, None)


def test_fallback_lifts_budgets_only() -> None:
    cards = [DEAR, SMALL]
    row = estimates(cards, [0.9, 0.9])
    verdict = decided(cards, row, exclude=("dear",), fallback="cheapest")
    assert (verdict.choice, verdict.over_budget) == (None, False)
    assert decided([DEAR], estimates([DEAR], [0.9]), local_only=True, fallback="cheapest").choice is None


def test_fallback_changes_nothing_when_a_model_keeps_to_the_limits() -> None:
    cards = [CHEAP, DEAR]
    row = estimates(cards, [0.5, 0.9])
    budget = Budget(usd=0.001)
    assert decided(cards, row, budget=budget, fallback="cheapest") == decided(cards, row, budget=budget)


@pytest.mark.parametrize("alpha", [NAN, -0.1, 1.1, float("inf")])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(UsageError, match="alpha must be from 0"):
        decided([CHEAP], estimates([CHEAP], [0.5]), alpha=alpha)


@pytest.mark.parametrize(
    ("budget", "name"),
    [(Budget(tokens=-1), "max_tokens"), (Budget(usd=NAN), "max_usd"), (Budget(seconds=-0.1), "max_seconds")],
)
def test_a_negative_budget_is_refused(budget: Budget, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be 0 or more"):
        decided([CHEAP], estimates([CHEAP], [0.5]), budget=budget)


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(UsageError, match="the pool is empty"):
        decided([], estimates([], []))


def test_no_fallback_lifts_the_ceiling() -> None:
    cards = [DEAR, CHEAP]
    row = estimates(cards, [0.9] * len(cards))
    free = decided(cards, row, budget=Budget(usd=1e-9), fallback="cheapest")
    assert free.over_budget
    bound = decided(cards, row, budget=Budget(usd=1e-9), ceiling=Budget(usd=1e-9), fallback="cheapest")
    assert bound.choice is None and bound.bound is not None and bound.bound.limit == "max_usd"
    wide = decided(cards, row, budget=Budget(usd=1e-9), ceiling=Budget(usd=1e9), fallback="cheapest")
    assert wide.over_budget and wide.choice == free.choice


@pytest.mark.parametrize("why", get_args(LeftOut))
def test_models_that_are_left_out_are_blamed_on_no_limit(why: LeftOut) -> None:
    cards = [LOCAL, CHEAP, DEAR]
    row = estimates((LOCAL, CHEAP, DEAR), p=(0.5, 0.6, 0.7), tokens=(100, 100, 100))
    left_out = (("local", why), ("dear", why))
    verdict = decided(cards, row, left_out=left_out)
    assert verdict.choice == "cheap" and reasons(verdict) == {"cheap": None, "local": why, "dear": why}
    # An unknown speed keeps to no limit: nothing else would have to give way, and still it is the limit that bound.
    for fallback in ("none", "cheapest"):
        verdict = decided(cards, row, left_out=left_out, budget=Budget(seconds=1.0), fallback=fallback)
        assert verdict.bound == BindingConstraint("max_seconds", 1.0, None) and verdict.choice in (None, "cheap")
    verdict = decided(cards, row, left_out=left_out, exclude=("cheap", "dear"))
    assert verdict.bound is not None and verdict.bound.limit == "exclude"
    assert reasons(verdict) == {"cheap": "exclude", "local": why, "dear": "exclude"}
    verdict = decided(cards, row, left_out=(*left_out, ("cheap", why)), fallback="cheapest")
    assert verdict.choice is None and verdict.bound == BindingConstraint(why, None, None)
    assert "exclude" not in explain_infeasible(verdict.bound)
