"""Verifiers of the templates in scope_edge/fingerprinting/fresh/: the key worked out from what was drawn, by counting, trying or simulating
where the template has a formula, and by another formula where it counts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

Facts = Mapping[str, Any]
_DAYS = ("Saturday", "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday")


def _pairs(f: Facts) -> int:
    return sum(
        f["a"] * x + f["b"] * y == f["total"] for x in range(f["total"] + 1) for y in range(f["total"] // f["b"] + 1)
    )


def _remainder(f: Facts) -> int:
    left = 1
    for _ in range(f["power"]):
        left = left * f["base"] % f["modulus"]
    return left


def _lights(f: Facts) -> int:
    return sum(all(second % period == 0 for period in f["periods"]) for second in range(1, f["seconds"] + 1))


def _divisible(f: Facts) -> int:
    return sum((n % f["a"] == 0 or n % f["b"] == 0) and n % f["c"] != 0 for n in range(1, f["top"] + 1))


def _dice(f: Facts) -> Fraction:
    rolls = list(itertools.product(*(range(1, n + 1) for n in f["faces"])))
    return Fraction(sum(sum(roll) % f["by"] == 0 for roll in rolls), len(rolls))


def _paths(f: Facts) -> int:
    ways = {(0, 0): 1}
    for x, y in itertools.product(range(f["right"] + 1), range(f["up"] + 1)):
        if (x, y) != (0, 0):
            ways[x, y] = 0 if (x, y) == (f["x"], f["y"]) else ways.get((x - 1, y), 0) + ways.get((x, y - 1), 0)
    return ways[f["right"], f["up"]]


def _digit_sum(f: Facts) -> int:
    return sum(sum(map(int, str(n))) == f["total"] for n in range(1, f["top"]))


def _probing(f: Facts) -> int:
    slots: list[int | None] = [None] * f["size"]
    for key in f["keys"]:
        order = [*range(key % f["size"], f["size"]), *range(key % f["size"])]
        slots[next(slot for slot in order if slots[slot] is None)] = key
    return slots.index(f["keys"][-1])


def _cache(f: Facts) -> int:
    """A use is a hit when fewer than 3 other pages were used since the page's last use."""
    pages = f["pages"]
    hits = 0
    for i, page in enumerate(pages):
        last = max((j for j in range(i) if pages[j] == page), default=None)
        hits += last is not None and len(set(pages[last + 1 : i])) < 3
    return len(pages) - hits


def _resistors(f: Facts) -> float:
    """Node voltage between the series resistor and the pair, by bisection of Kirchhoff's current law."""
    low, high = 0.0, float(f["volts"])
    for _ in range(100):
        at = (low + high) / 2
        surplus = (f["volts"] - at) / f["series"] - at / f["left"] - at / f["right"]
        low, high = (at, high) if surplus > 0 else (low, at)
    return 1000 * low / f["left"]


def _bounces(f: Facts) -> float:
    way, height = f["height"], f["height"]
    for _ in range(f["contacts"] - 1):
        height *= f["share"]
        way += 2 * height
    return float(way)


def _collision(f: Facts) -> float:
    """By energy: what is left after the collision is used up by friction."""
    momentum = f["moving"] * f["speed"]
    mass = f["moving"] + f["resting"]
    return float(momentum**2 / (2 * mass) / (f["friction"] * mass * 9.81))


def _lenses(f: Facts) -> float:
    """By ray matrices: the image lies where the ray's height no longer depends on its angle at the object."""
    a, b, c, e = 1.0, float(f["before"]), 0.0, 1.0
    for focus, gap in ((f["first"], f["apart"]), (f["second"], 0)):
        c, e = c - a / focus, e - b / focus
        a, b = a + gap * c, b + gap * e
    return -b / e


def _ph(f: Facts) -> float:
    """From the balance of charges, water's own ions included, by bisection."""
    surplus = (f["acid"] - f["base"]) / f["volume"]
    low, high = 0.0, 14.0
    for _ in range(100):
        at = (low + high) / 2
        low, high = (at, high) if 10**-at - 10 ** (at - 14) > surplus else (low, at)
    return low


def _unit_tax(f: Facts) -> float:
    low, high = 0.0, 1000.0
    for _ in range(100):
        price = (low + high) / 2
        excess = f["a"] - f["b"] * price - (f["c"] * (price - f["tax"]) - f["e"])
        low, high = (price, high) if excess > 0 else (low, price)
    return low


def _present_value(f: Facts) -> float:
    value = float(f["scrap"])
    for _ in range(f["years"]):
        value = (value + f["inflow"]) / f["q"]
    return value - f["outlay"]


