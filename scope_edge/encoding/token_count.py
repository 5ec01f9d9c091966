"""The prompt tokens of a text without a tokenizer: a fitted estimate and its 95 % bound.

Counts are cl100k tokens, the unit of the routing data; `ModelCard.token_factor` converts them to a model's own. Byte-pair
encoders first cut a text into words, groups of up to three digits, runs of punctuation and runs of white space, and then
spend one token on a common piece and more on a rare one. So the estimate counts such pieces (with `bytes.translate` and
`bytes.count`: linear time, nothing per character in Python) and weighs them. `build_scripts/fit_prompt_tokens.py` fits
the weights, checks the bound on held-out queries, and prints the tables below.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import mul

from scope_edge.types import Query


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """Tokens of a text: `expected`, and `high`, a bound that at least 95 % of texts like the fitted ones stay under."""

    expected: float
    high: float

    def __add__(self, other: PromptTokens) -> PromptTokens:
        return PromptTokens(self.expected + other.expected, self.high + other.high)


@dataclass(frozen=True, slots=True)
class Weight:
    """A counted piece's part of the expected tokens and of the bound."""

    expected: float
    high: float


# Tokens that a chat template adds around one message. Routing data cannot show them (its surplus is the benchmarks' own
# instructions: 78 tokens in ZeroEval, 85 in reasoning-gym), so this counts the published templates: 7 tokens for the
# OpenAI format, 8-10 for Gemma and Llama 3, about 30 where the template inserts a default system prompt (Qwen 2.5).
CHAT_WRAPPING = PromptTokens(expected=12.0, high=40.0)

# And around each further message: a role and the marks of its beginning and end, in the same templates.
TURN_WRAPPING = PromptTokens(expected=5.0, high=10.0)

# Pieces of ASCII text, fitted on the four routing data sets (17,298 queries, sets weighed equally): `expected` by
# non-negative least squares on the relative error, `high` as a quantile above it. Queries left out are covered in 97.1 %
# (ZeroEval), 99.6 % (KOR-Bench), 98.4 % (MMLU-Pro) and 96.6 % (reasoning-gym); the mean error is 4 to 5 %.
# The quantile and the pieces were chosen with these tables in view, so the coverage is somewhat optimistic.
ASCII_WEIGHTS: Mapping[str, Weight] = {
    "words": Weight(0.893, 0.893),
    "4 letters in a row": Weight(0.157, 0.35),
    "12 letters in a row": Weight(0.104, 0.341),
    "4 consonants in a row": Weight(1.062, 3.488),
    "3 vowels in a row": Weight(0.513, 0.915),
    "4 capitals in a row": Weight(1.298, 1.298),
    "capital inside a word": Weight(1.043, 4.877),
    "small letter after a capital": Weight(0.161, 0.161),
    "word with a capital": Weight(0.189, 0.189),
    "up to 3 digits": Weight(1.093, 1.093),
    "digit after a blank": Weight(0.98, 0.98),
    "digit after a letter": Weight(0.122, 0.3),
    "punctuation marks": Weight(0.267, 0.363),
    "runs of punctuation": Weight(0.586, 0.594),
    "4 marks in a row": Weight(0.541, 1.2),
    "line breaks": Weight(0.373, 0.559),
    "4 line breaks in a row": Weight(0.5, 2.0),
    "indents": Weight(0.896, 0.896),
    "16 blanks in a row": Weight(0.25, 1.0),
    "letters of a text without English": Weight(0.0, 0.3),
}

