"""Templates with a number as the key: mathematics, computers, and quantities of science, economics and bills."""

from __future__ import annotations

import math
from fractions import Fraction

from scope_edge.fingerprinting.fresh.draws import Draws, QuestionDraft, QuestionTemplate

_CLOSE = {"relative": 0.006}


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


def _average_speed(d: Draws) -> QuestionDraft:
    first, second = d.whole(8, 20), d.whole(22, 40)
    slow, fast = 5 * d.whole(5, 12), 5 * d.whole(5, 12)
    key = Fraction(60 * (first + second), slow + fast)
    wrong = (Fraction(60 * first, slow) + Fraction(60 * second, fast)) / 2
    wrong = wrong if abs(wrong - key) > 1 else key + 5
    return QuestionDraft(
        f"A bus takes {slow} minutes for the first {first} km of its way and {fast} minutes for the remaining {second} km. What "
        "is its average speed over the whole way, in km/h, to one decimal?",
        f"{float(key):.1f}",
        (f"{float(wrong):.1f}", f"{float(key) / 60:.3f}"),
        {"way": first + second, "minutes": slow + fast},
        {"units": (("km/h", 1.0), ("m/s", 3.6)), "absolute": 0.06},
    )


def _resistors(d: Draws) -> QuestionDraft:
    series, left, right = 10 * d.whole(2, 9), 10 * d.whole(3, 12), 10 * d.whole(3, 12)
    volts = d.pick((6, 9, 12, 24))
    pair = Fraction(left * right, left + right)
    whole = volts / (series + pair)
    key = 1000 * whole * right / (left + right)
    return QuestionDraft(
        f"A resistor of {series} Ω is in series with two resistors of {left} Ω and {right} Ω that are parallel to each other. "
        f"The whole is connected to an ideal {volts} V battery. What current flows through the resistor of {left} Ω, in mA, to "
        "one decimal? (Where both parallel resistors are equal, through either.)",
        f"{float(key):.1f}",
        (f"{float(1000 * whole):.1f}", f"{1000 * volts / (series + left):.1f}"),
        {"series": series, "left": left, "right": right, "volts": volts},
        {"units": (("mA", 1.0), ("A", 1000.0)), **_CLOSE},
    )


def _bounces(d: Draws) -> QuestionDraft:
    height, share, contacts = d.pick((1.6, 2.0, 2.4, 3.2, 4.0)), d.pick((50, 60, 70, 80)), d.whole(4, 6)
    q = share / 100
    key = height + 2 * height * q * (1 - q ** (contacts - 1)) / (1 - q)
    return QuestionDraft(
        f"A ball is dropped from a height of {height} m. After every contact with the floor it rises to {share} % of the height "
        f"it fell from. How far has it travelled, up and down together, when it touches the floor for the {contacts}th time? "
        "Give metres to two decimals.",
        f"{key:.2f}",
        (f"{height * (1 - q**contacts) / (1 - q):.2f}", f"{key + 2 * height * q**contacts:.2f}"),
        {"height": height, "share": q, "contacts": contacts},
        {"units": (("m", 1.0), ("cm", 0.01)), "absolute": 0.011},
    )


def _collision(d: Draws) -> QuestionDraft:
    moving, resting = d.whole(2, 9), d.whole(2, 9)
    speed, friction = d.whole(4, 12), d.pick((0.15, 0.2, 0.25, 0.3, 0.4))
    after = moving * speed / (moving + resting)
    key = after**2 / (2 * friction * 9.81)
    return QuestionDraft(
        f"A sled of {moving} kg moves at {speed} m/s, hits a resting sled of {resting} kg and sticks to it. From there on both "
        f"slide together over ground with a friction coefficient of {friction}. With g = 9.81 m/s², how far do they slide after "
        "the collision, in metres, to two decimals?",
        f"{key:.2f}",
        (
            f"{speed**2 / (2 * friction * 9.81):.2f}",
            f"{moving / (moving + resting) * speed**2 / (2 * friction * 9.81):.2f}",
        ),
        {"moving": moving, "resting": resting, "speed": speed, "friction": friction},
        {"units": (("m", 1.0), ("cm", 0.01)), "relative": 0.006, "absolute": 0.011},
    )


def _lenses(d: Draws) -> QuestionDraft:
    first, second = d.whole(8, 15), d.whole(6, 14)
    before = first + d.whole(4, 20)
    image = Fraction(first * before, before - first)
    # Far enough apart that the first image lies well before the second lens's focus: the last image is real.
    apart = math.ceil(image) + second + d.whole(5, 20)
    left = apart - image
    key = second * left / (left - second)
    wrong = Fraction(second * apart, apart - second)
    return QuestionDraft(
        f"An object stands {before} cm before a thin converging lens with a focal length of {first} cm. A second converging lens "
        f"with a focal length of {second} cm stands {apart} cm behind the first. How far behind the second lens does the final "
        "image lie, in cm, to one decimal?",
        f"{float(key):.1f}",
        (f"{float(wrong):.1f}", f"{float(key) + 2:.1f}"),
        {"first": first, "second": second, "before": before, "apart": apart},
        {"units": (("cm", 1.0), ("mm", 0.1), ("m", 100.0)), "absolute": 0.06},
    )


