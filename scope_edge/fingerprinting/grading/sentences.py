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
from itertools import islice

from scope_edge.fingerprinting.grading.answers import visible
from scope_edge.fingerprinting.grading.denials import DENIED, RETRACTED, denied, turned_down

_MOST = 80  # sentences that are read
_MENTIONS = 20  # of one spelling in a sentence; after more, a sentence only repeats itself
_NEAR = 60  # characters before a mention in which a verb that names it stands
_SPLIT = re.compile(r"(?<=[.!?。！？])[\"')*]*\s+(?=[\"'(*]*[^\W\d_a-z])|(?<=[。！？])|\n+")
_WORDS = re.compile(r"[^\W_]+")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_LIST = re.compile(r"\s*(?:[-*•]|\(?(?:\d{1,2}|[A-Ha-h])[.)])\s+\S")
_CONCLUDES = re.compile(r"\b(?:so|thus|therefore|hence|answer|correct|conclusion|finally)\b", re.IGNORECASE)
_LINK = re.compile(
    r"(?:\b(?:is|are|was|were|be|called|named|termed|by|as|for|means?|namely)|[=:])[\s\"'*_(]*(?:(?:an?|the|probably|likely)\s+)*[\"'*_(]*\Z",
    re.IGNORECASE,
)
# A verb that gives a name to what stands before it, or to what stands behind it and has an article.
_GIVES = re.compile(
    r"\s(?:is|are|was|were|ist|war|est|es)\s+(?P<the>(?:the|der|die|das|la|le|les|el|los)\s+)?", re.IGNORECASE
)
_NAME = re.compile(r"[\s*\"'(]*([^\W\d_a-z]\w*(?:[ -][^\W\d_a-z]\w*)*)")
_DEFINITE = re.compile(r"\W*(?:the|der|die|das|la|le|les|el|los)\b", re.IGNORECASE)
_ARTICLES = frozenset(
    [
        "der",
        "die",
        "das",
        "des",
        "dem",
        "den",
        "von",
        "was",
        "ist",
        "la",
        "le",
        "les",
        "de",
        "du",
        "quelle",
        "est",
        "el",
        "los",
        "del",
        "cual",
        "es",
    ]
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
    named = [_mentions(one, right, wrong, exact) or _rival(question, one) for one in parts]
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
    if any(RETRACTED.match(one) or DENIED.match(one) or is_bare(one) for one in parts[at + 1 :]):
        return False
    if any(denies(question, parts[i], right) for i in holding):
        return False
    return any(_claimed(question, parts[i], named[i]) for i in holding)


def claimed(question: str, sentence: str, right: Sequence[str], wrong: Sequence[str], *, exact: bool = False) -> bool:
    """Return whether one sentence claims a right answer."""
    return _claimed(question, sentence, _mentions(sentence, right, wrong, exact))


def denies(question: str, sentence: str, spellings: Iterable[str] = ()) -> bool:
    """Return whether a sentence denies, contrasts, shifts or offers alternatives in words that neither question nor answer have."""
    return denied(folded(question), blanked(sentence, spellings))


def contradicts(question: str, text: str, spellings: Sequence[str]) -> bool:
    """Return whether a text turns its answer down, or a sentence of it gives another answer to the question."""
    return turned_down(folded(question), blanked(text, spellings)) or any(
        not _mentions(one, spellings, (), exact=False) and _rival(question, one) for one in sentences(text)
    )


def blanked(sentence: str, spellings: Iterable[str]) -> str:
    """Return a sentence, folded, with a blank for each spelling of the answer."""
    left = folded(sentence)
    for one in sorted(map(folded, spellings), key=len, reverse=True):
        left = left.replace(one, "\0")
    return left


def options_named(sentence: str, options: Sequence[str]) -> set[int]:
    """Return which options a sentence names by their text, as indices. The text of an option within a longer one is not named."""
    left, found = folded(sentence), set[int]()
    for i in sorted(range(len(options)), key=lambda i: len(options[i]), reverse=True):
        text = folded(options[i]).strip("\"'. ").replace(",", "")
        pattern, end = _pattern(text, between=r",?\s+"), len(left.rstrip(" .!*_"))
        # A number may be a step of a calculation; as an answer it ends a statement or follows "is".
        worded = re.search(r"[^\W\d_]", text) is not None
        if any(worded or one.end() >= end or _linked(left, one.start()) for one in pattern.finditer(left)):
            found.add(i)
        left = pattern.sub("\0", left)
    return found


def _linked(text: str, at: int) -> bool:
    return _LINK.search(text[max(at - _NEAR, 0) : at]) is not None


def _claimed(question: str, sentence: str, named: Sequence[_Mention]) -> bool:
    plain = folded(sentence)
    if not named or not all(one.right for one in named) or _words(sentence) in _words(question):
        return False
    blank = _blanked(plain, named)
    if len(named) >= _MENTIONS:
        blank = blank[: max(one.end for one in named)]
    if denied(folded(question), re.sub("\0+", "\0", blank)):
        return False
    return any(_stands(question, plain, sentence, blank, one) for one in named)


def _blanked(plain: str, named: Sequence[_Mention]) -> str:
    """Return a text with every character of its mentions blank."""
    parts, at = list[str](), 0
    for one in sorted(named, key=lambda one: one.start):
        parts += plain[at : one.start], "\0" * (one.end - one.start)
        at = one.end
    return "".join((*parts, plain[at:]))


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
    linked = _linked(blank, one.start)
    head, tail = ({_stem(w) for w in _WORDS.findall(part) if w not in _FUNCTION} for part in (before, after))
    if head <= asked and (tail <= asked or linked):
        return True
    if linked:
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
        for one in islice(_pattern(spelling if whole else folded(spelling)).finditer(text), _MENTIONS):
            if all(one.end() <= other.start or one.start() >= other.end for other in found):
                found.append(_Mention(one.start(), one.end(), good))
    return found


def _rival(question: str, sentence: str) -> list[_Mention]:
    """Return a name that a sentence gives to what the question asks for ("The capital is Perth"), as a wrong candidate."""
    asked, known = _content(question), set(_WORDS.findall(folded(question)))
    lower = {one for one in _WORDS.findall(question) if one.islower()}
    for link in islice(_GIVES.finditer(sentence), 3):
        before, after = sentence[: link.start()], sentence[link.end() :]
        named = _NAME.match(after)
        if named is None and link["the"] and (named := _NAME.match(before)) and before[named.end() :].strip(" *\"')"):
            named = None
        topic = before.rsplit(",")[-1] if named and named.string is after else after
        said = _content(topic)
        if named is None or not said <= asked or 2 * len(said) < max(len(asked), 1):
            continue
        definite = link["the"] if named.string is before else _DEFINITE.match(topic)
        if named.group(1).casefold() not in known | _FUNCTION and (
            definite or lower & {*_WORDS.findall(topic)} - _FUNCTION
        ):
            return [_Mention(*named.span(1), right=False)]
    return []


def _content(text: str) -> set[str]:
    return {_stem(word) for word in _WORDS.findall(folded(text)) if word not in _FUNCTION | _ARTICLES}


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
    asked = _content(question)
    return 2 * len(asked & {_stem(word) for word in _WORDS.findall(folded(sentence))}) >= len(asked) > 0


def _stem(word: str) -> str:
    return re.sub(r"(?:ies|ied|ing|es|ed|s|y|e)\Z", "", word) if len(word) > 4 else word.rstrip("s")