# Other scripts, per character, by the first byte of its UTF-8 form. The first five rows are fitted like the above. The
# data has hardly any of the rest: they are the cl100k counts and byte lengths of FLORES-200 that Petrov et al. published
# (2023, arXiv 2305.15425): `expected` is the middle of a script's languages, `high` 1.4 times the worst of them, or all
# its bytes, which byte-level encoding cannot exceed.
SCRIPT_WEIGHTS: Mapping[str, Weight] = {
    "Latin-1": Weight(0.539, 1.5),
    "quotes and dashes": Weight(0.537, 1.5),
    "box drawing": Weight(1.187, 1.187),
    "ruled line": Weight(0.0, 0.5),
    "other symbols": Weight(1.863, 3.0),
    "Latin extended": Weight(1.1, 2.0),
    "Greek": Weight(0.97, 2.0),
    "Cyrillic": Weight(0.66, 1.3),
    "Armenian": Weight(2.0, 2.0),
    "Hebrew": Weight(1.1, 2.0),
    "Arabic": Weight(0.85, 1.6),
    "South Asian, Georgian, Ethiopic": Weight(1.6, 3.0),
    "Chinese, Japanese": Weight(1.3, 2.1),
    "Korean": Weight(1.2, 2.1),
    "other 3-byte": Weight(2.0, 3.0),
    "emoji and rare": Weight(3.0, 4.0),
    "blank before another script": Weight(0.2, 1.0),
}
_PUBLISHED = (b"b", b"g", b"y", b"m", b"h", b"r", b"i", b"c", b"k", b"o", b"f")
_ASCII_EXPECTED, _ASCII_HIGH = zip(*((w.expected, w.high) for w in ASCII_WEIGHTS.values()), strict=True)
_SCRIPT_EXPECTED, _SCRIPT_HIGH = zip(*((w.expected, w.high) for w in SCRIPT_WEIGHTS.values()), strict=True)

_LOWER, _UPPER, _DIGITS = bytes(range(97, 123)), bytes(range(65, 91)), b"0123456789"
_BLANKS, _BREAKS = b" \t\x0b\x0c", b"\r\n"
_LETTERS = _LOWER + _UPPER
_VOWELS = b"aeiouyAEIOUY"
_PUNCTUATION = bytes(b for b in range(128) if b not in _LETTERS + _DIGITS + _BLANKS + _BREAKS)


def _table(classes: Mapping[str, Iterable[int]]) -> bytes:
    """Return a translation table from each byte to the letter of its class, "." without one."""
    table = bytearray(b"." * 256)
    for name, members in classes.items():
        for byte in members:
            table[byte] = ord(name)
    return bytes(table)


_CASE = _table({"l": _LOWER, "u": _UPPER, "d": _DIGITS, "s": _BLANKS})
_WORD = _table({"l": _LETTERS})
_MARK = _table({"p": _PUNCTUATION, "n": _BREAKS})
_SOUND = _table({"v": _VOWELS, "k": (b for b in _LETTERS if b not in _VOWELS)})
_GAP = _table({"s": _BLANKS, "n": _BREAKS})
_SCRIPT = _table(
    {
        "a": range(0xC2, 0xC4),
        "b": range(0xC4, 0xCE),
        "g": range(0xCE, 0xD0),
        "y": range(0xD0, 0xD4),
        "m": range(0xD4, 0xD7),
        "h": range(0xD7, 0xD8),
        "r": range(0xD8, 0xE0),
        "i": range(0xE0, 0xE2),
        "t": range(0xE2, 0xE3),
        "c": range(0xE3, 0xEA),
        "k": range(0xEB, 0xEE),
        "o": (0xEA, 0xEE, 0xEF),
        "f": range(0xF0, 0xF8),
    }
)
_EDGE = _table({"s": _BLANKS, "x": range(0x80, 0x100)})
# General punctuation (curly quotes, dashes, ...), box drawing, and the run of it that is about one token.
_QUOTES, _BOXES, _RULE = b"\xe2\x80", b"\xe2\x94", "────".encode()

# Words that nearly every English sentence has and few other languages do; a text with one of them in every 12 words is
# taken as English throughout.
_ENGLISH = (b" the ", b" and ", b" of ", b" you ", b" that ", b" with ", b" what ")
_WORDS_PER_ENGLISH = 12


