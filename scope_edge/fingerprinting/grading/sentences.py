"""Answers inside sentences: which of the known candidates a reply names, and whether it claims the right one.

Small models rarely announce an answer; they write "The pancreas is the organ that makes insulin." A sentence counts if it
names the right answer and no other candidate, denies nothing, and says it where an answer stands: as its subject, after a
verb that names ("is called"), or among the question's own words. Everything doubtful is wrong: a right answer that is
missed costs less than a wrong one that is believed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scope_edge.fingerprinting.grading.answers import visible

_MOST = 80  # sentences that are read
_SPLIT = re.compile(r"(?<=[.!?。！？])[\"')*]*\s+(?=[\"'(*]*[^\W\d_a-z])|(?<=[。！？])|\n+")
_WORDS = re.compile(r"[^\W_]+")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_LIST = re.compile(r"\s*(?:[-*•]|\(?(?:\d{1,2}|[A-Ha-h])[.)])\s+\S")
_DENIED = re.compile(
    r"\b(?:not|no|never|neither|nor|cannot|without|incorrect\w*|wrong|false|untrue|mistaken|except|unlike|instead|rather|but|although|unless|"
    r"different|besides|excluding|almost|doubt\w*|unsure|unclear|unknown|whether|impossible|either|or|nicht|kein\w*|nein|oder|pas|ni|ou|niet|geen|nem|nie|ikke|ei)\b|n't\b|\bnon\b|[不非没沒未]|ない|ません|아니|\bне\b|\bнет\b|\bили\b",
    re.IGNORECASE,
)
RETRACTED = re.compile(
    r"(?:^|[.!?\n]\s*)\W*(?:no\b[,.!]|(?:oh |but |hm+,? )?wait\b|actually\b|correction\b|sorry\b|hold on\b|on second thought|"
    r"i was wrong|that(?:'s| is| was) (?:wrong|incorrect|not right)|i (?:made|apologi))",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(r"\b(?:so|thus|therefore|hence|answer|correct|conclusion|finally)\b", re.IGNORECASE)
_LINK = re.compile(
    r"(?:\b(?:is|are|was|were|be|called|named|termed|by|as|for|means?|namely)|[=:])[\s\"'*_(]*(?:(?:an?|the|probably|likely)\s+)*[\"'*_(]*\Z",
    re.IGNORECASE,
)
_FUNCTION = frozenset(
    re.findall(
        r"\w+",
        "a an the this that these those it its he she they there here his her their which who whom whose what where when how is are "
        "was were be been being am do does did has have had can could will would must should think thought believe of in on at to "
        "from by for with as into out over and also so thus hence therefore then than called named known answer correct right "
        "option yes i we you one s",
    )
)


@dataclass(frozen=True, slots=True)
class _Mention:
    start: int
    end: int
    right: bool


def folded(text: str) -> str:
    """Return a text without accents and capitals; most texts keep their length. The voicing marks of kana are no accents."""
    plain = unicodedata.normalize("NFKD", visible(text))
    plain = "".join(one for one in plain if not unicodedata.combining(one) or one in "\u3099\u309a")
    return unicodedata.normalize("NFC", plain).casefold()


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, the last ones of a long one; questions and bare marks are left out."""
    found = [one.strip() for one in _SPLIT.split(text)]
    return [one for one in found if one and not one.rstrip("\"')* ").endswith(("?", "？")) and _WORDS.search(one)][
        -_MOST:
    ]


def claims(question: str, text: str, right: Sequence[str], wrong: Sequence[str], *, exact: bool = False) -> bool:
    """Return whether a reply without an announced answer claims a right answer. right, wrong: spellings of candidates."""
    parts = sentences(text)
    named = [_mentions(one, right, wrong, exact) for one in parts]
    holding = [i for i, found in enumerate(named) if any(one.right for one in found)]
    if not holding or _lists(text):
        return False
    at = holding[-1]
    if any(not one.right for found in named for one in found):
        # Both are named somewhere: only a conclusion at the end counts, or an answer at the start that repeats the question.
        last = max(i for i, found in enumerate(named) if found)
        if at == last and _CONCLUDES.search(parts[at]):
            pass
        elif named[0] and all(one.right for one in named[0]) and _repeats(question, parts[0]):
            if any(_repeats(question, parts[i]) for i, found in enumerate(named) if i and found):
                return False
            at = 0
        else:
            return False
        holding = [at]
    if any(RETRACTED.match(one) or _DENIED.match(one) or is_bare(one) for one in parts[at + 1 :]):
        return False
    if any(denies(question, parts[i], right) for i in holding):
        return False
    return any(_claimed(question, parts[i], named[i]) for i in holding)


def claimed(question: str, sentence: str, right: Sequence[str], wrong: Sequence[str], *, exact: bool = False) -> bool:
    """Return whether one sentence claims a right answer."""
    return _claimed(question, sentence, _mentions(sentence, right, wrong, exact))


def denies(question: str, sentence: str, spellings: Iterable[str] = ()) -> bool:
    """Return whether a sentence denies, contrasts or offers alternatives in words that neither question nor answer have."""
    left = folded(sentence)
    for one in sorted(map(folded, spellings), key=len, reverse=True):
        left = left.replace(one, "\0")
    return _denied(question, re.sub(r"\0\W*\bor\b\W*\0", "\0", left))


