"""Templates on logic and on the calendar: clues are drawn until exactly one answer is left."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import date, timedelta

from scope_edge.fingerprinting.fresh.draws import Draws, QuestionDraft, QuestionTemplate

_PEOPLE = ("Asha", "Bruno", "Chen", "Dora", "Emil", "Fatima", "Goran", "Hana")
_PETS = ("cat", "dog", "parrot", "rabbit", "hamster", "turtle")
_MONTHS = ("January", "March", "April", "May", "July", "August", "October", "November")
_MONTH_NUMBERS = dict(zip(_MONTHS, (1, 3, 4, 5, 7, 8, 10, 11), strict=True))


def _older(d: Draws) -> QuestionDraft:
    order = d.some(_PEOPLE, 4)
    clues = [f"{a} is older than {b}." for a, b in itertools.pairwise(order)]
    told = d.some(clues, 3)
    return QuestionDraft(
        f"{' '.join(told)} Who is the second oldest of the four?",
        order[1],
        (order[0], order[2]),
        {"clues": told},
    )


def _liars(d: Draws) -> QuestionDraft:
    names = d.some(_PEOPLE, 4)
    while True:
        said = [_sentence(d, i) for i in range(4)]
        fits = [kinds for kinds in itertools.product((True, False), repeat=4) if _consistent(kinds, said)]
        if len(fits) == 1 and 0 < sum(fits[0]) < 4:
            break
    wording = {
        "lies": "{0} lies",
        "same": "{0} and {1} are of the same kind",
        "differ": "exactly one of {0} and {1} lies",
    }
    speech = [
        f'{names[i]} says: "{wording[kind].format(names[j], names[k])}."'.replace('"exactly', '"Exactly')
        for i, (kind, j, k) in enumerate(said)
    ]
    key = sum(fits[0])
    return QuestionDraft(
        f"Each of four people either always tells the truth or always lies. {' '.join(speech)} How many of the four tell the "
        "truth?",
        str(key),
        (str(4 - key if key != 2 else 1), str(key + 1)),
        {"said": said},
    )


def _sentence(d: Draws, speaker: int) -> tuple[str, int, int]:
    """What one of four says: the kind of sentence, and about which two others."""
    kind = d.pick(("lies", "same", "differ"))
    first, second = d.some([j for j in range(4) if j != speaker], 2)
    return kind, first, second


def _consistent(kinds: tuple[bool, ...], said: list[tuple[str, int, int]]) -> bool:
    truth: dict[str, Callable[[int, int], bool]] = {
        "lies": lambda j, _: not kinds[j],
        "same": lambda j, k: kinds[j] is kinds[k],
        "differ": lambda j, k: kinds[j] is not kinds[k],
    }
    return all(kinds[i] is truth[kind](j, k) for i, (kind, j, k) in enumerate(said))


def _floors(d: Draws) -> QuestionDraft:
    people, pets = d.some(_PEOPLE, 4), d.some(_PETS, 4)
    worlds = list(itertools.product(itertools.permutations(people), itertools.permutations(pets)))
    true = d.pick(worlds)
    clues = [clue for clue in _clues(people, pets) if _holds(clue, true)]
    told: list[tuple[str, str, str]] = []
    left = worlds
    while len(left) > 1:
        clue = d.pick(clues)
        fewer = [world for world in left if _holds(clue, world)]
        if len(fewer) < len(left):
            told.append(clue)
            left = fewer
    pet = d.pick(pets)
    at = true[1].index(pet)
    text = " ".join(_CLUES[kind].format(a, b) for kind, a, b in told)
    key = {"owner": true[0][at], "floor": at + 1}
    other = (at + 1) % 4
    return QuestionDraft(
        f"A house has four floors, 1 at the bottom and 4 at the top. {people[0]}, {people[1]}, {people[2]} and {people[3]} live "
        f"on one floor each, and each keeps one pet: a {pets[0]}, a {pets[1]}, a {pets[2]} or a {pets[3]}. {text} Who keeps the "
        f'{pet}, and on which floor? Give a JSON object with the keys "owner" (the name) and "floor" (a number).',
        json.dumps(key),
        (json.dumps({"owner": true[0][other], "floor": other + 1}), json.dumps({**key, "floor": other + 1})),
        {"people": people, "pets": pets, "told": told, "pet": pet},
    )


_CLUES = {
    "owns not": "{0} does not keep the {1}.",
    "above": "{0} lives somewhere above {1}.",
    "next": "{0} lives directly above or directly below {1}.",
    "pet above": "The {0} lives somewhere above the {1}.",
    "above pet": "{0} lives directly below the {1}.",
    "not end": "{0} lives neither at the bottom nor at the top{1}.",
}


def _clues(people: list[str], pets: list[str]) -> list[tuple[str, str, str]]:
    pairs = list(itertools.permutations(people, 2))
    return [
        *(("owns not", a, b) for a, b in itertools.product(people, pets)),
        *(("above", a, b) for a, b in pairs),
        *(("next", a, b) for a, b in pairs),
        *(("pet above", a, b) for a, b in itertools.permutations(pets, 2)),
        *(("above pet", a, b) for a, b in itertools.product(people, pets)),
        *(("not end", a, "") for a in people),
    ]


def _holds(clue: tuple[str, str, str], world: tuple[tuple[str, ...], tuple[str, ...]]) -> bool:
    kind, a, b = clue
    who, what = world
    if kind == "pet above":
        return what.index(a) > what.index(b)
    if kind == "not end":
        return who.index(a) in (1, 2)
    if kind in ("owns not", "above pet"):
        distance = what.index(b) - who.index(a)
        return distance != 0 if kind == "owns not" else distance == 1
    distance = who.index(a) - who.index(b)
    return distance > 0 if kind == "above" else abs(distance) == 1


def _weekday(d: Draws) -> QuestionDraft:
    year, month, day = d.whole(2021, 2039), d.pick(_MONTHS), d.whole(1, 28)
    later = d.whole(11, 40)
    first = date(year, _MONTH_NUMBERS[month], day)
    last = date(year + later, first.month, day)
    return QuestionDraft(
        f"{day} {month} {year} is a {first:%A}. Which day of the week is {day} {month} {year + later}?",
        f"{last:%A}",
        (f"{last + timedelta(days=1):%A}", f"{last - timedelta(days=1):%A}"),
        {"date": (year, first.month, day), "later": later},
    )


def _working_time(d: Draws) -> QuestionDraft:
    start, end = 60 * d.whole(6, 9) + d.whole(1, 58), 60 * d.whole(15, 18) + d.whole(1, 58)
    long, short = d.whole(25, 50), d.whole(10, 20)
    key = end - start - long - 2 * short
    return QuestionDraft(
        f"Somebody works from {start // 60:02}:{start % 60:02} to {end // 60:02}:{end % 60:02} the same day, with one break of "
        f"{long} minutes and two of {short} minutes each. How many minutes of work are that?",
        str(key),
        (str(key + short), str(end - start)),
        {"start": start, "end": end, "breaks": (long, short, short)},
        {"units": (("minutes", 1.0), ("min", 1.0), ("hours", 60.0), ("h", 60.0))},
    )


_FIELD = "logic and reasoning"
PUZZLES = (
    QuestionTemplate("logic-15", _FIELD, 1, "short", _older),
    QuestionTemplate("logic-16", _FIELD, 2, "number", _liars),
    QuestionTemplate("logic-17", _FIELD, 3, "json", _floors),
    QuestionTemplate("logic-18", _FIELD, 3, "short", _weekday),
    QuestionTemplate("daily-17", "everyday tasks", 2, "number", _working_time),
)
