"""Templates on programs, logic and the calendar. What a program prints is worked out, not run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import date, timedelta

from scope_edge.fingerprinting.fresh.draws import Draws, QuestionDraft, QuestionTemplate

_WORDS = ("harbour", "blanket", "compass", "thunder", "orchard", "village", "lantern", "captain", "meadows", "granite")
_PEOPLE = ("Asha", "Bruno", "Chen", "Dora", "Emil", "Fatima", "Goran", "Hana")
_PETS = ("cat", "dog", "parrot", "rabbit", "hamster", "turtle")
_MONTHS = ("January", "March", "April", "May", "July", "August", "October", "November")
_MONTH_NUMBERS = dict(zip(_MONTHS, (1, 3, 4, 5, 7, 8, 10, 11), strict=True))


def _prints(code: str, key: str, *tempting: str) -> QuestionDraft:
    question = f"What does this Python program print?\n\n```python\n{code}\n```"
    return QuestionDraft(question, key, tempting, {"code": code})


def _loop(d: Draws) -> QuestionDraft:
    stop, step, start = d.whole(17, 29), d.whole(3, 5), d.whole(1, 3)
    numbers = range(start, stop, step)
    key = sum(numbers)
    code = f"total = 0\nfor i in range({start}, {stop}, {step}):\n    total += i\nprint(total)"
    return _prints(code, str(key), str(key + stop), str(numbers[-1]))


def _slices(d: Draws) -> QuestionDraft:
    word = d.pick(_WORDS)
    start, end = d.whole(1, 2), d.whole(4, 6)
    key = word[start:end] + word[-1].upper()
    code = f'word = "{word}"\nprint(word[{start}:{end}] + word[-1].upper())'
    return _prints(code, key, word[start : end + 1] + word[-1].upper(), word[start - 1 : end])


def _distance(d: Draws) -> QuestionDraft:
    away, times = d.whole(3, 19), d.whole(2, 9)
    below, above = away - d.whole(4, 9), away + d.whole(2, 8)
    code = f"def f(x):\n    return abs(x - {away}) * {times}\n\nprint(f({below}), f({above}))"
    near, far = (away - below) * times, (above - away) * times
    return _prints(code, f"{near} {far}", f"{-near} {far}", f"{near} {abs(above * times - away)}")


def _list_steps(d: Draws) -> QuestionDraft:
    numbers = d.some(range(1, 30), 4)
    added, at = d.whole(30, 60), d.whole(1, 2)
    xs = [*numbers, added]
    taken = xs[at]
    xs = [taken * 2, *xs[:at], *xs[at + 1 :]]
    code = f"xs = {numbers}\nxs.append({added})\ny = xs.pop({at})\nxs.insert(0, y * 2)\nprint(xs[::-1], len(xs))"
    other = [*numbers, added, taken * 2]
    return _prints(code, f"{xs[::-1]} {len(xs)}", f"{xs} {len(xs)}", f"{other[::-1]} {len(other)}")


def _recursion(d: Draws) -> QuestionDraft:
    number, base = d.whole(120, 900), d.pick((3, 4, 5))
    digits, left = [], number
    while left:
        digits.append(left % base)
        left //= base
    key = sum(digits) + len(digits)
    code = (
        f"def f(n):\n    if n == 0:\n        return 0\n    return n % {base} + 1 + f(n // {base})\n\nprint(f({number}))"
    )
    return _prints(code, str(key), str(sum(digits)), str(key + 1))


def _counting(d: Draws) -> QuestionDraft:
    letters = d.some("abcdefgh", 3)
    word = "".join([letters[0], *(d.pick(letters) for _ in range(6))])
    counts: dict[str, int] = {}
    for place, letter in enumerate(word):
        counts[letter] = counts.get(letter, place) + 1
    code = (
        f'seen = {{}}\nfor i, letter in enumerate("{word}"):\n    seen[letter] = seen.get(letter, i) + 1\n'
        "print(sorted(seen.values()))"
    )
    plain = sorted(word.count(letter) for letter in set(word))
    return _prints(code, str(sorted(counts.values())), str(plain), str([*list(counts.values())[::-1], 0]))


def _aliases(d: Draws) -> QuestionDraft:
    row = d.some(range(1, 10), 3)
    first, second, at = d.whole(10, 19), d.whole(20, 29), d.whole(0, 2)
    shared = list(row)
    shared[at] = first
    copy = [*row]
    copy[2 - at] = second
    code = (
        f"row = {row}\ngrid = [row, row[:], row]\ngrid[0][{at}] = {first}\ngrid[1][{2 - at}] = {second}\n"
        "row = [0, 0, 0]\nprint(grid)"
    )
    return _prints(code, str([shared, copy, shared]), str([shared, copy, row]), str([[0, 0, 0], copy, [0, 0, 0]]))


def _breaks(d: Draws) -> QuestionDraft:
    top, by = d.whole(14, 30), d.whole(3, 5)
    found: list[int] = []
    for n in range(2, top):
        divisors = [k for k in range(2, n) if n % k == 0]
        found += [n] if not divisors else [-divisors[0]] if n % by == 0 else []
    code = (
        f"out = []\nfor n in range(2, {top}):\n    for k in range(2, n):\n        if n % k == 0:\n            if n % {by} == 0:\n"
        "                out.append(-k)\n            break\n    else:\n        out.append(n)\nprint(sum(out), len(out))"
    )
    primes = [n for n in found if n > 0]
    tempting = (f"{sum(primes)} {len(primes)}", f"{sum(found) + 1} {len(found)}")
    return _prints(code, f"{sum(found)} {len(found)}", *tempting)


def _top_sum(d: Draws) -> QuestionDraft:
    k, times, by = d.whole(2, 4), d.whole(2, 15), d.whole(3, 5)
    xs = [d.whole(-9, 20) for _ in range(7)]
    ys = sorted(xs, key=lambda x: (x % by, -x))
    code = (
        f"xs = {xs}\nys = sorted(xs, key=lambda x: (x % {by}, -x))\n"
        f"print(ys[:{k}], sum(sorted(xs)[-{k}:]) - {times} * min(xs))"
    )
    right = sum(sorted(xs)[-k:]) - times * min(xs)
    wrong = sum(sorted(xs)[:k]) - times * min(xs)
    return _prints(code, f"{ys[:k]} {right}", f"{sorted(xs)[:k]} {right}", f"{ys[:k]} {wrong}")


# Clues are drawn until exactly one answer is left.


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
    """Draw what one of four says: the kind of sentence, and about which two others."""
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


REASONING = (
    QuestionTemplate("prog-10", "programming", 1, "output", _loop),
    QuestionTemplate("prog-11", "programming", 1, "output", _slices),
    QuestionTemplate("prog-12", "programming", 1, "output", _distance),
    QuestionTemplate("prog-13", "programming", 2, "output", _list_steps),
    QuestionTemplate("prog-14", "programming", 2, "output", _recursion),
    QuestionTemplate("prog-15", "programming", 2, "output", _counting),
    QuestionTemplate("prog-16", "programming", 3, "output", _aliases),
    QuestionTemplate("prog-17", "programming", 3, "output", _breaks),
    QuestionTemplate("prog-18", "programming", 3, "output", _top_sum),
    QuestionTemplate("logic-15", "logic and reasoning", 1, "short", _older),
    QuestionTemplate("logic-16", "logic and reasoning", 2, "number", _liars),
    QuestionTemplate("logic-17", "logic and reasoning", 3, "json", _floors),
    QuestionTemplate("logic-18", "logic and reasoning", 3, "short", _weekday),
    QuestionTemplate("daily-17", "everyday tasks", 2, "number", _working_time),
)
