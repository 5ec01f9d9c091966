"""A right answer is right however it is dressed; two answers, another unit or another letter are not."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_edge.fingerprinting.grading import AnchorSpec, grade, prompt_of
from scope_edge.fingerprinting.grading.grade import obeys
from scope_edge.fingerprinting.grading.numbers import read_number

OPTIONS = ("vitamin A", "vitamin C", "the gas constant", "a B cell")
CHOICE = AnchorSpec("c", "f", 1, "choice", "Which one?", "B", options=OPTIONS)


def spec(kind: Any, key: str, **more: Any) -> AnchorSpec:
    return AnchorSpec("one", "field", 1, kind, "What is it?", key, **more)


LENGTH = spec("number", "1500", units=(("m", 1.0), ("km", 1000.0)), relative=0.001)
SHARE = spec("number", "25", units=(("%", 1.0),))
PLAIN = spec("number", "0.25")
TINY = spec("number", "1.1e-10", relative=0.02)
CITY = spec("short", "Ouagadougou", accept=("Wagadugu",))


@pytest.mark.parametrize(
    "reply",
    [
        "B",
        "b",
        "(B)",
        "B.",
        "**B**",
        "B) vitamin C",
        "(B) vitamin C",
        "B. vitamin C.",
        "B: vitamin C",
        "B - vitamin C",
        "Option B",
        "vitamin C",
        "Vitamin C.",
        "Answer: B",
        "answer: b",
        "**Answer:** B",
        "**Answer: B**",
        "## Answer: B",
        "Answer:\n\nB",
        "Answer: **(B) vitamin C**",
        "The answer is (B).",
        "The correct answer is B",
        "The correct option is (B) vitamin C.",
        "So \\boxed{B}.",
        "$\\boxed{\\text{B}}$",
        "The answer is \\boxed{B}",
        "At first I thought the answer is A.\nBut no.\nAnswer: B",
        "Answer: A\n\nWait, that is wrong.\n\nAnswer: B",
        "<think>Answer: C</think>B",
        "Answer: C</think>\nAnswer: B",
        "(A) is out, (C) is out.\n\nAnswer: B",
        "Answer: B\n\nScurvy is cured by it, while (A) and (D) have nothing to do with it.",
        "(B)\n\nThis one cures scurvy.",
        "(A) vitamin A\n(B) vitamin C\n(C) the gas constant\n(D) a B cell\n\nAnswer: B",
        "Answer:\u00a0B",
        "```\nAnswer: B\n```",
    ],
)
def test_a_right_choice_is_right_however_it_is_dressed(reply: str) -> None:
    assert grade(CHOICE, reply) == 1.0


@pytest.mark.parametrize(
    "reply",
    [
        "A",
        "Answer: C",
        "Answer: A or B",
        "Answer: B or C",
        "Answer: B and D",
        "Answer: B, C",
        "(B) or (C)",
        "Answer: (A) vitamin C",
        "Answer: B (the gas constant)",
        "B) the gas constant",
        "Answer: none of them",
        "Answer: all of the above",
        "Answer: BC",
        "Answer: E",
        "\\boxed{B}\nNo: \\boxed{C}",
        "Answer: B\nAnswer: C",
        "A vitamin, I think",
        "It could be A, B, C or D.",
        "The answer depends on many things.",
        "Be careful!",
    ],
)
def test_another_choice_or_two_of_them_are_wrong(reply: str) -> None:
    assert grade(CHOICE, reply) == 0.0


@given(
    st.sampled_from("ABCD"),
    st.sampled_from(["", "**", "`", '"', "$"]),
    st.sampled_from(["", "(", "["]),
    st.sampled_from(["Answer: ", "The answer is ", "**Final answer:** ", "Hence:\n\nanswer: "]),
    st.sampled_from(["", ".", "\n", " \n\nI hope this helps!"]),
)
def test_every_dressing_names_the_same_letter(letter: str, mark: str, bracket: str, lead: str, tail: str) -> None:
    closing = {"": "", "(": ")", "[": "]"}[bracket]
    reply = f"Some thoughts about it.\n{lead}{mark}{bracket}{letter}{closing}{mark}{tail}"
    assert grade(CHOICE, reply) == float(letter == "B"), reply


@pytest.mark.parametrize(
    ("one", "reply"),
    [
        (LENGTH, "1500"),
        (LENGTH, "1,500"),
        (LENGTH, "1 500 m"),
        (LENGTH, "1\u202f500\u00a0m"),
        (LENGTH, "1'500 m"),
        (LENGTH, "1_500"),
        (LENGTH, "1.5 km"),
        (LENGTH, "1,5 km"),
        (LENGTH, "**1500 m**"),
        (LENGTH, "Answer: 1500.0 m."),
        (LENGTH, "Answer: $1500\\,\\text{m}$"),
        (LENGTH, "Answer: \\boxed{1{,}500}"),
        (LENGTH, "Answer: 1.5 × 10^3 m"),
        (LENGTH, "Answer: 1.5\\times 10^{3}"),
        (LENGTH, "Answer: 1.5×10³ m"),
        (LENGTH, "Answer: 1.5e3"),
        (LENGTH, "Answer: d = v·t = 1500 m"),
        (LENGTH, "Answer: about 1500.4"),
        (LENGTH, "Answer: ≈ 1500 m (0.93 miles)"),
        (LENGTH, "After 30 s at 50 m/s, the way is 30 · 50.\n\nAnswer: 1500"),
        (LENGTH, "It runs 1500 m"),
        (SHARE, "25 %"),
        (SHARE, "25%"),
        (SHARE, "25\\%"),
        (SHARE, "25"),
        (PLAIN, "1/4"),
        (PLAIN, "\\frac{1}{4}"),
        (PLAIN, "$\\dfrac{1}{4}$"),
        (PLAIN, "¼"),
        (PLAIN, ".25"),
        (PLAIN, "0,25"),
        (PLAIN, "25 %"),
        (PLAIN, "2.5e-1"),
        (TINY, "1.1 × 10⁻¹⁰"),
        (TINY, "1.1 x 10^-10 mol/L"),
        (TINY, "1.1 \\cdot 10^{-10}"),
        (TINY, "1.10E-10"),
        (spec("number", "-9071"), "−9,071"),
        (spec("number", "-9071"), "Answer: –9071"),
        (spec("number", "3/2"), "1 1/2"),
        (spec("number", "7"), "seven"),
        (spec("number", "7"), "Answer: Seven."),
        (spec("number", "7"), "7 apples"),
        (spec("number", "34.40"), "$34.40"),
        (spec("number", "34.40"), "€34.4"),
    ],
)
def test_a_number_is_right_however_it_is_written(one: AnchorSpec, reply: str) -> None:
    assert grade(one, reply) == 1.0


@pytest.mark.parametrize(
    ("one", "reply"),
    [
        (LENGTH, "1500 km"),
        (LENGTH, "1500 kg"),
        (LENGTH, "1500 s"),
        (LENGTH, "1.5"),
        (LENGTH, "15000"),
        (LENGTH, "-1500"),
        (LENGTH, "1499 or 1500"),
        (LENGTH, "between 1400 and 1600"),
        (LENGTH, "1400, 1500"),
        (LENGTH, "Answer: 1500\nNo, wait.\nAnswer: 1400"),
        (LENGTH, "no number at all"),
        (LENGTH, "1503"),
        (SHARE, "0.25"),
        (PLAIN, "25"),
        (PLAIN, "0.2500001"),
        (PLAIN, "1/0"),
        (TINY, "1.1 × 10^10"),
        (TINY, "1e99999"),
        (spec("number", "2673"), "2674"),
        (spec("number", "9007199254740993"), "9007199254740992"),
        (spec("number", "7"), "seventeen"),
    ],
)
def test_another_number_or_unit_is_wrong(one: AnchorSpec, reply: str) -> None:
    assert grade(one, reply) == 0.0


@given(st.fractions(max_denominator=10**6))
def test_a_fraction_reads_as_itself(value: Fraction) -> None:
    assert read_number(str(value), {}) == value


@given(st.integers(-(10**15), 10**15), st.sampled_from([",", "_", "\u00a0"]))
def test_thousands_separators_change_nothing(value: int, mark: str) -> None:
    assert grade(spec("number", str(value)), f"Answer: {value:,}".replace(",", mark)) == 1.0


@given(st.floats(min_value=1e-200, max_value=1e200), st.sampled_from(["{}", "**{}**", "${}$", "x = {}", "{}."]))
def test_any_number_survives_its_dressing(value: float, dressing: str) -> None:
    key = spec("number", repr(value), relative=1e-9)
    assert grade(key, dressing.format(repr(value))) == 1.0
    assert grade(key, dressing.format(repr(value * 1.01))) == 0.0


@pytest.mark.parametrize(
    "reply",
    [
        "Ouagadougou",
        "ouagadougou.",
        "**Ouagadougou**",
        "Answer: Wagadugu",
        "The capital is Ouagadougou.",
        "Answer: Ouagadougou (Burkina Faso)",
        "Answer: Ouagadougou, which lies on the Mossi plateau",
        "The answer is **Ouagadougou**, because it is the seat of government.",
        "\\boxed{\\text{Ouagadougou}}",
        "It is not Bamako.\n\nAnswer: the Ouagadougou",
        "Answer: Ouagadougou\n\nBamako is the capital of Mali.",
    ],
)
def test_a_short_answer_is_right_however_it_is_dressed(reply: str) -> None:
    assert grade(CITY, reply) == 1.0


@pytest.mark.parametrize(
    "reply", ["Bamako", "Ouagadougou or Bamako", "Answer: Bamako, not Ouagadougou", "Ouagadougous"]
)
def test_another_short_answer_is_wrong(reply: str) -> None:
    assert grade(CITY, reply) == 0.0


def test_capitals_count_where_they_mean_something() -> None:
    cobalt = spec("short", "Co", exact=True)
    assert grade(cobalt, "Answer: `Co`") == 1.0
    assert grade(cobalt, "Answer: CO") == 0.0
    assert grade(spec("short", "São Tomé"), "Answer: Sao Tome") == 1.0
    assert grade(spec("short", "H2SO4"), "Answer: H₂SO₄") == 1.0


OBJECT = spec("json", '{"name": "Priya", "people": 4, "days": [1, 2.5], "late": false}')


@pytest.mark.parametrize(
    "reply",
    [
        OBJECT.key,
        '{"late": false, "days": [1.0, 2.5], "people": 4.0, "name": "Priya"}',
        f"```json\n{OBJECT.key}\n```",
        f"Let me see, {{this}} is it:\n\n```\n{OBJECT.key}\n```\nDone.",
        f"First {{}} and then the final object: {OBJECT.key}",
        f"<think>{{}}</think>{OBJECT.key}",
        json.dumps(json.loads(OBJECT.key), indent=4),
    ],
)
def test_json_is_compared_by_what_it_says(reply: str) -> None:
    assert grade(OBJECT, reply) == 1.0


@pytest.mark.parametrize(
    "reply",
    [
        "{}",
        OBJECT.key.replace("4", '"4"'),
        OBJECT.key.replace("Priya", "priya"),
        OBJECT.key.replace("[1, 2.5]", "[2.5, 1]"),
        OBJECT.key.replace("false", "0"),
        OBJECT.key.replace("false", "null"),
        OBJECT.key[:-1],
        OBJECT.key[:-1] + ', "more": 1}',
        OBJECT.key[:-1] + ', "name": "Priya"}',
        f"{OBJECT.key}\n{{}}",
        f"[{OBJECT.key}]",
        "[" * 30_000,
        '{"a":' * 5_000,
        '{"people": NaN}',
    ],
)
def test_other_or_broken_json_is_wrong(reply: str) -> None:
    assert grade(OBJECT, reply) == 0.0


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ({"words": 3}, "It's well-known, Rosa!", "It is well known."),
        ({"words": (2, 3)}, "two words", "one"),
        ({"lines": 2}, "a\n\nb", "a"),
        ({"sentences": 2}, 'One is 3. "Two!"', "One. Two. And"),
        ({"paragraphs": 2}, "a\nb\n \nc", "a\nb"),
        ({"characters": (1, 3)}, "abc", "abcd"),
        ({"words_each_line": 2}, "a b\nc d", "a b\nc"),
        ({"words_by_line": (1, 2)}, "a\nb c", "a b\nc"),
        ({"word_lengths": (1, 2)}, "I am", "I was"),
        ({"times": {"shall": 2}}, "Shall we? We shall.", "We shall marshall."),
        ({"require": ("heat",)}, "Heat!", "wheat"),
        ({"require_any": ("a", "b")}, "b", "c"),
        ({"forbid": ("you",)}, "your", "You!"),
        ({"forbid_characters": "e"}, "a dark storm", "thE sea"),
        ({"only_words": ("a", "b")}, "A b", "a c"),
        ({"order": ("a", "b")}, "a then b", "b then a"),
        ({"distinct_words": True}, "a b", "a A"),
        ({"ascending_words": True}, "ab, ac", "ac, ab"),
        ({"ascending_lines": True}, "a\nb", "b\na"),
        ({"letters": "abc"}, "Cab", "ab"),
        ({"times_characters": {".": 1}}, "a.", "a.b."),
        ({"starts": "Dear"}, "Dear me", "Oh dear"),
        ({"ends": "."}, "a.", "a"),
        ({"case": "lower"}, "a 1", "a B"),
        ({"case": "upper"}, "A 1", "A b"),
        ({"line_initials": "ab"}, "Ant\nbee", "ant\ncow"),
        ({"word_initials": "ss"}, "Slow snail", "slow cow"),
        ({"each_line_starts": "- "}, "- a\n- b", "- a\nb"),
        ({"numbered": True}, "1. a\n2. b", "1. a\n3. b"),
        ({"matches": "a+"}, "aaa", "aab"),
    ],
)
def test_every_rule_tells_who_keeps_it(rule: dict[str, Any], good: str, bad: str) -> None:
    one = spec("rules", good, rules=tuple(rule.items()))
    assert grade(one, f"<think>{bad}</think>\n{good}\n") == 1.0
    assert grade(one, bad) == 0.0


def test_a_rule_that_does_not_exist_is_an_error_and_not_a_wrong_answer() -> None:
    with pytest.raises(ValueError, match="no rule is called 'rhymes'"):
        obeys("text", (("rhymes", True),))


OUTPUT = spec("output", "[51, 14] 5\nlr")
ONE_LINE = spec("output", "rbR")


@pytest.mark.parametrize(
    ("one", "reply"),
    [
        (OUTPUT, "```\n[51, 14] 5\nlr\n```"),
        (OUTPUT, "It prints:\n\n```text\n[51, 14] 5  \nlr\n\n```\nas y is 2."),
        (OUTPUT, "```python\nprint(1)\n```\nAnswer:\n```\n[51, 14] 5\nlr\n```"),
        (OUTPUT, "[51, 14] 5\nlr"),
        (ONE_LINE, "Answer: rbR"),
        (ONE_LINE, "Answer: `rbR`"),
        (ONE_LINE, "rbR\n"),
        (ONE_LINE, "The output is in the end\n\n```\nrbR\n```"),
    ],
)
def test_a_predicted_output_is_right_to_the_letter(one: AnchorSpec, reply: str) -> None:
    assert grade(one, reply) == 1.0


@pytest.mark.parametrize(
    "reply",
    ["```\n[51, 14] 5\n```", "```\n[51,14] 5\nlr\n```", "```\nlr\n[51, 14] 5\n```", "[51, 14] 5\nlR", "```\n```"],
)
def test_another_output_is_wrong(reply: str) -> None:
    assert grade(OUTPUT, reply) == 0.0


LINE = spec("line", "7")


@pytest.mark.parametrize(
    "reply", ["7", "Line 7", "**Line 7**", "Answer: 7", "Answer: line 7: `if x:`", "The answer is line 7."]
)
def test_a_faulty_line_is_named_by_its_number(reply: str) -> None:
    assert grade(LINE, reply) == 1.0


@pytest.mark.parametrize(
    "reply", ["8", "Answer: 77", "Lines 7 and 8", "Answer: line 7 or line 8", "Answer: 7, 8", "if x:"]
)
def test_another_line_or_two_are_wrong(reply: str) -> None:
    assert grade(LINE, reply) == 0.0


ALL = (
    CHOICE,
    LENGTH,
    CITY,
    OBJECT,
    spec("rules", "a b", rules=(("words", 2), ("case", "lower"), ("starts", "a"))),
    OUTPUT,
    LINE,
)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.kind)
def test_no_reply_is_missing_and_an_empty_one_is_wrong(one: AnchorSpec) -> None:
    assert grade(one, None) is None
    assert grade(one, "") == 0.0
    assert grade(one, prompt_of(one)) == 0.0


@given(st.sampled_from(ALL), st.text(max_size=300))
def test_any_reply_gets_a_grade(one: AnchorSpec, reply: str) -> None:
    assert grade(one, reply) in (0.0, 1.0)


@given(
    st.sampled_from(ALL),
    st.lists(
        st.sampled_from(
            ["Answer:", "\\boxed{", "```", "\n", "<think>", "</think>", "{", "}", "[", "9" * 50, "10^999", "(B)"]
        ),
        max_size=60,
    ),
)
def test_replies_full_of_markers_get_a_grade(one: AnchorSpec, parts: list[str]) -> None:
    assert grade(one, " ".join(parts)) in (0.0, 1.0)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.kind)
@pytest.mark.parametrize(
    "piece",
    ["Answer: ", "\\boxed{", "(A) (B) ", "```\n", "<think>", "1,111 ", "a. ", "[{", "x " * 3, "\n \n", "-- ", "' "],
)
def test_a_reply_of_a_megabyte_is_graded(one: AnchorSpec, piece: str) -> None:
    assert grade(one, piece * (1_000_000 // len(piece))) == 0.0
