"""Templates on programs: what a few lines print. The key is worked out, not run."""

from __future__ import annotations

from scope_edge.fingerprinting.fresh.draws import Draws, QuestionDraft, QuestionTemplate

_WORDS = ("harbour", "blanket", "compass", "thunder", "orchard", "village", "lantern", "captain", "meadows", "granite")


def _prints(code: str) -> str:
    return f"What does this Python program print?\n\n```python\n{code}\n```"


def _loop(d: Draws) -> QuestionDraft:
    stop, step, start = d.whole(17, 29), d.whole(3, 5), d.whole(1, 3)
    numbers = range(start, stop, step)
    key = sum(numbers)
    code = f"total = 0\nfor i in range({start}, {stop}, {step}):\n    total += i\nprint(total)"
    return QuestionDraft(_prints(code), str(key), (str(key + stop), str(numbers[-1])), {"code": code})


def _slices(d: Draws) -> QuestionDraft:
    word = d.pick(_WORDS)
    start, end = d.whole(1, 2), d.whole(4, 6)
    key = word[start:end] + word[-1].upper()
    code = f'word = "{word}"\nprint(word[{start}:{end}] + word[-1].upper())'
    return QuestionDraft(
        _prints(code), key, (word[start : end + 1] + word[-1].upper(), word[start - 1 : end]), {"code": code}
    )


def _distance(d: Draws) -> QuestionDraft:
    away, times = d.whole(3, 19), d.whole(2, 9)
    below, above = away - d.whole(4, 9), away + d.whole(2, 8)
    code = f"def f(x):\n    return abs(x - {away}) * {times}\n\nprint(f({below}), f({above}))"
    near, far = (away - below) * times, (above - away) * times
    return QuestionDraft(
        _prints(code), f"{near} {far}", (f"{-near} {far}", f"{near} {abs(above * times - away)}"), {"code": code}
    )


def _list_steps(d: Draws) -> QuestionDraft:
    numbers = d.some(range(1, 30), 4)
    added, at = d.whole(30, 60), d.whole(1, 2)
    xs = [*numbers, added]
    taken = xs[at]
    xs = [taken * 2, *xs[:at], *xs[at + 1 :]]
    code = f"xs = {numbers}\nxs.append({added})\ny = xs.pop({at})\nxs.insert(0, y * 2)\nprint(xs[::-1], len(xs))"
    other = [*numbers, added, taken * 2]
    return QuestionDraft(
        _prints(code), f"{xs[::-1]} {len(xs)}", (f"{xs} {len(xs)}", f"{other[::-1]} {len(other)}"), {"code": code}
    )


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
    return QuestionDraft(_prints(code), str(key), (str(sum(digits)), str(key + 1)), {"code": code})


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
    return QuestionDraft(
        _prints(code),
        str(sorted(counts.values())),
        (str(plain), str([*list(counts.values())[::-1], 0])),
        {"code": code},
    )


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
    wrong = [shared, copy, row]
    return QuestionDraft(
        _prints(code), str([shared, copy, shared]), (str(wrong), str([[0, 0, 0], copy, [0, 0, 0]])), {"code": code}
    )


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
    return QuestionDraft(
        _prints(code),
        f"{sum(found)} {len(found)}",
        (f"{sum(primes)} {len(primes)}", f"{sum(found) + 1} {len(found)}"),
        {"code": code},
    )


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
    return QuestionDraft(
        _prints(code), f"{ys[:k]} {right}", (f"{sorted(xs)[:k]} {right}", f"{ys[:k]} {wrong}"), {"code": code}
    )


_FIELD = "programming"
PROGRAMS = (
    QuestionTemplate("prog-10", _FIELD, 1, "output", _loop),
    QuestionTemplate("prog-11", _FIELD, 1, "output", _slices),
    QuestionTemplate("prog-12", _FIELD, 1, "output", _distance),
    QuestionTemplate("prog-13", _FIELD, 2, "output", _list_steps),
    QuestionTemplate("prog-14", _FIELD, 2, "output", _recursion),
    QuestionTemplate("prog-15", _FIELD, 2, "output", _counting),
    QuestionTemplate("prog-16", _FIELD, 3, "output", _aliases),
    QuestionTemplate("prog-17", _FIELD, 3, "output", _breaks),
    QuestionTemplate("prog-18", _FIELD, 3, "output", _top_sum),
)
