"""Everyday asks are decided as people expect: easy ones stay on the device, hard ones go where they are answered."""

from __future__ import annotations

import pytest

from scope_edge import Router
from scope_edge.types import Decision


@pytest.fixture(scope="module")
def router() -> Router:
    return Router.load(pool="default", alpha=0.5)


def p_of(decision: Decision, model: str) -> float:
    p = next(row.p_correct for row in decision.candidates if row.model == model)
    assert p is not None
    return p


@pytest.mark.parametrize(
    "text", ["hi", "What is 2+2?", "Translate 'good morning' into Danish", "What is the capital of Australia?"]
)
def test_a_trivial_ask_stays_on_the_device(router: Router, text: str) -> None:
    decision = router.route(text)
    assert decision.where == "device"
    assert p_of(decision, "gemma-3-4b-it") > 0.7


def test_a_large_task_goes_to_the_cloud_and_takes_long(router: Router) -> None:
    decision = router.route("Write a REST API in Go with JWT auth and tests")
    assert decision.where == "cloud"
    assert decision.task == "code"
    long = next(row.tokens for row in decision.candidates if row.model == "gemma-3-4b-it")
    short = next(row.tokens for row in router.route("hi").candidates if row.model == "gemma-3-4b-it")
    assert long is not None
    assert short is not None
    assert long > 10 * short


@pytest.mark.parametrize(
    "text",
    ["Tell me tomorrow's lottery numbers", "Prove the Riemann hypothesis", "What did I have for breakfast today?"],
)
def test_what_no_model_can_know_is_not_worth_money(router: Router, text: str) -> None:
    decision = router.route(text)
    assert decision.task == "unknowable"
    assert decision.unknowable is not None
    assert decision.unknowable > 0.5
    assert decision.where == "device"
    assert all(row.p_correct is not None and row.p_correct < 0.5 for row in decision.candidates)


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("hello there", "greeting"),
        ("Translate into French: Where is the station?", "translate"),
        ("Write a Python function that reverses a list", "code"),
        ("Ideas for a birthday present for my mother", "brainstorm"),
    ],
)
def test_a_decision_says_what_is_asked_for(router: Router, text: str, task: str) -> None:
    assert router.route(text).task == task
    assert router.route(text).as_dict()["task"] == task
