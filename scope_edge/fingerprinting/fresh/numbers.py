"""Templates on mathematics and on how computers count."""

from __future__ import annotations

import math
from fractions import Fraction

from scope_edge.fingerprinting.fresh.draws import Draws, QuestionDraft, QuestionTemplate


def _percent(d: Draws) -> QuestionDraft:
    share, whole, more = d.pick((5, 15, 20, 35, 40, 60)), 20 * d.whole(6, 45), d.whole(11, 59)
    key = share * whole // 100 + more
    return QuestionDraft(
        f"What is {share} % of {whole}, plus {more}?",
        str(key),
        (str(key - more), str(share * (whole + more) / 100)),
        {"share": share, "whole": whole, "more": more},
    )


def _pairs(d: Draws) -> QuestionDraft:
    a, b = d.some((3, 4, 5, 7, 8, 9, 11), 2)
    total = d.whole(90, 240)
    # One remainder of y fits each step of a / gcd: count from the first that does.
    first = next((y for y in range(a) if (total - b * y) % a == 0 and total >= b * y), None)
    step = a // math.gcd(a, b)
    key = 0 if first is None else (total // b - first) // step + 1
    return QuestionDraft(
        f"In how many ways can {total} be written as {a}x + {b}y with non-negative integers x and y?",
        str(key),
        (str(key + 1), str(total // b + 1)),
        {"a": a, "b": b, "total": total},
    )


def _remainder(d: Draws) -> QuestionDraft:
    base, power, modulus = d.whole(3, 19), d.whole(40, 160), d.pick((13, 17, 19, 23, 29, 31))
    key = pow(base, power, modulus)
    return QuestionDraft(
        f"What is the remainder when {base} to the power of {power} is divided by {modulus}?",
        str(key),
        (str((key + 1) % modulus), str(base * power % modulus + modulus)),
        {"base": base, "power": power, "modulus": modulus},
    )


def _lights(d: Draws) -> QuestionDraft:
    a, b, c = d.some((6, 8, 9, 10, 12, 14, 15, 18, 20, 21), 3)
    minutes = d.whole(30, 90)
    key = minutes * 60 // math.lcm(a, b, c)
    return QuestionDraft(
        f"Three signal lamps flash every {a}, {b} and {c} seconds. They have just flashed together. How many more times do all "
        f"three flash together within the next {minutes} minutes, the end of that time included?",
        str(key),
        (str(key + 1), str(minutes * 60 // (a * b * c) if minutes * 60 // (a * b * c) != key else key + 2)),
        {"periods": (a, b, c), "seconds": minutes * 60},
    )


def _divisible(d: Draws) -> QuestionDraft:
    a, b, c = d.some((4, 5, 6, 7, 9, 10, 11), 3)
    top = d.whole(400, 1900)

    def count(*parts: int) -> int:
        return top // math.lcm(*parts)

    key = count(a) + count(b) - count(a, b) - count(a, c) - count(b, c) + count(a, b, c)
    return QuestionDraft(
        f"How many integers from 1 to {top} are divisible by {a} or by {b} (or both), but not by {c}?",
        str(key),
        (str(count(a) + count(b) - count(a, b)), str(key + count(a, b))),
        {"a": a, "b": b, "c": c, "top": top},
    )


def _dice(d: Draws) -> QuestionDraft:
    faces, others = d.some((6, 8, 10, 12, 20), 2)
    by = d.pick((3, 4, 5, 7))
    # Faces by remainder: i of the one meets -i of the other.
    kinds = [[sum(face % by == i for face in range(1, n + 1)) for i in range(by)] for n in (faces, others)]
    key = Fraction(sum(kinds[0][i] * kinds[1][-i % by] for i in range(by)), faces * others)
    return QuestionDraft(
        f"A fair die with the faces 1 to {faces} and a fair die with the faces 1 to {others} are rolled. What is the "
        f"probability, as a fraction in lowest terms, that the sum is divisible by {by}?",
        str(key),
        (str(key + Fraction(1, faces * others)), str(1 - key)),
        {"faces": (faces, others), "by": by},
    )


def _paths(d: Draws) -> QuestionDraft:
    right, up = d.whole(5, 8), d.whole(4, 7)
    x, y = d.whole(1, right - 1), d.whole(1, up - 1)
    every = math.comb(right + up, up)
    through = math.comb(x + y, y) * math.comb(right - x + up - y, up - y)
    return QuestionDraft(
        f"A robot goes from (0, 0) to ({right}, {up}) in steps of one to the right or one up. How many such paths avoid the "
        f"point ({x}, {y})?",
        str(every - through),
        (str(every), str(through if through != every - through else every + 1)),
        {"right": right, "up": up, "x": x, "y": y},
    )


def _digit_sum(d: Draws) -> QuestionDraft:
    digits, total = d.whole(4, 5), d.whole(11, 28)
    # So many digits with a sum: stars and bars, less those where a digit would be 10 or more.
    key = sum(
        (-1) ** j * math.comb(digits, j) * math.comb(total - 10 * j + digits - 1, digits - 1)
        for j in range(total // 10 + 1)
    )
    return QuestionDraft(
        f"How many integers from 1 to {10**digits - 1} have digits that add up to {total}?",
        str(key),
        (str(math.comb(total + digits - 1, digits - 1)), str(key - 1)),
        {"top": 10**digits, "total": total},
    )


def _binary(d: Draws) -> QuestionDraft:
    number = d.whole(70, 250)
    return QuestionDraft(
        f"Which decimal number is written {number:b} in binary?",
        str(number),
        (str(number + 1), f"{number:b}"),
        {"number": number},
    )


def _bits(d: Draws) -> QuestionDraft:
    a, b, c = (d.whole(65, 255) for _ in range(3))
    key = (a ^ b) & c
    return QuestionDraft(
        f"What is ({a} XOR {b}) AND {c}, taken bit by bit, as a decimal number?",
        str(key),
        (str(key + 1), str(key + 2)),
        {"a": a, "b": b, "c": c},
    )


def _probing(d: Draws) -> QuestionDraft:
    size = d.pick((11, 13))
    start = d.whole(0, size - 1)
    # Most keys crowd around one place, so that the last one really has to look for another.
    homes = [start, start, start + 1, start + 2, start, start + 1, start + 3, start]
    keys = [size * step + home % size for step, home in zip(d.some(range(1, 19), len(homes)), homes, strict=True)]
    taken: set[int] = set()
    at = 0
    for key in keys:
        at = key % size
        while at in taken:
            at = (at + 1) % size
        taken.add(at)
    return QuestionDraft(
        f"A hash table with the slots 0 to {size - 1} uses h(k) = k mod {size} and linear probing (one slot further at a time, "
        f"from the last slot to slot 0). The keys {', '.join(map(str, keys))} are inserted in this order. In which slot does "
        "the last key end up?",
        str(at),
        (str((at + 1) % size), str(keys[-1] % size)),
        {"size": size, "keys": keys},
    )


def _cache(d: Draws) -> QuestionDraft:
    pages = [d.whole(1, 5) for _ in range(14)]
    held: list[int] = []
    misses = 0
    for page in pages:
        misses += page not in held
        held = [*(one for one in held if one != page), page][-3:]
    return QuestionDraft(
        "A cache holds 3 pages and is empty at first. When it is full, the page that was used longest ago makes room (LRU). The "
        f"pages {', '.join(map(str, pages))} are used in this order. How many of these uses are misses?",
        str(misses),
        (str(misses + 1), str(len(pages) - misses if len(pages) != 2 * misses else misses - 1)),
        {"pages": pages},
    )


_MATHS, _COMPUTERS = "mathematics", "computer science"
NUMBERS = (
    QuestionTemplate("math-11", _MATHS, 1, "number", _percent),
    QuestionTemplate("math-12", _MATHS, 2, "number", _pairs),
    QuestionTemplate("math-13", _MATHS, 2, "number", _remainder),
    QuestionTemplate("math-14", _MATHS, 2, "number", _lights),
    QuestionTemplate("math-15", _MATHS, 3, "number", _divisible),
    QuestionTemplate("math-16", _MATHS, 3, "number", _dice),
    QuestionTemplate("math-17", _MATHS, 3, "number", _paths),
    QuestionTemplate("math-18", _MATHS, 3, "number", _digit_sum),
    QuestionTemplate("cs-15", _COMPUTERS, 1, "number", _binary),
    QuestionTemplate("cs-16", _COMPUTERS, 2, "number", _bits),
    QuestionTemplate("cs-17", _COMPUTERS, 3, "number", _probing),
    QuestionTemplate("cs-18", _COMPUTERS, 3, "number", _cache),
)
