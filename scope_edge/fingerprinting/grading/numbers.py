"""Numbers as people and models write them: thousands separators, fractions, powers of ten, percent, units."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

from scope_edge.fingerprinting.grading.answers import WRAPPED

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_EXPONENT = 400
_MAX_LENGTH = 400
_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: value for value, word in enumerate(_NAMES.split())} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), 2)
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_WORD = "|".join((*_WORDS, *_SCALES))
# A number in words: a whole statement, or after "is" or a colon; never a part of a fraction.
_IN_WORDS = re.compile(
    rf"(?:\A|\b(?:is|are|was|were|equals)\s|:\s)\W*(?:(?:about|exactly|only|minus)\s+)?((?:{_WORD})(?:(?:\s+and)?[\s-]+(?:{_WORD}))*)\b"
    r"(?!\s+(?:halves|half|thirds?|quarters?|fifths?|sixths?|eighths?|tenths?|point|dozens?|percent|per\s+cent|or|to|and)\b)",
    re.IGNORECASE,
)
_VULGAR = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8"}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_NUMBER = re.compile(
    r"""(?<![\w.^])(?P<sign>[-+]?)[ ]?(?:
        (?P<whole>\d+)[ ]+(?P<part>\d+)/(?P<parts>\d+)
      | (?P<top>\d+)[ ]*/[ ]*(?P<bottom>\d+)
      | 10[ ]*(?:\^|\*\*)[ ]*(?P<power>[-+]?\d{1,4})
      | (?P<decimal>\d{1,3}(?:\.\d{3}){2,}(?:,\d+)? | \d{1,3}(?:\.\d{3})+,\d+ | \d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?
                    | \d{1,3}(?:,\d{3})+(?:\.\d+)? | \d{1,3}(?:[ ]\d{3})+(?:\.\d+)? | \d{1,3}(?:['_]\d{3})+(?:\.\d+)?
                    | \d+(?:[.,]\d+)? | \.\d+)
        (?:[eE](?P<e>[-+]?\d{1,4}) | [ ]*[x×*·⋅][ ]*10[ ]*(?:\^|\*\*)[ ]*(?P<times>[-+]?\d{1,4}))?
    )(?!\d)(?![.,]\d)""",
    re.VERBOSE,
)
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
# Characters that multiply the number before them.
_MULTIPLES = {"万": 4, "萬": 4, "만": 4, "億": 8, "亿": 8, "억": 8}
_CONTRAST = re.compile(r"(?:,\s*(?:and\s+)?|\s+and\s+)not\s+[^\W\d]{0,9}\s?[$€£(*]*[-+]?[\d.,]*\d")
_UNIT = re.compile(r"[ ]?(%|[A-Za-zµμ°Ωº][A-Za-z0-9µμ°Ω/·*^²³⁻¹-]*)")
# Known units: after a number that was asked for in another unit, they make the answer wrong.
_UNITS = frozenset(
    re.findall(
        r"\S+",
        "% m cm mm km nm µm g kg mg µg t s ms µs min h hour hours minute minutes second seconds day days week weeks month months "
        "year years L l mL ml J kJ MJ W kW MW kWh Wh N kN Pa kPa MPa bar atm V mV kV A mA Ω ohm ohms K °C °F C F mol mmol M Hz "
        "kHz MHz GHz eV MeV m/s km/h m/s2 m/s² bit bits byte bytes kB MB GB KiB MiB GiB",
    )
)


def _plain(text: str) -> str:
    """Turn LaTeX, markdown and raised digits of a statement into plain characters."""
    text = re.sub(r"\\d?t?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" \1/\2", text[:_MAX_LENGTH])
    text = WRAPPED.sub(r" \1", text)
    text = text.replace("{,}", ",").replace("\\times", "×").replace("\\cdot", "·").replace("\\approx", "≈")
    text = re.sub(r"\\[,;:! ]|~", " ", text.replace("\\%", "%").replace("^\\circ", "°"))
    text = re.sub(r"\\[()\[\]]|[$€£¥{}`]", "", text).replace("\\", "")
    text = re.sub(r"(?<=10)([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda raised: "^" + raised.group().translate(_RAISED), text)
    for sign, fraction in _VULGAR.items():
        text = text.replace(sign, f" {fraction}")
    text = re.sub(r"(?<=\d)([万萬만億亿억])(?!\d)", lambda unit: f"e{_MULTIPLES[unit.group()]} ", text)
    text = re.sub(rf"(?<=[{_CJK}])(?=[-+]?\d)|(?<=\d)(?=[{_CJK}])", " ", text)
    text = re.sub(r"(?<!\d)\*\*|\*\*(?!\d)", "", text)
    text = re.sub(r"(?<![\w)])[–—](?=[ ]?\d)", "-", text)
    return re.sub(r"[ ]+", " ", text).strip()


def numbers_in(text: str) -> frozenset[Fraction]:
    """Return the numbers of a text, without their units."""
    return frozenset(value for one in _NUMBER.finditer(_plain(text)) if (value := _value(one)) is not None)


def without_contrast(statement: str) -> str:
    """Return a statement without a number that it names to turn it down: "16, not 15"."""
    return _CONTRAST.sub("", statement)


def without_numbers(statement: str, mark: str) -> str:
    """Return a statement with a mark for each number and its unit; for numbers in words if there are no others."""
    text = _plain(statement)
    found = (
        _NUMBER.sub(mark, text)
        if _NUMBER.search(text)
        else _IN_WORDS.sub(lambda one: one.group().replace(one[1], mark), text)
    )
    return re.sub(rf"{mark} ?(\S+)", lambda one: mark if one[1] in _UNITS else one[0], found)


def read_number(
    statement: str, units: Mapping[str, float], given: frozenset[Fraction] = frozenset()
) -> Fraction | None:
    """Return the one number that a statement names, in the wanted unit; None for no number or several different ones.

    units: unit -> factor to the wanted unit. Empty: any unit after the number is ignored, except percent.
    given: the question's own numbers: a statement may repeat them before the one that it adds.
    """
    text = without_contrast(re.split(r"[=≈≃≅]", _plain(statement))[-1])
    # Brackets after a number hold a remark: "120 km (75 miles)".
    for candidate in (re.sub(r"(?<=\S)\s*\([^()]*\)", "", text), text):
        found = list(_NUMBER.finditer(candidate))
        values = {_in_unit(one, candidate, units) for one in found}
        if len(values) > 1 and _value(found[-1]) not in given and all(_value(one) in given for one in found[:-1]):
            values = {_in_unit(found[-1], candidate, units)}
        if values:
            return values.pop() if len(values) == 1 else None
    return _in_words(text.strip(" *_.,!"))


def _in_words(text: str) -> Fraction | None:
    found = list(_IN_WORDS.finditer(text))
    # In a sentence, "one" may be a pronoun.
    if (
        len(found) != 1
        or (found[0].start() == 0 and found[0].end() < len(text))
        or (found[0].group(1).lower() == "one" and len(text) > 3)
    ):
        return None
    total, part = 0, 0
    for word in re.split(r"[\s-]+", found[0].group(1).lower()):
        if word in _WORDS:
            part += _WORDS[word]
        elif word == "hundred":
            part = max(part, 1) * 100
        elif word in _SCALES:
            total, part = total + max(part, 1) * _SCALES[word], 0
    sign = -1 if re.search(r"minus\s+\Z", text[: found[0].start(1)], re.IGNORECASE) else 1
    return Fraction(sign * (total + part))


def plain_number(text: str) -> Fraction:
    """Read the number of a key. Raises ValueError."""
    found = _NUMBER.fullmatch(text.strip())
    value = _value(found) if found else None
    if value is None:
        raise ValueError(f"{text!r} is not a number")
    return value


def near(found: Fraction, key: Fraction, relative: float, absolute: float) -> bool:
    """Return whether a number is the key's, within the larger tolerance; for fractions at least the loss of 12 digits."""
    least = 0.0 if key.denominator == 1 else 1e-12
    allowed = max(Fraction(absolute), abs(key) * Fraction(max(relative, least)))
    return abs(found - key) <= allowed


def _in_unit(found: re.Match[str], text: str, units: Mapping[str, float]) -> Fraction | None:
    value = _value(found)
    follows = _UNIT.match(text, found.end())
    unit = follows.group(1).rstrip("*_-^/·") if follows else ""
    if value is None or not unit:
        return value
    if unit in units:
        return value * Fraction(units[unit]).limit_denominator(10**12)
    if unit == "%":
        return None if units else value / 100
    return None if units and unit in _UNITS else value


def _value(found: re.Match[str]) -> Fraction | None:
    sign = -1 if found["sign"] == "-" else 1
    try:
        if found["whole"]:
            return sign * (Fraction(found["whole"]) + Fraction(int(found["part"]), int(found["parts"])))
        if found["top"]:
            return sign * Fraction(int(found["top"]), int(found["bottom"]))
    except ZeroDivisionError:
        return None
    exponent = int(found["power"] or found["e"] or found["times"] or 0)
    if abs(exponent) > _MAX_EXPONENT:
        return None
    return sign * _decimal(found["decimal"] or "1") * Fraction(10) ** exponent


def _decimal(text: str) -> Fraction:
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+(?:,\d+)?", text) and (text.count(".") > 1 or "," in text):
        text = text.replace(".", "")
    grouped = re.fullmatch(r"\d{1,3}([, '_]\d{2,3})*[, '_]\d{3}(\.\d+)?", text)
    plain = re.sub(r"[, '_]", "", text) if grouped else text.replace(",", ".")
    return Fraction(plain)
