"""What pictures and terminal text are made of: a cost axis with room for free, names that stay apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_edge.evaluation.plots.canvas import line_of
from scope_edge.evaluation.plots.curve import CostScale
from scope_edge.evaluation.plots.names import distinct, dollars, plain, shortened

COSTS = st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e6)), min_size=1, max_size=12)


@given(COSTS, COSTS)
def test_dearer_is_further_right_and_free_is_left_of_all(models: list[float], others: list[float]) -> None:
    scale = CostScale.of(models, others)
    costs = sorted({*models, *others})
    places = [scale.place(usd) for usd in costs]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)
    if costs[0] == 0 and len(costs) > 1:
        assert places[0] == 0 < places[1]


@given(COSTS)
def test_ticks_are_few_and_where_their_cost_lies(models: list[float]) -> None:
    scale = CostScale.of(models)
    ticks = scale.ticks()
    assert len(ticks) <= 9
    assert [place for place, _ in ticks] == sorted({place for place, _ in ticks})
    assert (ticks[:1] == [(0.0, "free")]) == (0.0 in models)


@given(st.lists(st.text(max_size=60), max_size=12, unique=True), st.integers(12, 40))
def test_names_are_told_apart_and_fit(names: list[str], width: int) -> None:
    shown = distinct(names, width)
    assert list(shown) and set(shown) == set(names) if names else not shown
    assert len(set(shown.values())) == len(names)
    assert all(len(text) <= width and text.isprintable() for text in shown.values())


def test_names_that_differ_in_the_middle_show_where() -> None:
    names = [f"some-vendor-model-{size}b-instruct-fp8-2024-08-06" for size in (7, 70)]
    first, second = distinct(names, 24).values()
    assert "7b" in first and "70b" in second


def test_a_name_cannot_steer_a_terminal() -> None:
    assert plain("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert shortened("qwen2.5-72b-instruct", 12) == "qwen2..truct"


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (None, "?"),
        (0.0, "free"),
        (4e-7, "$4e-07"),
        (0.0044, "$0.0044"),
        (0.1, "$0.10"),
        (0.9949, "$0.99"),
        (1.0, "$1"),
        (1.52, "$1.52"),
        (99.4, "$99.40"),
        (1234.5, "$1,234"),
    ],
)
def test_dollars_are_short_and_unknown_is_not_free(usd: float | None, text: str) -> None:
    assert dollars(usd) == text


def test_routers_keep_their_lines() -> None:
    known = ("scope-edge", "scope-paper", "knn5", "knn", "logreg", "svm", "mlp", "gboost")
    assert len({str(line_of(router)) for router in known}) == len(known)
    assert line_of("of-my-own") == line_of("of-my-own")