def _electricity(f: Facts) -> float:
    low, high = f["steps"]
    cents = sum(f["cents"][0 if i < low else 1 if i < high else 2] for i in range(f["used"]))
    return (f["fee"] + cents / 100) * (1 + f["tax"] / 100)


def _older(f: Facts) -> str:
    pairs = [clue.rstrip(".").split(" is older than ") for clue in f["clues"]]
    names = {name for pair in pairs for name in pair}
    (order,) = [
        p for p in itertools.permutations(names) if all(p.index(older) < p.index(younger) for older, younger in pairs)
    ]
    return order[1]


def _liars(f: Facts) -> int:
    """Truth as a sum: a speaker's kind and what is said must agree, bit by bit."""
    fits = []
    for world in range(16):
        bit = [world >> i & 1 for i in range(4)]
        said = [
            {"lies": 1 - bit[j], "same": 1 - (bit[j] ^ bit[k]), "differ": bit[j] ^ bit[k]}[kind]
            for kind, j, k in f["said"]
        ]
        if said == bit:
            fits.append(sum(bit))
    (count,) = fits
    return count


def _fits(home: Mapping[str, int], clue: tuple[str, str, str]) -> bool:
    kind, a, b = clue
    if kind == "not end":
        return home[a] in (2, 3)
    up = home[a] - home[b]
    return {"owns not": up != 0, "above": up > 0, "next": abs(up) == 1, "pet above": up > 0, "above pet": up == -1}[
        kind
    ]


def _floors(f: Facts) -> dict[str, Any]:
    answers = set()
    for floors in itertools.permutations(range(1, 5)):
        home = dict(zip(f["people"], floors, strict=True))
        for places in itertools.permutations(range(1, 5)):
            home.update(zip(f["pets"], places, strict=True))
            if all(_fits(home, clue) for clue in f["told"]):
                owner = next(one for one in f["people"] if home[one] == home[f["pet"]])
                answers.add((owner, home[owner]))
    ((owner, floor),) = answers
    return {"owner": owner, "floor": floor}


def _weekday(f: Facts) -> str:
    """Zeller's congruence."""
    year, month, day = f["date"]
    year += f["later"]
    if month < 3:
        year, month = year - 1, month + 12
    century, rest = divmod(year, 100)
    return _DAYS[(day + 13 * (month + 1) // 5 + rest + rest // 4 + century // 4 + 5 * century) % 7]


CHECKS: Mapping[str, Callable[[Facts], Any]] = {
    "math-11": lambda f: Fraction(f["share"], 100) * f["whole"] + f["more"],
    "math-12": lambda f: _pairs(f),
    "math-13": lambda f: _remainder(f),
    "math-14": lambda f: _lights(f),
    "math-15": lambda f: _divisible(f),
    "math-16": lambda f: _dice(f),
    "math-17": lambda f: _paths(f),
    "math-18": lambda f: _digit_sum(f),
    "cs-15": lambda f: sum(2**i for i in range(8) if f["number"] >> i & 1),
    "cs-16": lambda f: sum(2**i for i in range(8) if (f["a"] >> i & 1) != (f["b"] >> i & 1) and f["c"] >> i & 1),
    "cs-17": lambda f: _probing(f),
    "cs-18": lambda f: _cache(f),
    "phys-14": lambda f: f["way"] / (f["minutes"] / 60),
    "phys-15": lambda f: _resistors(f),
    "phys-16": lambda f: _bounces(f),
    "phys-17": lambda f: _collision(f),
    "phys-18": lambda f: _lenses(f),
    "chem-15": lambda f: math.fsum([12.01] * f["carbon"] + [1.008] * f["hydrogen"] + [16.0] * f["oxygen"]),
    "chem-16": lambda f: f["volume"] * f["strong"] / f["weak"] - f["volume"],
    "chem-17": lambda f: 2 * min(f["nitrogen"], f["hydrogen"] / 3),
    "chem-18": lambda f: _ph(f),
    "econ-16": lambda f: f["amount"] + sum(Fraction(f["amount"] * f["rate"], 100) for _ in range(f["years"])),
    "econ-17": lambda f: _unit_tax(f),
    "econ-18": lambda f: _present_value(f),
    "daily-15": lambda f: Fraction(5000 - sum(f["prices"]), 100),
    "daily-16": lambda f: _electricity(f),
    "daily-17": lambda f: len(range(f["start"], f["end"])) - sum(f["breaks"]),
    "logic-15": lambda f: _older(f),
    "logic-16": lambda f: _liars(f),
    "logic-17": lambda f: _floors(f),
    "logic-18": lambda f: _weekday(f),
}