def estimate_prompt_tokens(text: str) -> PromptTokens:
    """Estimate the cl100k tokens of `text` as (part of) a prompt, without any chat wrapping.

    `high` covers at least 95 % of queries in each routing data set, for queries and task families left out of the fit,
    and never exceeds the bytes of the text, the most a byte-level encoder can spend. `expected` is for English and code;
    prose in other Latin-script languages costs 1.3 to 2 times that, within `high`.
    """
    raw = text.encode("utf-8", "surrogatepass")
    if not raw:
        return PromptTokens(0.0, 0.0)
    counts = ascii_counts(raw)
    expected, high = sum(map(mul, counts, _ASCII_EXPECTED)), sum(map(mul, counts, _ASCII_HIGH))
    if not raw.isascii():
        counts = script_counts(raw)
        expected += sum(map(mul, counts, _SCRIPT_EXPECTED))
        high += sum(map(mul, counts, _SCRIPT_HIGH))
    limit = float(len(raw))
    high = min(max(high, 1.0), limit)
    return PromptTokens(min(max(expected, 1.0), high), high)


def query_prompt_tokens(query: Query) -> PromptTokens:
    """Estimate the cl100k tokens of a query's whole prompt: text, system prompt, history, attached strings, chat wrapping."""
    tokens = estimate_prompt_tokens(query.text) + CHAT_WRAPPING + attached_tokens(query.attached)
    for _, text in query.history:
        tokens = tokens + estimate_prompt_tokens(text) + TURN_WRAPPING
    return tokens if query.system is None else tokens + estimate_prompt_tokens(query.system)


def attached_tokens(strings: Sequence[str]) -> PromptTokens:
    """Estimate the cl100k tokens of strings in a JSON value, with the marks around each."""
    return estimate_prompt_tokens(json.dumps(strings, ensure_ascii=False)) if strings else PromptTokens(0.0, 0.0)


def ascii_counts(raw: bytes) -> tuple[float, ...]:
    """Count the pieces of the ASCII part of a UTF-8 text, in the order of `ASCII_WEIGHTS`; other bytes only separate them."""
    case = raw.translate(_CASE)
    word = b"." + raw.translate(_WORD)
    mark = b"." + raw.translate(_MARK)
    sound = raw.translate(_SOUND)
    gap = raw.translate(_GAP)
    # Digits are cut into threes from the left: 3 stands for a full group, then 2 for a remainder of two.
    groups = case.replace(b"ddd", b"3").replace(b"dd", b"2")
    words = word.count(b".l")
    foreign = 0.0
    if words:
        english = _WORDS_PER_ENGLISH * sum(map(raw.count, _ENGLISH)) / words
        foreign = word.count(b"l") * max(0.0, 1.0 - english)
    return (
        words,
        word.count(b"llll"),
        word.count(b"llllllllllll"),
        sound.count(b"kkkk"),
        sound.count(b"vvv"),
        case.count(b"uuuu"),
        case.count(b"lu"),
        case.count(b"ul"),
        case.count(b"su"),
        groups.count(b"3") + groups.count(b"2") + groups.count(b"d"),
        case.count(b"sd"),
        case.count(b"ld") + case.count(b"ud"),
        mark.count(b"p"),
        mark.count(b".p") + mark.count(b"np"),
        mark.count(b"pppp"),
        mark.count(b".n"),
        gap.count(b"nnnn"),
        gap.count(b"ss."),
        gap.count(b"ssssssssssssssss"),
        foreign,
    )


def script_counts(raw: bytes) -> tuple[float, ...]:
    """Count the characters beyond ASCII of a UTF-8 text by script, in the order of `SCRIPT_WEIGHTS`."""
    script = raw.translate(_SCRIPT)
    quotes, boxes, rules = raw.count(_QUOTES), raw.count(_BOXES), raw.count(_RULE)
    return (
        script.count(b"a"),
        quotes,
        boxes - 4 * rules,
        rules,
        script.count(b"t") - quotes - boxes,
        *(script.count(letter) for letter in _PUBLISHED),
        raw.translate(_EDGE).count(b"sx"),
    )
