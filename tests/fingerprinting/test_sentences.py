"""Right answers inside sentences count, and no reply that denies, doubts, lists or contradicts them does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scope_edge.estimation.anchor_spec import AnchorSpec, load_core
from scope_edge.fingerprinting.grading import grade
from scope_edge.fingerprinting.grading.numbers import read_number

SPECS = {spec.id: spec for spec in load_core().specs}
ROWS = [json.loads(line) for line in Path(__file__).with_name("smollm2_answers.jsonl").read_text("utf-8").splitlines()]


def agreement(rows: list[dict[str, Any]]) -> tuple[float, list[str], list[str]]:
    """Share of grades that are the hand's, and the anchors that are right, or wrong, only to the grader."""
    rights = [(row, grade(SPECS[row["anchor"]], row["text"]) == 1.0) for row in rows]
    false_right = [row["anchor"] for row, right in rights if right and not row["right"]]
    false_wrong = [row["anchor"] for row, right in rights if row["right"] and not right]
    return 1 - (len(false_right) + len(false_wrong)) / len(rows), false_right, false_wrong


def test_real_answers_of_a_small_model_are_graded_as_by_hand() -> None:
    seen, unseen = ([row for row in ROWS[1:] if row["held_out"] is flag] for flag in (False, True))
    assert (len(seen), len(unseen)) == (200, 93)
    share, false_right, false_wrong = agreement(seen)
    assert share >= 0.99 and false_right == [] and len(false_wrong) <= 2
    share, false_right, false_wrong = agreement(unseen)
    # (D) with the text of no option; and the jury, whose members are said to include the prosecutor.
    assert share >= 0.97 and set(false_right) <= {"geo-11"} and set(false_wrong) <= {"law-01"}


CAPITAL = SPECS["geo-02"]  # Lisbon; tempting: Porto, Madrid
RIGHT = [
    ("bio-02", "The protein that carries oxygen in human red blood cells is called hemoglobin."),
    ("bio-02", "Haemoglobin carries oxygen in red blood cells."),
    ("bio-02", "It is called haemoglobin."),
    ("lang-04", "William Shakespeare wrote it."),
    ("lang-04", "It was written by William Shakespeare in the 1590s."),
    ("geo-03", "The Sahara lies on the continent of Africa."),
    ("geo-03", "The Sahara is in Africa."),
    ("geo-02", "Lisbon is the capital of Portugal."),
    ("geo-02", "Portugal's capital is Lisbon, on the river Tagus."),
    ("geo-02", "Lisbon is the capital of Portugal. Porto is its second largest city."),
    ("geo-02", "At first I thought of Porto. So the answer must be Lisbon."),
    ("geo-02", "Answer: Porto\n\nWait, that is wrong.\n\nAnswer: Lisbon"),
    ("geo-02", "The capital of Portugal is **Lisbon**.\n\nI hope this helps!"),
    ("med-04", "The pancreas makes insulin."),
    ("med-04", "Answer: The pancreas makes insulin."),
    ("law-03", "That person is known as the plaintiff or claimant."),
    ("hist-05", "The Titanic sank in April 1912."),
    ("chem-09", "Its oxidation number is +7."),
    ("cs-03", 'CPU stands for "central processing unit".'),
    ("geo-04", "The circle of latitude at 0° is the equator, which divides the Earth."),
    ("bio-10", "(C) because water leaves the cell."),
    ("hist-07", "The Peace of Westphalia ended the Thirty Years' War."),
    ("cs-06", "The longest path has 49 edges: 49"),
    ("math-04", "Of these numbers, only 59 is prime."),
    ("hist-02", "The Second World War ended in 1945."),
    ("econ-05", "The profit of the workshop is 1,100 dollars."),
    ("econ-05", "250 lamps at 12 dollars minus 1900 dollars are 1100 dollars."),
    ("bio-04", "The number of chromosomes is forty-six."),
    ("cs-02", "Answer: three thousand and seventy-two"),
]
WRONG = [
    ("geo-02", "It is not Lisbon."),
    ("geo-02", "The capital isn't Lisbon."),
    ("geo-02", "The capital of Portugal is never Lisbon."),
    ("geo-02", "It is Lisbon or Porto."),
    ("geo-02", "It is either Lisbon or Coimbra."),
    ("geo-02", "It may be Lisbon, Porto or Madrid."),
    ("geo-02", "Answer: Lisbon or Coimbra"),
    ("geo-02", "Answer: Lisbon. Or Coimbra."),
    ("geo-02", "Answer: Lisbon - no, Coimbra"),
    ("geo-02", "Lisbon\n\nPorto"),
    ("geo-02", "Lisbon\n\nCoimbra"),
    ("geo-02", "Is it Lisbon? I cannot say."),
    ("geo-02", "1. Madrid\n2. Porto\n3. Lisbon"),
    ("geo-02", "- Lisbon\n- Coimbra"),
    ("geo-02", "The capital of Portugal is Porto. It lies north of Lisbon."),
    ("geo-02", "Porto is the capital of Portugal. Lisbon is a city in Portugal, too."),
    ("geo-02", "Unlike Lisbon, Coimbra is the capital of Portugal."),
    ("geo-02", "Coimbra, a city near Lisbon, is the capital of Portugal."),
    ("geo-02", "The capital is Lisbon. Wait, that was Coimbra."),
    ("geo-02", "It was called New Lisbon."),
    ("geo-02", "Il n'est pas vrai : Lisbon."),
    ("geo-02", "Es ist nicht Lisbon."),
    ("geo-13", "Russia is a country that has a long border on the Caspian Sea, close to Iran."),
    ("geo-13", "Turkmenistan and Iran have coasts on the Caspian Sea."),
    ("med-04", "The liver makes insulin with the help of the pancreas."),
    ("med-04", "The stomach, which lies before the pancreas, makes insulin."),
    ("bio-02", "Myoglobin, which resembles hemoglobin, carries oxygen."),
    ("bio-09", "It's copied in mitosis."),
    ("chem-09", "-7"),
    ("chem-09", "The oxidation number is -7."),
    ("chem-02", "It's not K."),
    ("geo-02", "I doubt that it is Lisbon."),
    ("geo-02", "I do not know whether it is Lisbon."),
    ("logic-08", "Joy sits immediately to the right of Kai."),
    ("logic-02", "Ned is taller than Ola."),
    ("bio-03", "It is an animal different from the dolphin."),
    ("econ-03", 'A "price spiral", often attributed to the impact of inflation on the economy.'),
    ("lang-08", 'The plural of "phenomenon" is not "phenomena".'),
    ("geo-03", "The Sahara does not lie in Africa."),
    ("geo-03", "The Sahara lies in Africa or Asia."),
    ("geo-03", "A, B, C, D"),
    ("geo-03", "(A) Australia\n(B) South America\n(C) Asia\n(D) Africa"),
    ("geo-03", "A. Australia\nB. South America\nC. Asia\nD. Africa"),
    ("geo-03", "A) Australia!\nB) South America!\nD) Africa!"),
    ("geo-03", "A) Australia?\nB) Asia?\nD) Africa?\nI am not sure which."),
    ("geo-03", "It is not (D)."),
    ("geo-03", "Option D is wrong."),
    ("geo-03", "(D) Asia is the continent of the Sahara."),
    ("cs-01", "A stack keeps an order. A queue keeps one, too."),
    ("daily-10", "2 * 10^2 = 2 * 10.8 = 21"),
    ("math-04", "It is not 59."),
    ("math-04", "The answer is more than 59."),
    ("math-04", "Only 57 and 59 are prime."),
    ("hist-02", "The war began in 1939 and ended in 1945."),
    ("bio-04", "The number of chromosomes is forty-six or forty-eight."),
    ("econ-05", "The profit is two thirds of 1100 of 3000 dollars."),
]


