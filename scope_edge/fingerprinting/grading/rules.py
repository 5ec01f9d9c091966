"""Rules on the form of a reply. A word is a run of letters, digits, ' and -."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_END = re.compile(r"(?<![.!?])[.!?]+[\"')\]]*(?=\s|\Z)")
# Every rule asks for less than this.
_LONGEST = 10_000


def obeys(text: str, rules: Sequence[tuple[str, Any]]) -> bool:
    """Return whether a reply obeys every rule. Raises ValueError for an unknown rule."""
    for name, _ in rules:
        if name not in _RULES:
            raise ValueError(f"no rule is called {name!r}")
    return len(text) <= _LONGEST and all(_RULES[name](text, value) for name, value in rules)


def words(text: str) -> list[str]:
    """Return the words of a text in small letters."""
    return [found.group().lower() for found in _WORD.finditer(text)]


def lines(text: str) -> list[str]:
    """Return the lines of a text that are not blank, trimmed."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def _between(count: int, bounds: int | Sequence[int]) -> bool:
    low, high = (bounds, bounds) if isinstance(bounds, int) else bounds
    return low <= count <= high


def _sentences(text: str, bounds: int | Sequence[int]) -> bool:
    *ended, rest = _END.split(text)
    return not _WORD.search(rest) and _between(sum(_WORD.search(one) is not None for one in ended), bounds)


def _alone(wanted: str) -> re.Pattern[str]:
    """Match a text that is not a part of a longer word."""
    return re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)", re.IGNORECASE)


def _has(text: str, wanted: str) -> bool:
    return _alone(wanted).search(text) is not None


def _in_order(text: str, wanted: Sequence[str]) -> bool:
    at = 0
    for one in wanted:
        found = _alone(one).search(text, at)
        if found is None:
            return False
        at = found.end()
    return True


def _times(text: str, counts: Mapping[str, int]) -> bool:
    return all(len(_alone(word).findall(text)) == n for word, n in counts.items())


def _initials(parts: Sequence[str], wanted: str) -> bool:
    return [part[:1].lower() for part in parts] == list(wanted.lower())


_RULES: Mapping[str, Callable[[str, Any], bool]] = {
    # Counts: a number, or [least, most].
    "words": lambda text, n: _between(len(words(text)), n),
    "lines": lambda text, n: _between(len(lines(text)), n),
    "sentences": _sentences,
    "paragraphs": lambda text, n: _between(len([p for p in re.split(r"\n[ ]*\n", text) if p.strip()]), n),
    "characters": lambda text, n: _between(len(text), n),
    "words_each_line": lambda text, n: all(_between(len(words(line)), n) for line in lines(text)),
    "words_by_line": lambda text, counts: [len(words(line)) for line in lines(text)] == list(counts),
    "word_lengths": lambda text, counts: [len(word) for word in words(text)] == list(counts),
    "times": _times,
    # Required and forbidden text.
    "require": lambda text, wanted: all(_has(text, one) for one in wanted),
    "require_any": lambda text, wanted: any(_has(text, one) for one in wanted),
    "forbid": lambda text, unwanted: not any(_has(text, one) for one in unwanted),
    "forbid_characters": lambda text, unwanted: not set(text.lower()) & set(unwanted.lower()),
    "only_words": lambda text, allowed: set(words(text)) <= set(allowed),
    "order": _in_order,
    "distinct_words": lambda text, yes: (len(set(words(text))) == len(words(text))) is yes,
    "letters": lambda text, wanted: set(wanted) <= set(text.lower()),
    "times_characters": lambda text, counts: all(text.count(character) == n for character, n in counts.items()),
    "ascending_lines": lambda text, yes: (lines(text) == sorted(lines(text))) is yes,
    "ascending_words": lambda text, yes: (words(text) == sorted(words(text))) is yes,
    # Form.
    "starts": lambda text, wanted: text.startswith(wanted),
    "ends": lambda text, wanted: text.endswith(wanted),
    "case": lambda text, wanted: text == (text.upper() if wanted == "upper" else text.lower()),
    "line_initials": lambda text, wanted: _initials(lines(text), wanted),
    "word_initials": lambda text, wanted: _initials(words(text), wanted),
    "each_line_starts": lambda text, wanted: all(line.startswith(wanted) for line in lines(text)),
    "numbered": lambda text, yes: all(line.startswith(f"{i}. ") for i, line in enumerate(lines(text), 1)) is yes,
    "matches": lambda text, pattern: re.fullmatch(pattern, text) is not None,
}
