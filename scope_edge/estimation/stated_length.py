"""Lengths that a request states ("about 800 words", "in one sentence", "three bullet points"), as features of its text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scope_edge.types import Floats

# A request states a length where it begins or where it ends; pasted material lies between.
_BEGINNING, _END = 1_500, 500
_WORDS = {
    **dict.fromkeys(("a", "an", "one", "un", "une", "uno", "una", "ein", "eine", "einem", "einen", "um", "uma"), 1),
    **dict.fromkeys(("two", "deux", "dos", "zwei", "due", "dois", "twee"), 2),
    **dict.fromkeys(("three", "trois", "tres", "drei", "tre", "três", "drie"), 3),
    **dict.fromkeys(("four", "quatre", "cuatro", "vier"), 4),
    **dict.fromkeys(("five", "cinq", "cinco", "fünf", "vijf"), 5),
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
    **{character: value for value, character in enumerate("一二三四五六七八九十", 1)},
}
_NUMBER = (
    rf"(\d[\d,.]*|{'|'.join(sorted((word for word in _WORDS if len(word) > 1 or word == 'a'), key=len, reverse=True))})"
)
_MOST = 100_000.0


def _counted(units: str, between: str = r"[\s-]*") -> re.Pattern[str]:
    return re.compile(rf"\b{_NUMBER}{between}(?:{units})", re.IGNORECASE)


# Each gives two features: whether such a length is stated, and the log of the largest one.
_UNITS = (
    _counted(
        r"words?\b|palabras|mots\b|wörtern?\b|worte\b|parole\b|palavras|woorden|слов",
        r"[\s-]*(?:(?:to|or|[-–+])\s*\d+[\s-]*)?",
    ),
    re.compile(r"(\d+)\s*[文字]"),
    _counted(r"characters?\b|caracteres|caractères|zeichen\b|자\b|символов"),
    _counted(
        r"sentences?\b|phrases?\b|frases?\b|oraciones?\b|oración|sätzen?\b|satz\b|frasi\b|zinnen\b|предложени",
        r"[\s-]*(?:or \w+ )?(?:(?:short|complete) )?",
    ),
    _counted(
        r"paragraphs?\b|párrafos?\b|paragraphes?\b|absätzen?\b|absatz\b|parágrafos?\b|stanzas?\b", r"[\s-]*(?:short )?"
    ),
    _counted(
        r"bullet points?|bullets|points|items|ideas|examples|tips|ways|reasons|suggestions|options|names|questions|steps|lines"
        r"|titles|facts|headlines",
        r"[\s-]*(?:\w+ ){0,2}?",
    ),
    re.compile(r"(\d+|[一二三四五六七八九十])\s*[つ個点行文句段条个]"),
)
_BRIEF = re.compile(
    r"\b(?:brief(?:ly)?|short(?:ly)?|concise(?:ly)?|succinct|one word|yes or no|just the|only the|no explanation"
    r"|kurz|knapp|breve(?:mente)?|bref|court|кратко|вкратце)\b|簡潔|簡単に|短く|简短|一言",
    re.IGNORECASE,
)
_LONG = re.compile(
    r"\b(?:detailed|in detail|comprehensive|thorough(?:ly)?|long|in-depth|elaborate|essay|article|blog post|step[- ]by[- ]step"
    r"|full|complete|ausführlich|detallad[oa]|détaillée?)\b|詳しく|詳細|详细",
    re.IGNORECASE,
)
STATED = 2 * len(_UNITS) + 2


def stated_length(text: str) -> Floats:
    """Return the features of the lengths that a text states, (STATED,), each of order 1; 0 where it states none.

    For words, CJK characters, characters, sentences, paragraphs, list items and CJK counters: whether one is stated, and a
    third of its natural log. Then whether the text asks for something brief, and for something long.
    """
    read = text if len(text) <= _BEGINNING + _END else f"{text[:_BEGINNING]}\n{text[-_END:]}"
    found = np.zeros(STATED)
    for i, pattern in enumerate(_UNITS):
        values = [value for match in pattern.finditer(read) if (value := _value(match[1])) > 0]
        if values:
            found[2 * i : 2 * i + 2] = 1, np.log(max(values)) / 3
    found[-2:] = _BRIEF.search(read) is not None, _LONG.search(read) is not None
    return found


def _value(word: str) -> float:
    """Return the number that a word or figures spell, at most `_MOST`; 0 for none."""
    if (known := _WORDS.get(word.lower())) is not None:
        return float(known)
    figures = re.sub(r"[,.](?=\d{3}\b)", "", word).replace(",", "").rstrip(".")
    try:
        return min(float(figures), _MOST)
    except ValueError:
        return 0.0