@pytest.mark.parametrize(("anchor", "reply"), RIGHT)
def test_a_sentence_with_the_right_answer_alone_counts(anchor: str, reply: str) -> None:
    assert grade(SPECS[anchor], reply) == 1.0


@pytest.mark.parametrize(("anchor", "reply"), WRONG)
def test_a_sentence_that_denies_doubts_lists_or_contradicts_does_not(anchor: str, reply: str) -> None:
    assert grade(SPECS[anchor], reply) == 0.0


@pytest.mark.parametrize(
    ("question", "key", "reply", "right"),
    [
        ("日本の首都はどこですか。", "東京", "日本の首都は東京です。", 1.0),
        ("日本の首都はどこですか。", "東京", "日本の首都は東京ではない。", 0.0),
        ("中国的首都是哪里?", "北京", "中国的首都是北京。", 1.0),
        ("中国的首都是哪里?", "北京", "中国的首都不是北京。", 0.0),
        ("Какой город столица России?", "Москва", "Столица России — Москва.", 1.0),
        ("Какой город столица России?", "Москва", "Это не Москва.", 0.0),
        ("Was ist die Hauptstadt von Österreich?", "Wien", "Die Hauptstadt von Österreich ist Wien.", 1.0),
        ("Was ist die Hauptstadt von Österreich?", "Wien", "Das ist keineswegs Wien.", 0.0),
        (
            "Which country is not in the union: Spain or Norway?",
            "Norway",
            "The country not in the union is Norway.",
            1.0,
        ),
        ("Which country is not in the union: Spain or Norway?", "Norway", "It is not Norway.", 0.0),
    ],
)
def test_other_languages_are_read_where_it_is_safe(question: str, key: str, reply: str, right: float) -> None:
    assert grade(AnchorSpec("one", "field", 1, "short", question, key), reply) == right


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.234.567", 1234567), ("1.234.567,5", 1234567.5), ("1.234,5", 1234.5), ("12,34,567", 1234567),
        ("1 234 567", 1234567), ("٤٢", 42), ("４２", 42), ("minus twelve", -12), ("The sum is ninety-nine.", 99),
        ("two hundred and five", 205), ("one million three hundred thousand", 1300000), ("one", 1),
        ("two thirds", None), ("This one is hard.", None), ("seven or eight", None), ("10.20.0.0", None),
    ],
)  # fmt: skip
def test_numbers_are_read_as_they_are_written(text: str, value: float | None) -> None:
    assert read_number(text, {}) == value
