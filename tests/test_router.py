"""The whole flow with everything real: what a decision carries, and that it depends on its query alone."""

from __future__ import annotations

import pytest

from scope_edge.assemble import load_flow
from scope_edge.config import Settings, load_settings
from scope_edge.errors import UsageError
from scope_edge.records import Budget, Decision, Preference, Query
from scope_edge.router import MAX_QUERY_CHARACTERS, Flow, check_query

TEXTS = (
    "What is 12 times 12?",
    "Prove that the square root of 2 is irrational.",
    "Who painted Guernica?",
    "def f(x): return x",
)


@pytest.fixture(scope="module")
def flow() -> Flow:
    return load_flow(Settings())


def without_times(decision: Decision) -> dict[str, object]:
    return {key: value for key, value in decision.as_dict().items() if key != "timings_ms"}


def test_a_decision_carries_every_candidate_with_its_numbers(flow: Flow) -> None:
    decision = flow.route(Query(TEXTS[0]), Preference())
    assert decision.feasible
    assert {c.model for c in decision.candidates} == {card.id for card in flow.pool}
    assert decision.choice == decision.candidates[0].model
    for candidate in decision.candidates:
        assert candidate.p_correct is not None
        assert candidate.usd_hi >= candidate.usd >= 0  # type: ignore[operator]
    assert len(decision.neighbors) == 10
    assert {"encode", "index", "estimate", "policy"} == set(decision.timings_ms)


def test_cheapest_stays_on_the_device_and_dearest_is_most_accurate(flow: Flow) -> None:
    for text in TEXTS:
        cheap, best = (flow.route(Query(text), Preference(alpha=a)) for a in (0.0, 1.0))
        assert cheap.where == "device"
        top = max(c.p_correct or 0 for c in best.candidates)
        assert best.candidates[0].p_correct >= top - 0.005  # type: ignore[operator]


def test_many_at_once_are_decided_as_one_by_one(flow: Flow) -> None:
    requests = [(Query(text, id=str(i)), Preference(alpha=i / 11)) for i, text in enumerate(TEXTS * 3)]
    together = [without_times(decision) for _, decision in flow.decide_many(iter(requests))]
    assert together == [without_times(flow.route(*request)) for request in requests]


def test_the_flip_says_what_another_alpha_would_choose(flow: Flow) -> None:
    decision = flow.route(Query(TEXTS[1]), Preference(alpha=0.5))
    for flip in filter(None, (decision.flip_below, decision.flip_above)):
        assert flow.route(Query(TEXTS[1]), Preference(alpha=flip.alpha)).choice == flip.model != decision.choice


def test_a_tight_budget_is_kept_or_said_to_be_impossible(flow: Flow) -> None:
    local = flow.route(Query(TEXTS[1]), Preference(alpha=1.0, budget=Budget(usd=0.0)))
    assert local.where == "device"
    nothing = flow.route(Query(TEXTS[1]), Preference(budget=Budget(tokens=0)))
    assert (nothing.choice, nothing.feasible) == (None, False)
    assert nothing.bound is not None
    enough = flow.route(Query(TEXTS[1]), Preference(budget=Budget(tokens=int(nothing.bound.needed or 0) + 1)))
    assert enough.feasible


def test_the_papers_policy_runs_on_slices(flow: Flow) -> None:
    decision = flow.route(Query(TEXTS[1]), Preference(policy="paper"))
    assert decision.policy == "paper"
    assert decision.choice is not None


def test_no_neighbors_asked_none_given(flow: Flow) -> None:
    assert flow.route(Query(TEXTS[0]), Preference(), top_k=0).neighbors == ()


@pytest.mark.parametrize("text", ["", "   \n\t ", "\0\0", " " * 100_000, "\u2003\u3000"])
def test_a_blank_query_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="blank"):
        check_query(Query(text))


def test_an_oversized_query_is_refused_with_its_size() -> None:
    with pytest.raises(UsageError, match="characters"):
        check_query(Query("x" * (MAX_QUERY_CHARACTERS + 1)))


def test_a_long_text_is_routed_and_said_to_be_truncated(flow: Flow) -> None:
    decision = flow.route(Query("A long report. " * 70_000), Preference())
    assert decision.truncated
    # A million characters fit no small context window: the models that cannot hold them are ruled out by name.
    assert any(c.excluded_by == "context" for c in decision.candidates)


def test_a_pool_of_one_and_an_unknown_pool(tmp_path) -> None:  # type: ignore[no-untyped-def]
    alone = load_flow(load_settings({"pool": "gemma-2-2b-it"}))
    assert alone.route(Query(TEXTS[0]), Preference(alpha=1.0)).choice == "gemma-2-2b-it"
    with pytest.raises(UsageError, match="nosuchpool"):
        load_flow(load_settings({"pool": "nosuchpool"}))