def _molar_mass(d: Draws) -> QuestionDraft:
    carbon, oxygen = d.whole(3, 12), d.whole(2, 6)
    hydrogen = 2 * d.whole(carbon // 2 + 1, carbon)
    key = (1201 * carbon + Fraction(1008, 10) * hydrogen + 1600 * oxygen) / 100
    return QuestionDraft(
        f"A compound has the formula C{carbon}H{hydrogen}O{oxygen}. What is its molar mass in g/mol, to one decimal? (C 12.01, "
        "H 1.008, O 16.00)",
        f"{float(key):.1f}",
        (f"{float(key) - 16:.1f}", "29.0"),
        {"carbon": carbon, "hydrogen": hydrogen, "oxygen": oxygen},
        {"units": (("g/mol", 1.0), ("kg/mol", 1000.0)), "absolute": 0.16},
    )


def _dilution(d: Draws) -> QuestionDraft:
    volume, weak, factor = 10 * d.whole(4, 30), d.pick((0.1, 0.2, 0.25, 0.5)), d.pick((3, 4, 5, 6, 8))
    strong = round(weak * factor, 2)
    key = volume * (factor - 1)
    return QuestionDraft(
        f"How many millilitres of water must be added to {volume} mL of a {strong} mol/L solution to make it a {weak} mol/L "
        "solution? (Volumes add up.)",
        str(key),
        (str(key + volume), str(volume * factor * factor)),
        {"volume": volume, "strong": strong, "weak": weak},
        {"units": (("mL", 1.0), ("ml", 1.0), ("L", 1000.0)), **_CLOSE},
    )


def _limiting(d: Draws) -> QuestionDraft:
    nitrogen, hydrogen = Fraction(d.whole(12, 45), 10), Fraction(d.whole(50, 110), 10)
    key = min(2 * nitrogen, 2 * hydrogen / 3)
    other = max(2 * nitrogen, 2 * hydrogen / 3)
    return QuestionDraft(
        f"{float(nitrogen)} mol of N₂ and {float(hydrogen)} mol of H₂ react to NH₃ as completely as they can. How many moles of "
        "NH₃ form, to two decimals?",
        f"{float(key):.2f}",
        (f"{float(other) + 0.2:.2f}", f"{float(nitrogen + hydrogen):.2f}"),
        {"nitrogen": nitrogen, "hydrogen": hydrogen},
        {"units": (("mol", 1.0), ("moles", 1.0)), "absolute": 0.011},
    )


def _mixed_ph(d: Draws) -> QuestionDraft:
    acid_volume, base_volume = 5 * d.whole(4, 12), 5 * d.whole(4, 12)
    acid, base = d.pick((0.05, 0.1, 0.2)), d.pick((0.04, 0.08, 0.15))
    while abs(excess := acid * acid_volume - base * base_volume) < 0.5:
        acid_volume += 5
    left = abs(excess) / (acid_volume + base_volume)
    key = -math.log10(left) if excess > 0 else 14 + math.log10(left)
    return QuestionDraft(
        f"{acid_volume} mL of {acid} mol/L hydrochloric acid are mixed with {base_volume} mL of {base} mol/L sodium hydroxide "
        "solution at 25 °C. What is the pH of the mixture, to two decimals? (Take activities as concentrations.)",
        f"{key:.2f}",
        (f"{14 - key:.2f}" if abs(key - 7) > 0.1 else "2.00", f"{key + 0.3:.2f}"),
        {"acid": acid * acid_volume, "base": base * base_volume, "volume": acid_volume + base_volume},
        {"absolute": 0.02},
    )


def _interest(d: Draws) -> QuestionDraft:
    amount, rate, years = 100 * d.whole(12, 80), d.pick((2, 3, 4, 5)), d.whole(3, 8)
    key = amount + amount * rate * years // 100
    return QuestionDraft(
        f"{amount} euros earn {rate} % simple interest a year (no interest on interest). How many euros are there after {years} "
        "years, interest included?",
        str(key),
        (str(key - amount), f"{amount * (1 + rate / 100) ** years:.2f}"),
        {"amount": amount, "rate": rate, "years": years},
        {"units": (("euros", 1.0), ("euro", 1.0), ("EUR", 1.0))},
    )


def _unit_tax(d: Draws) -> QuestionDraft:
    a, b, c, e, tax = 10 * d.whole(12, 30), d.whole(2, 6), d.whole(2, 6), 10 * d.whole(1, 4), d.whole(3, 9)
    key = Fraction(a + e + c * tax, b + c)
    free = Fraction(a + e, b + c)
    return QuestionDraft(
        f"Buyers demand Q = {a} - {b}P, where P is the price they pay. Sellers supply Q = {c}P - {e}, where P is what they keep. "
        f"A tax of {tax} per unit is the difference between the two. Which price do buyers pay in equilibrium, to two decimals?",
        f"{float(key):.2f}",
        (f"{float(free):.2f}", f"{float(free) + tax:.2f}"),
        {"a": a, "b": b, "c": c, "e": e, "tax": tax},
        {"absolute": 0.011},
    )


def _present_value(d: Draws) -> QuestionDraft:
    outlay, inflow, years = 1000 * d.whole(20, 60), 1000 * d.whole(6, 14), d.whole(4, 7)
    scrap, rate = 500 * d.whole(4, 16), d.pick((5, 6, 7, 8, 9))
    q = 1 + rate / 100
    key = -outlay + inflow * (1 - q**-years) / (q - 1) + scrap * q**-years
    return QuestionDraft(
        f"A machine costs {outlay} now. It brings in {inflow} at the end of each of the next {years} years and is then sold for "
        f"{scrap}, at the end of the last of these years. What is the net present value at {rate} % a year, rounded to a whole "
        "number?",
        f"{key:.0f}",
        (f"{-outlay + inflow * years + scrap}", f"{key - scrap * q**-years + scrap:.0f}"),
        {"outlay": outlay, "inflow": inflow, "years": years, "scrap": scrap, "q": q},
        {"absolute": 1.5},
    )


def _change(d: Draws) -> QuestionDraft:
    bread, cheese = 5 * d.whole(45, 89), 5 * d.whole(61, 119)
    loaves, pieces = d.whole(2, 3), d.whole(2, 3)
    key = 5000 - loaves * bread - pieces * cheese
    return QuestionDraft(
        f"You buy {loaves} loaves of bread at {bread / 100:.2f} each and {pieces} pieces of cheese at {cheese / 100:.2f} each "
        "and pay with a 50 note. How much change do you get?",
        f"{key / 100:.2f}",
        (f"{(5000 - key) / 100:.2f}", f"{(5000 - bread - cheese) / 100:.2f}"),
        {"prices": [bread] * loaves + [cheese] * pieces},
    )


def _electricity(d: Draws) -> QuestionDraft:
    used, first, second = d.whole(620, 980), 10 * d.whole(15, 25), 10 * d.whole(30, 50)
    low, middle, high = d.whole(18, 24), d.whole(26, 32), d.whole(34, 41)
    fee, tax = d.whole(8, 15), d.pick((7, 19, 20, 21))
    cents = fee * 100 + first * low + (second - first) * middle + (used - second) * high
    key = cents * (100 + tax) / 10000
    return QuestionDraft(
        f"An electricity bill has a base fee of {fee}.00; the first {first} kWh cost {low} cents each, the next "
        f"{second - first} kWh {middle} cents each and all beyond {high} cents each. On the whole {tax} % tax is added. What is "
        f"the bill for {used} kWh, to two decimals?",
        f"{key:.2f}",
        (f"{cents / 100:.2f}", f"{(fee * 100 + used * high) * (100 + tax) / 10000:.2f}"),
        {"used": used, "steps": (first, second), "cents": (low, middle, high), "fee": fee, "tax": tax},
        {"absolute": 0.011},
    )


NUMBERS = (
    QuestionTemplate("math-11", "mathematics", 1, "number", _percent),
    QuestionTemplate("math-12", "mathematics", 2, "number", _pairs),
    QuestionTemplate("math-13", "mathematics", 2, "number", _remainder),
    QuestionTemplate("math-14", "mathematics", 2, "number", _lights),
    QuestionTemplate("math-15", "mathematics", 3, "number", _divisible),
    QuestionTemplate("math-16", "mathematics", 3, "number", _dice),
    QuestionTemplate("math-17", "mathematics", 3, "number", _paths),
    QuestionTemplate("math-18", "mathematics", 3, "number", _digit_sum),
    QuestionTemplate("cs-15", "computer science", 1, "number", _binary),
    QuestionTemplate("cs-16", "computer science", 2, "number", _bits),
    QuestionTemplate("cs-17", "computer science", 3, "number", _probing),
    QuestionTemplate("cs-18", "computer science", 3, "number", _cache),
    QuestionTemplate("phys-14", "physics", 1, "number", _average_speed),
    QuestionTemplate("phys-15", "physics", 2, "number", _resistors),
    QuestionTemplate("phys-16", "physics", 2, "number", _bounces),
    QuestionTemplate("phys-17", "physics", 3, "number", _collision),
    QuestionTemplate("phys-18", "physics", 3, "number", _lenses),
    QuestionTemplate("chem-15", "chemistry", 1, "number", _molar_mass),
    QuestionTemplate("chem-16", "chemistry", 2, "number", _dilution),
    QuestionTemplate("chem-17", "chemistry", 2, "number", _limiting),
    QuestionTemplate("chem-18", "chemistry", 3, "number", _mixed_ph),
    QuestionTemplate("econ-16", "economics", 1, "number", _interest),
    QuestionTemplate("econ-17", "economics", 2, "number", _unit_tax),
    QuestionTemplate("econ-18", "economics", 3, "number", _present_value),
    QuestionTemplate("daily-15", "everyday tasks", 1, "number", _change),
    QuestionTemplate("daily-16", "everyday tasks", 3, "number", _electricity),
)
