"""The contest: nobody who could still be chosen is left out, and a settled decision is seen to be settled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_cases import NAN, PRICES, PROMPT, card, estimates, pool_like

from scope_edge.policy.contenders import contenders
from scope_edge.policy.policy import decide
from scope_edge.policy.utility import decision_context
from scope_edge.types import Budget, Estimates, PolicyName, Preference

CARDS = (card("free", 0.0), card("cheap", 0.5), card("dear", 10.0))
POOL = pool_like(CARDS, *(estimates(CARDS, (0.4 + d, 0.6 + d, 0.8 + d)) for d in np.linspace(-0.2, 0.15, 20)))


def contest(
    p: tuple[float, ...], reach: float | tuple[float, ...], preference: Preference, **changes: Any
) -> tuple[int, ...]:
    one = estimates(CARDS, p, **changes)
    away = np.broadcast_to(np.asarray(reach, np.float64), len(p))
    return contenders(decision_context(POOL, one, PROMPT, preference), one.p_correct - away, one.p_correct + away)


def test_with_nothing_left_open_only_the_choice_could_be_chosen() -> None:
    for alpha in (0.0, 0.3, 0.7, 1.0):
        one = estimates(CARDS, (0.4, 0.6, 0.8))
        choice = decide(POOL, one, PROMPT, Preference(alpha=alpha)).choice
        assert [CARDS[i].id for i in contest((0.4, 0.6, 0.8), 0.0, Preference(alpha=alpha))] == [choice]


def test_at_the_cheap_end_nothing_is_worth_finding_out() -> None:
    assert contest((0.4, 0.6, 0.8), 0.3, Preference(alpha=0.0)) == (0,)


def test_at_the_accurate_end_whoever_could_be_most_accurate_is_in_best_first() -> None:
    assert contest((0.4, 0.6, 0.8), 0.15, Preference(alpha=1.0)) == (2, 1)
    assert contest((0.4, 0.6, 0.8), 0.25, Preference(alpha=1.0)) == (2, 1, 0)
    assert contest((0.4, 0.7, 0.6), (0.0, 0.0, 0.3), Preference(alpha=1.0)) == (2, 1)


def test_limits_shut_out() -> None:
    accurate = Preference(alpha=1.0)
    assert contest((0.4, 0.6, 0.8), 0.3, replace(accurate, exclude=("dear",))) == (1, 0)
    assert contest((0.4, 0.6, 0.8), 0.3, replace(accurate, local_only=True)) == (0,)
    assert contest((0.4, 0.6, 0.8), 0.3, replace(accurate, budget=Budget(usd=0.0005))) == (1, 0)
    assert contest((0.4, 0.6, 0.8), 0.3, replace(accurate, budget=Budget(tokens=1))) == ()
    assert contest((0.4, 0.6, 0.8), 0.3, replace(accurate, budget=Budget(tokens=1), fallback="cheapest")) == (0,)


def test_an_unmeasured_model_is_in_only_when_nothing_measured_is() -> None:
    assert contest((NAN, 0.6, 0.8), 0.3, Preference(alpha=1.0)) == (2, 1)
    alone = replace(Preference(alpha=1.0), exclude=("cheap", "dear"))
    assert contest((NAN, 0.6, 0.8), 0.3, alone) == (0,)


def test_a_large_pool_is_weighed_in_parts_and_as_a_whole_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    preference = Preference(alpha=0.8)
    whole = contest((0.5, 0.6, 0.7), 0.2, preference)
    monkeypatch.setattr("scope_edge.policy.contenders._CELLS", 3)
    assert contest((0.5, 0.6, 0.7), 0.2, preference) == whole


@st.composite
def worlds(draw: st.DrawFn) -> tuple[tuple[Any, ...], Estimates, np.ndarray, np.ndarray, Preference]:
    n = draw(st.integers(1, 6))
    cards = tuple(card(f"m{i}", draw(PRICES)) for i in range(n))
    chance = st.one_of(st.floats(0.02, 0.98), st.just(NAN))
    ends = [sorted((draw(st.floats(0.02, 0.98)), draw(st.floats(0.02, 0.98)))) for _ in range(n)]
    p = [draw(chance) for _ in range(n)]
    low = np.array([min(a, x) if x == x else NAN for (a, _), x in zip(ends, p, strict=True)])
    high = np.array([max(b, x) if x == x else NAN for (_, b), x in zip(ends, p, strict=True)])
    policies: tuple[PolicyName, ...] = ("scope-edge", "paper")
    policy = draw(st.sampled_from(policies))
    alpha = draw(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]))
    return cards, estimates(cards, p), low, high, Preference(alpha=alpha, policy=policy)


@given(worlds(), st.randoms(use_true_random=False))
def test_whatever_p_turns_out_to_be_the_choice_was_a_contender_or_a_near_tie(world: Any, random: Any) -> None:
    cards, one, low, high, preference = world
    pool = pool_like(cards, one, estimates(cards, [0.5] * len(cards)))
    found = contenders(decision_context(pool, one, PROMPT, preference), low, high)
    assert len(set(found)) == len(found) >= 1
    settled = np.array([a + (b - a) * random.random() for a, b in zip(low, high, strict=True)])
    verdict = decide(pool, replace(one, p_correct=settled), PROMPT, preference)
    assert verdict.choice is not None
    chosen = one.models.index(verdict.choice)
    if chosen in found:
        return
    # Only the rule for near ties can let a model in that no extreme favours: it gives way to a cheaper one there.
    by_model = {row.model: row for row in verdict.candidates}
    best = max(by_model[one.models[i]].utility or -np.inf for i in found)
    assert preference.policy == "scope-edge" and abs((by_model[verdict.choice].utility or 0.0) - best) <= 0.0101
