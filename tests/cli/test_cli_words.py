"""Numbers and tables for people: readable, never turning unknown into 0, and limits that do when typed back in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_cases import NAN, PROMPT, card, estimates, pool_like

from scope_edge.cli import format
from scope_edge.cli.format import Column
from scope_edge.cli.output import one_line
from scope_edge.cli.render.decision import infeasible, shown
from scope_edge.policy.infeasible import round_up
from scope_edge.policy.policy import decide
from scope_edge.types import BindingConstraint, Budget, Decision, EstimatorReport, Neighbor, Preference


def plainly(decision: Decision) -> str:
    return shown(decision, explain=False, width=100, value_of_time=0.0)


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_a_limit_that_would_do_does_when_typed_back_in(value: float) -> None:
    typed = float(round_up(value))
    assert typed >= value
    assert typed <= value * 1.0101 + 5e-324


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1e-8, "0.00000001"),
        (0.000084321, "0.0000844"),
        (0.5, "0.5"),
        (129.01, "130"),
        (12345.2, "12346"),
        (7.0, "7"),
    ],
)
def test_a_limit_that_would_do_is_short(value: float, text: str) -> None:
    assert round_up(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"),
        (0.0, "free"),
        (1e-12, "$1.0e-12"),
        (0.000084321, "$0.000084"),
        (0.0996, "$0.1"),
        (0.994, "$0.99"),
        (0.996, "$1.00"),
        (1234.5, "$1,234.50"),
        (1e308, "$1.0e+308"),
    ],
)
def test_dollars(value: float | None, text: str) -> None:
    assert format.usd(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"),
        (0, "0"),
        (9999.4, "9999"),
        (9999.6, "10k"),
        (123456, "123k"),
        (999600, "1M"),
        (4.2e9, "4.2G"),
        (1e308, "1.0e+308"),
    ],
)
def test_tokens(value: float | None, text: str) -> None:
    assert format.count(value) == text


def test_probabilities_never_round_to_certainty() -> None:
    assert [format.percent(p) for p in (None, 1e-9, 0.5, 0.99999)] == ["?", "<0.1", "50.0", ">99.9"]


def test_columns_line_up_also_under_wide_characters() -> None:
    lines = format.table([Column("model", ["模型", "abc"]), Column("n", ["1", "20"], right=True), Column("", ["", ""])])
    assert [format.columns_of(line) for line in lines] == [9, 9, 9]
    assert format.table_width([Column("model", ["模型", "abc"]), Column("n", ["1", "20"])]) == 9


def test_text_of_others_cannot_steer_the_terminal() -> None:
    assert one_line("a\x1b[2Jb\nc\u202ed\x00") == "a\\x1b[2Jb c\\u202ed\\x00"


def decision(cards: list[object], p: list[float], preference: Preference | None = None) -> Decision:
    """A decision of the real policy on estimates made by hand."""
    pool = tuple(cards)
    rows = estimates(pool, p)  # type: ignore[arg-type]
    preference = preference or Preference()
    verdict = decide(pool_like(pool, rows), rows, PROMPT, preference)  # type: ignore[arg-type]
    return Decision(
        choice=verdict.choice,
        where=verdict.where,
        alpha=preference.alpha,
        policy=preference.policy,
        feasible=verdict.feasible,
        bound=verdict.bound,
        over_budget=verdict.over_budget,
        estimator=EstimatorReport("prior"),
        candidates=verdict.candidates,
        neighbors=(Neighbor("anchor\x1b[1m", 0.5, "maths"),),
        flip_below=verdict.flip_below,
        flip_above=verdict.flip_above,
        truncated=True,
        degraded=("the index could not be cached",),
        warnings=verdict.warnings,
    )


def test_an_unmeasured_choice_is_not_given_a_chance() -> None:
    text = plainly(decision([card("a", 1.0)], [NAN]))
    assert "How likely it is to be right is unknown; at an unknown cost." in text
    assert "free" not in text and " 0" not in text.split("model")[1].split("\n\n")[0]


def test_an_unknown_price_is_said_to_be() -> None:
    text = plainly(decision([card("a", None)], [0.5]))
    assert "at an unknown price" in text and "free" not in text


def test_notices_are_shown() -> None:
    text = plainly(decision([card("a", 1.0)], [0.5]))
    assert "truncated:" in text and "degraded:" in text


def test_what_a_dearer_choice_would_bring_is_told() -> None:
    text = plainly(decision([card("cheap", 0), card("dear", 15.0)], [0.5, 0.9], Preference(alpha=0.0)))
    assert "50.0% likely to be right, free; the most accurate, dear, is at 90.0% but costs $0.003 more." in text


def test_a_thousand_models_do_not_fill_the_screen_unless_asked_to() -> None:
    many = decision([card(f"m{n}", float(n)) for n in range(1000)], [0.2 + n / 2000 for n in range(1000)])
    short = plainly(many)
    assert len(short.splitlines()) < 40 and "and 980 more models" in short
    assert len(shown(many, explain=True, width=100, value_of_time=0.0).splitlines()) > 1000


def test_explaining_spells_out_what_others_wrote() -> None:
    text = shown(decision([card("a", 1.0)], [0.5]), explain=True, width=100, value_of_time=0.0)
    assert "anchor\\x1b[1m" in text


def test_every_limit_has_its_words() -> None:
    assert "exclude fewer" in infeasible(BindingConstraint("exclude", None, None))
    assert "--local-only" in infeasible(BindingConstraint("local_only", None, None))
    assert infeasible(BindingConstraint("context", 8192.0, 9001.0)).startswith("too long for every model: 9001 tokens")
    assert infeasible(BindingConstraint("max_usd", 1e-8, 0.0000843217)) == (
        "no model keeps to --max-usd 1e-08; --max-usd 0.0000844 is enough"
    )
    assert "known" in infeasible(BindingConstraint("max_seconds", 1.0, None))


def test_no_choice_tells_why_first() -> None:
    none = decision([card("a", 1.0)], [0.5], Preference(budget=Budget(tokens=3)))
    assert (
        plainly(none).splitlines()[0]
        == "\x1b[1mno choice\x1b[0m: no model keeps to --max-tokens 3; --max-tokens 350 is enough"
    )