def _denied(question: str, blank: str) -> bool:
    asked = {one.group() for one in _DENIED.finditer(folded(question))}
    said = {one.group() for one in _DENIED.finditer(blank)}
    return bool(said - asked) or re.search(r"\b(?:not|never)\s+(?:(?:the|an?|in|by)\s+)*\0", blank) is not None


def options_named(sentence: str, options: Sequence[str]) -> set[int]:
    """Return which options a sentence names by their text, as indices. The text of an option within a longer one is not named."""
    left, found = folded(sentence), set[int]()
    for i in sorted(range(len(options)), key=lambda i: len(options[i]), reverse=True):
        text = folded(options[i]).strip("\"'. ").replace(",", "")
        for one in reversed(list(_pattern(text, between=r",?\s+").finditer(left))):
            # A number may be a step of a calculation; as an answer it ends a statement or follows "is".
            if (
                re.search(r"[^\W\d_]", text)
                or _LINK.search(left[: one.start()])
                or not left[one.end() :].strip(" .!*_")
            ):
                found.add(i)
            left = f"{left[: one.start()]}\0{left[one.end() :]}"
    return found


def _claimed(question: str, sentence: str, named: Sequence[_Mention]) -> bool:
    plain = folded(sentence)
    if not named or not all(one.right for one in named) or _words(sentence) in _words(question):
        return False
    blank = plain
    for one in named:
        blank = blank[: one.start] + "\0" * (one.end - one.start) + blank[one.end :]
    if _denied(question, re.sub(r"\0\W*\bor\b\W*\0", "\0", blank)):
        return False
    return any(_stands(question, plain, sentence, blank, one) for one in named)


def _stands(question: str, plain: str, sentence: str, blank: str, one: _Mention) -> bool:
    """Return whether a mention stands where an answer stands."""
    before, after = blank[: one.start], blank[one.end :]
    known = set(_WORDS.findall(folded(question)))
    if len(plain) == len(sentence) and _joined(sentence, one, known):
        return False
    if re.match(r"\W*(?:and\b|&|/)(?!\W*\0)", after):
        return False
    if _CJK.search(plain[one.start : one.end]):
        return re.fullmatch(r"\W*(?:です|だ|である|でした|입니다|이다|이에요|예요)?\W*", after) is not None
    asked = {_stem(word) for word in known - _FUNCTION}
    head, tail = ({_stem(w) for w in _WORDS.findall(part) if w not in _FUNCTION} for part in (before, after))
    if head <= asked and (tail <= asked or _LINK.search(before)):
        return True
    if _LINK.search(before):
        return bool(head & asked) or not head or before.lstrip().startswith("it ")
    return not head and bool(tail & asked)


def _joined(sentence: str, one: _Mention, known: set[str]) -> bool:
    """Return whether the mention is a part of a longer name: a capital stands next to it that the question does not have."""
    before = re.search(r"([^\W_]+)[ -]\Z", sentence[: one.start])
    after = re.match(r"[ -]([^\W_]+)|,\s+([^\W_]+)", sentence[one.end :])
    words = [before.group(1)] if before else []
    words += [word for word in after.groups() if word] if after else []
    return any(word[0].isupper() and word.casefold() not in known | _FUNCTION for word in words)


def _mentions(sentence: str, right: Sequence[str], wrong: Sequence[str], exact: bool) -> list[_Mention]:
    """Return where a sentence names candidates, longer spellings first and none inside another."""
    plain, found = folded(sentence), list[_Mention]()
    spellings = [(one, True) for one in right] + [(one, False) for one in wrong]
    for spelling, good in sorted(spellings, key=lambda pair: len(pair[0]), reverse=True):
        whole = exact or len(spelling) < 3
        text = visible(sentence) if whole else plain
        if len(text) != len(plain):
            continue
        for one in _pattern(spelling if whole else folded(spelling)).finditer(text):
            if all(one.end() <= other.start or one.start() >= other.end for other in found):
                found.append(_Mention(one.start(), one.end(), good))
    return found


def _pattern(spelling: str, between: str = r"\s+") -> re.Pattern[str]:
    words = re.sub(r"^(?:the|an?)\s+", "", spelling.strip())
    inner = between.join(map(re.escape, words.split()))
    return re.compile(inner if _CJK.search(words) else rf"(?<![\w'’+^-])(?<!\d[.,]){inner}(?![\w'’^]|[-+.,]\w)")


def _lists(text: str) -> bool:
    return sum(_LIST.match(line) is not None for line in text.split("\n")) > 1


def is_bare(sentence: str) -> bool:
    """Return whether a line is an answer by itself rather than a sentence."""
    words = len(sentence) / 2 if _CJK.search(sentence) else len(sentence.split())
    return words <= 3 and not sentence.rstrip().endswith(("!", ":"))


def _words(text: str) -> str:
    return f" {' '.join(_WORDS.findall(folded(text)))} "


def _repeats(question: str, sentence: str) -> bool:
    asked = {_stem(word) for word in _WORDS.findall(folded(question)) if word not in _FUNCTION}
    return 2 * len(asked & {_stem(word) for word in _WORDS.findall(folded(sentence))}) >= len(asked) > 0


def _stem(word: str) -> str:
    return re.sub(r"(?:ies|ied|ing|es|ed|s|y|e)\Z", "", word) if len(word) > 4 else word.rstrip("s")
