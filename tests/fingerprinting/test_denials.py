"""An answer that is denied, ruled out, of another time or rank, or contradicted later is wrong; odd right ones stay right."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from scope_edge.estimation.anchor_spec import AnchorSpec
from scope_edge.fingerprinting.grading import grade


def spec(kind: Any, question: str, key: str, **more: Any) -> AnchorSpec:
    return AnchorSpec("one", "field", 1, kind, question, key, **more)


MARS = spec("choice", "Which planet is called the red planet?", "B", options=("Venus", "Mars", "Jupiter", "Saturn"))
JUPITER = spec("choice", "Which planet is the largest?", "C", options=("Venus", "Mars", "Jupiter", "Saturn"))
VITAMIN = spec("choice", "A lack of which one causes scurvy?", "B", options=("vitamin A", "vitamin C", "iron", "zinc"))
SIXTEEN = spec("number", "What is 4 times 4?", "16")
SEVEN = spec("number", "How many continents are there?", "7")
TEMPTED = spec("short", "What is the capital of Australia?", "Canberra", tempting=("Sydney", "Melbourne"))
CANBERRA = spec("short", "What is the capital of Australia?", "Canberra")
NILE = spec("short", "What is the longest river in the world?", "Nile", tempting=("Amazon",))
ISTANBUL = spec("short", "What is the largest city of Turkey?", "Istanbul", tempting=("Ankara",))
BERLIN = spec("short", "Was ist die Hauptstadt von Deutschland?", "Berlin")
PARIS = spec("short", "Quelle est la capitale de la France ?", "Paris")
MADRID = spec("short", "¿Cuál es la capital de España?", "Madrid")
TOKYO = spec("short", "日本の首都はどこですか。", "東京")
BEIJING = spec("short", "中国的首都是哪里?", "北京")
GOLD = spec("short", "Which element has the symbol Au?", "gold", tempting=("silver",))
HAMLET = spec("short", "Who wrote Hamlet?", "Shakespeare", accept=("William Shakespeare",), tempting=("Marlowe",))
MYANMAR = spec("short", "What is the name of the country whose largest city is Yangon?", "Myanmar", accept=("Burma",))

RIGHT = [
    (MARS, "Mars (B)"),
    (MARS, "Answer: Mars (B)"),
    (MARS, "Answer: B, since Mars is red with iron oxide"),
    (MARS, "I'd go with B."),
    (MARS, "It has to be option B: Mars."),
    (MARS, "B it is!"),
    (MARS, "My pick: (B) Mars"),
    (VITAMIN, "Answer: vitamin C (B)"),
    (VITAMIN, "Answer: B (vitamin C)"),
    (MARS, "Venus is too hot and Jupiter is not red.\n\nAnswer: B"),
    (MARS, "I ruled out A, C and D.\n\nSo the answer is B."),
    (SIXTEEN, "Answer: 16, not 15"),
    (SIXTEEN, "16 is the right answer."),
    (SIXTEEN, "4 times 4 is 16."),
    (SIXTEEN, "16 is correct"),
    (SIXTEEN, "Das Ergebnis ist 16."),
    (SIXTEEN, "答えは16です。"),
    (SIXTEEN, "答案是16。"),
    (SIXTEEN, "El resultado es 16."),
    (SEVEN, "There are seven continents."),
    (SEVEN, "There are 7 continents on Earth."),
    (TEMPTED, "The capital of Australia isn't Sydney, it's Canberra.\nAnswer: Canberra"),
    (CANBERRA, "Canberra has been the capital of Australia since 1913."),
    (CANBERRA, "It's Canberra."),
    (CANBERRA, "That would be Canberra."),
    (CANBERRA, "The capital is Canberra. It is a planned city."),
    (CANBERRA, "Canberra is the capital of Australia. The largest city is Sydney."),
    (NILE, "The Nile is the longest river in the world. The second longest is the Amazon."),
    (NILE, "The Nile, which is 6,650 km long, is the longest river."),
    (HAMLET, "Hamlet was written by William Shakespeare around 1600."),
    (HAMLET, "Shakespeare is the author of Hamlet."),
    (MYANMAR, "Myanmar (formerly called Burma)"),
    (MYANMAR, "The country is Myanmar, formerly known as Burma."),
    (GOLD, "Au stands for gold."),
    (ISTANBUL, "Istanbul"),
    (BERLIN, "Die Hauptstadt von Deutschland ist Berlin."),
    (BERLIN, "Berlin ist die Hauptstadt von Deutschland."),
    (PARIS, "La capitale de la France est Paris."),
    (PARIS, "C'est Paris."),
    (MADRID, "La capital de España es Madrid."),
    (MADRID, "Es Madrid."),
    (TOKYO, "東京です。"),
    (TOKYO, "首都は東京です。"),
    (BEIJING, "是北京。"),
    (BEIJING, "中国的首都是北京。"),
    (MARS, "It is surely B, no doubt."),
    (MARS, "B. The others are not red."),
    (MARS, "B is what I pick, not A."),
    (MARS, "Answer: option B, not option A"),
    (MARS, "Answer: B, Mars is not Venus"),
    (SIXTEEN, "The result equals 16."),
    (SIXTEEN, "16 is definitely right, not a doubt."),
    (SIXTEEN, "It's not hard: 16"),
    (SIXTEEN, "Answer: 16."),
    (SIXTEEN, "16 (sixteen)"),
    (SIXTEEN, "sixteen"),
    (SIXTEEN, "16个"),
    (SIXTEEN, "Das ist 16."),
    (SIXTEEN, "C'est 16."),
    (CANBERRA, "Canberra!"),
    (CANBERRA, "I believe it is Canberra."),
    (CANBERRA, "Not Sydney but Canberra"),
    (CANBERRA, "Australia's capital city is Canberra, founded in 1913."),
    (CANBERRA, "Before 1927 the capital was Melbourne; now it is Canberra."),
    (NILE, "It is the Nile."),
    (GOLD, "The element is gold."),
    (HAMLET, "William Shakespeare, who was born in 1564"),
    (BERLIN, "Das ist Berlin."),
    (BERLIN, "Nicht Bonn, sondern Berlin."),
    (PARIS, "La capitale est Paris."),
    (MADRID, "Madrid es la capital de España."),
    (TOKYO, "答えは東京です。"),
    (BEIJING, "答案是北京。"),
    (MARS, "Of the four, B fits best."),
    (MARS, "Mars, obviously."),
    (MARS, "It's (B)."),
    (MARS, "The red planet is Mars."),
    (MARS, "Nothing but B fits."),
    (MARS, "None other than B."),
    (SIXTEEN, "The answer is 16 and not 8."),
    (SIXTEEN, "The total comes to 16."),
    (SIXTEEN, "It equals sixteen."),
    (SIXTEEN, "Exactly 16!"),
    (SIXTEEN, "Es sind 16."),
    (SIXTEEN, "Ça fait 16."),
    (CANBERRA, "As everybody knows, it is Canberra."),
    (CANBERRA, "No, it's Canberra."),
    (BERLIN, "Es ist Berlin."),
    (TOKYO, "東京"),
]
WRONG = [
    (MARS, "I would rule out B."),
    (MARS, "Anything but B."),
    (MARS, "Anything but (B)"),
    (JUPITER, "Mars (C)"),
    (JUPITER, "Answer: Mars (C)"),
    (JUPITER, "The answer is Mars (C)."),
    (SIXTEEN, "16 is not the answer."),
    (SIXTEEN, "16 is wrong."),
    (SIXTEEN, "16 is too low."),
    (SIXTEEN, "Answer: 16 is wrong"),
    (CANBERRA, "The capital of Australia used to be Canberra."),
    (CANBERRA, "The capital of Australia was Canberra until 1990."),
    (NILE, "The Nile is the second longest river in the world."),
    (ISTANBUL, "The largest city of Turkey, formerly called Istanbul, is Izmir."),
    (CANBERRA, "It was formerly called Canberra."),
    (CANBERRA, "Canberra is a city in Australia. The capital is Perth."),
    (MARS, "I can eliminate B."),
    (MARS, "B can be ruled out."),
    (MARS, "All of them except B"),
    (MARS, "B cannot be right."),
    (MARS, "Every option other than B is possible."),
    (MARS, "Definitely not Mars."),
    (MARS, "Answer: not Mars"),
    (MARS, "Answer: B is the least likely"),
    (MARS, "Answer: Venus (B)"),
    (MARS, "Answer: Jupiter - B"),
    (MARS, "I first chose B, but it is C."),
    (MARS, "B seems right but I would go with C."),
    (MARS, "Mars is the wrong choice."),
    (SIXTEEN, "The answer can't be 16."),
    (SIXTEEN, "16 is too high"),
    (SIXTEEN, "Anything but 16"),
    (SIXTEEN, "Almost 16"),
    (SIXTEEN, "16 would be incorrect."),
    (SIXTEEN, "16? No, 17."),
    (SIXTEEN, "Es ist nicht 16."),
    (SIXTEEN, "Ce n'est pas 16."),
    (SIXTEEN, "答案不是16。"),
    (SIXTEEN, "La respuesta no es 16."),
    (SEVEN, "It is at least 16 less 10"),
    (CANBERRA, "Canberra was the capital of Australia once."),
    (CANBERRA, "Canberra is no longer the capital of Australia."),
    (CANBERRA, "The capital of Australia will be Canberra next year."),
    (TEMPTED, "People often say Canberra, yet Sydney is the capital of Australia."),
    (CANBERRA, "Most people think the capital of Australia is Canberra."),
    (CANBERRA, "A common mistake is Canberra."),
    (CANBERRA, "Canberra is a town near the capital of Australia."),
    (NILE, "The Nile is the longest river in the world after the Amazon."),
    (NILE, "The Nile is one of the longest rivers in the world."),
    (NILE, "The third longest river is the Nile."),
    (ISTANBUL, "Istanbul was the largest city of Turkey until 1923."),
    (HAMLET, "Hamlet was once attributed to Shakespeare."),
    (HAMLET, "Hamlet was written before Shakespeare."),
    (GOLD, "Au is the symbol of fool's gold."),
    (CANBERRA, "Canberra is nice. The capital of Australia is Brisbane."),
    (CANBERRA, "The capital of Australia is Canberra. In fact, the capital of Australia is Perth."),
    (CANBERRA, "Canberra. The capital is Perth, however."),
    (BERLIN, "Die Hauptstadt von Deutschland war früher Berlin."),
    (BERLIN, "Alles außer Berlin."),
    (BERLIN, "Berlin ist die zweitgrößte Stadt. Die Hauptstadt ist Bonn."),
    (BERLIN, "Berlin ist falsch."),
    (PARIS, "Tout sauf Paris."),
    (PARIS, "La capitale de la France était autrefois Paris."),
    (PARIS, "Paris est faux."),
    (MADRID, "La capital de España era antes Madrid."),
    (MADRID, "Cualquiera menos Madrid."),
    (TOKYO, "東京以外です。"),
    (TOKYO, "昔の首都は東京でした。"),
    (TOKYO, "東京は間違いです。"),
    (BEIJING, "以前的首都是北京。"),
    (BEIJING, "北京是错的。"),
    (BEIJING, "除了北京都可以。"),
    (MARS, "The answer cannot be B, so C."),
    (MARS, "I don't think it's B."),
    (MARS, "Let's cross out B."),
    (MARS, "Answer: B is not it"),
    (MARS, "The only wrong option is B."),
    (SIXTEEN, "I got 16 and that's not right"),
    (SIXTEEN, "16 isn't right."),
    (SIXTEEN, "Not 16."),
    (SIXTEEN, "Sixteen is wrong."),
    (SIXTEEN, "16 ist falsch."),
    (SIXTEEN, "答えは16ではない。"),
    (SIXTEEN, "16万"),
    (CANBERRA, "Canberra lost that title to Perth."),
    (CANBERRA, "It is often confused with Canberra."),
    (CANBERRA, "Forget Canberra: it is Perth."),
    (CANBERRA, "Perth is the capital of Australia. Canberra is a city."),
    (CANBERRA, "Canberra\n\nThe capital of Australia is Perth."),
    (CANBERRA, "Canberra (wrong)"),
    (CANBERRA, "Canberra, which is wrong"),
    (NILE, "The Nile is the longest river in Africa but not in the world."),
    (BERLIN, "Berlin war bis 1945 die Hauptstadt von Deutschland."),
    (PARIS, "Ce n'est pas Paris."),
    (PARIS, "Paris était la capitale jusqu'en 1940."),
    (MADRID, "No es Madrid."),
    (TOKYO, "日本の首都は東京ではなく大阪です。"),
    (BEIJING, "不是北京,是上海。"),
    (BEIJING, "首都是上海。北京是城市。"),
    (MARS, "B would have been my guess, but no."),
    (MARS, "Skip B."),
    (MARS, "B is incorrect; the answer is C."),
    (SIXTEEN, "It is never 16."),
    (SIXTEEN, "16 — that's wrong."),
    (SIXTEEN, "Less than 16."),
    (SIXTEEN, "16なし"),
    (SIXTEEN, "16 no es correcto."),
    (SIXTEEN, "Certainly not sixteen."),
    (CANBERRA, "It stopped being Canberra."),
    (CANBERRA, "The former capital of Australia is Canberra."),
    (CANBERRA, "The fictional capital of Australia is Canberra."),
    (CANBERRA, "Canberra's rival is the capital of Australia."),
    (CANBERRA, "If only it were Canberra."),
    (BERLIN, "Die ehemalige Hauptstadt ist Berlin."),
    (PARIS, "Paris n'est pas la capitale de la France."),
    (MADRID, "Madrid no es la capital de España."),
    (TOKYO, "東京じゃない。"),
    (BEIJING, "北京不是首都。"),
]


@pytest.mark.parametrize(("one", "reply"), RIGHT)
def test_a_right_answer_stays_right_however_oddly_it_is_put(one: AnchorSpec, reply: str) -> None:
    assert grade(one, reply) == 1.0


@pytest.mark.parametrize(("one", "reply"), WRONG)
def test_an_answer_that_a_reply_turns_down_is_wrong(one: AnchorSpec, reply: str) -> None:
    assert grade(one, reply) == 0.0


def calls(one: AnchorSpec, reply: str) -> int:
    """Calls of functions, Python's and C's, that grading a reply takes."""
    count = 0

    def counted(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        grade(one, reply)
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize(
    ("one", "piece"),
    [
        (CANBERRA, "the capital of Australia is Canberra, "),
        (CANBERRA, "Canberra, "),
        (CANBERRA, "the capital of Australia is Canberra. "),
        (CANBERRA, "The capital of Australia is Canberra. "),
        (TEMPTED, "Canberra and Sydney and "),
        (TOKYO, "東京"),
        (MARS, "it is Mars and "),
    ],
)
def test_the_work_on_an_answer_that_loops_grows_no_faster_than_the_answer(one: AnchorSpec, piece: str) -> None:
    grade(one, piece)  # patterns are compiled once
    small, large = calls(one, piece * 200), calls(one, piece * 1600)
    assert large <= 9 * small, (small, large)


def test_a_loop_of_the_right_answer_is_right_and_one_that_ends_in_a_denial_is_wrong() -> None:
    loop = "the capital of Australia is Canberra. " * 100
    assert grade(CANBERRA, loop) == 1.0
    assert grade(CANBERRA, loop + "the capital of Australia is not Canberra.") == 0.0
