"""Sentences that name an answer and do not give it: they deny it, rule it out, or say it of another time, rank or speaker.

Every function reads a *blanked* text: folded, with "\\0" where the answer stood. All repetitions are bounded, so that the time
grows with the length of the text alone.
"""

from __future__ import annotations

import re

DENIED = re.compile(
    r"\b(?:not|no|never|neither|nor|cannot|without|incorrect\w*|wrong|false|untrue|mistaken|except|unlike|instead|rather|but|although|unless|"
    r"different|besides|excluding|almost|doubt\w*|unsure|unclear|unknown|whether|impossible|either|or|nicht|kein\w*|nein|oder|ausser|falsch\w*|pas|ni|"
    r"ou|sauf|faux|fausse|menos|excepto|falso|niet|geen|nem|nie|ikke|ei)\b|n't\b|\bnon\b|[不非没沒未错錯]|ない|以外|除了|間違|誤り|ません|아니|\bне\b|\bнет\b|\bили\b",
    re.IGNORECASE,
)
RETRACTED = re.compile(
    r"(?:^|[.!?\n]\s*)\W*(?:no\b[,.!]|(?:oh |but |hm+,? )?wait\b|actually\b|correction\b|sorry\b|hold on\b|on second thought|"
    r"i was wrong|that(?:'s| is| was) (?:wrong|incorrect|not right)|i (?:made|apologi))",
    re.IGNORECASE,
)
_NOT_BEFORE = re.compile(
    r"""(?:\b(?:not|never|neither|nor|cannot|except|excluding|besides|almost|nearly|(?:any|every)thing\ but|(?:any|all)\ but
        |(?<!none\ )other\ than
        |apart\ from|aside\ from|rul(?:e|es|ed|ing)\ out|eliminat\w+|exclud\w+|discard\w*|reject\w*|dismiss\w*|cross\w*\ out
        |skip\w*|ignor\w*|forget
        |nicht|kein\w*|ausser|pas|sauf|hormis|menos|excepto|salvo|no\ (?:es|son|puede))|n't)
        (?:\s+(?!but\b|sondern\b|mais\b|sino\b)\w+){0,2}[\s(\["'*$]{1,4}\0
      | (?:\bnot|n't)\ (?:think|believe|say|choose|pick)\s+(?:[\w']+\s+){0,4}\W{0,3}\0
      | \b(?:wrong|incorrect|mistake|misconception|myth|error|falsch\w*|fausse|faux)\s+(?:\w+\s+){0,3}
        (?:is|would\ be|ist|est|es)\s+\W{0,3}\0
      | (?:不是|并非|除了?)\s?\0""",
    re.VERBOSE,
)
_NOT_AFTER = re.compile(
    r"""\0[^\w\0.;]{0,4}(?:(?:which|that|it)\s+)?(?:
        (?:is|are|was|were|be|seems?|looks?|sounds?|(?:would|can|could|must|should)\ be|ist|war|ware|est|etait|serait|es|era|seria)
        (?:n't\b|\s+(?:\w+\s+){0,2}?(?P<word>not|never|no|wrong|incorrect|false|untrue|mistaken|ruled\ out|out|eliminated|excluded
            |impossible|unlikely|(?:too|zu|trop)\ \w+|demasiado|least\ (?:likely|plausible|probable)|less\ likely
            |falsch|nicht|kein\w*|faux|fausse|pas|falso|incorrecto)\b)
      | (?:(?:and|but)\ )?(?:that|this|it)(?:'s|\ is)\ (?:not|wrong|incorrect|false)\b | \(\W?(?:wrong|incorrect|false|falsch|faux)\b
      | no\ (?:es|son)\b | n'est\ pas\b | would\ have\ been\b | なし
      | (?:cannot|can't|can\ not|couldn't|wouldn't|won't)\ be\b | does(?:n't|\ not)\ (?:fit|work|match|apply)\b
      | (?:以外|之外|では?な|じゃな|ではあり|不是|不[对對正]|是?[错錯]|は?間違|は?誤))""",
    re.VERBOSE,
)
_TH = r"second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|next|2nd|3rd|\d{1,2}th"
_FORMERLY = (
    r"once|former|formerly|previous|previously|ex|fruher\w*|ehemal\w*|einst|damals"
    r"|autrefois|jadis|ancien\w*|antes|antigua\w*|anterior\w*"
)
# Each says the answer of another time, another rank, another speaker, or of one among several.
_SHIFTED = re.compile(
    rf"""\bused\ to\ be\b | \bif\ only\b | \b(?:fictional|imaginary|fictitious)\b | \bno\ longer\b
      | \A[^\0]{{0,200}}\b(?:{_FORMERLY})\b[^\0]{{0,40}}\0
      | \0\W{{1,3}}(?:is|was|were|has\ been|ist|war|est|etait|es|era|fue)\s+(?:\w+\s+)?(?:{_FORMERLY})\b
      | \bwas\b[^.]{{0,120}}\b(?:once|formerly|previously)\W{{0,3}}\Z
      | \b(?:was|were|war|etait|era|fue)\b[^.]{{0,120}}\b(?:until|till|bis|jusqu\w*|hasta)\b
      | \A\W{{0,3}}(?:until|till|bis|jusqu\w*|hasta)\b
      | \bwill\ (?:be|become)\b[^.]{{0,120}}\b(?:next|soon|future)\b
      | \b(?:{_TH})[-\s](?:\w+est|most|least|best|worst)\b | \b(?:zweit|dritt|viert)\w*ste\w?\b | \b(?:deuxieme|troisieme)\s(?:\w+\s)?plus\b
      | \b(?:segund|tercer)[ao]?\s(?:\w+\s)?(?:mas|mayor)\b
      | \bpeople\ (?:\w+\ )?(?:think|believe|say|assume|guess)\b | \b(?:misconception|myth)\b | \bcommon(?:ly)?\ (?:mistake|error|confus)
      | \0\W{{1,3}}(?:is|are|was|were|ist|est|es)\s+(?:one\s+of|among|eine?[rs]?\s+der|l'une?\s+des|un[ao]\s+de)\b
      | \0\W{{1,3}}(?:is|are|was|were|lies)\s+(?:an?\s+\w+\s+)?(?:near|close\ to|next\ to|outside)\b
      | (?:昔|以前|かつて|曾经|曾是|原来|从前)[^\0]{{0,40}}\0 | \0[^\0]{{0,9}}(?:曾经|曾是|以前|かつて)
      | [二三四五2-9]番目 | 第[二三四五2-9]""",
    re.VERBOSE,
)
_EITHER = re.compile(r"\0\W{0,9}\bor\b\W{0,9}\0")
_NEVER = re.compile(r"\b(?:not|never)\s+(?:(?:the|an?|in|by)\s+){0,4}\0")


def turned_down(question: str, blank: str) -> bool:
    """Return whether the words next to the answer deny it: "rule out \\0", "\\0 is too low". question: folded."""
    return _NOT_BEFORE.search(blank) is not None or any(
        not one["word"] or one["word"] not in question.split() for one in _NOT_AFTER.finditer(blank)
    )


def shifted(question: str, blank: str) -> bool:
    """Return whether the answer is said of another time, rank or speaker, in words that the folded question lacks."""
    return any(
        one.group().strip("\0 ") not in question and not set(re.findall(_FORMERLY, question)) & set(one.group().split())
        for one in _SHIFTED.finditer(blank)
    )


def denied(question: str, blank: str) -> bool:
    """Return whether a sentence denies, contrasts, shifts or offers alternatives in words that the folded question lacks."""
    blank = _EITHER.sub("\0", blank)
    said, asked = ({one.group() for one in DENIED.finditer(text)} for text in (blank, question))
    if said - asked or _NEVER.search(blank) or shifted(question, blank):
        return True
    return not asked and turned_down(question, blank)
