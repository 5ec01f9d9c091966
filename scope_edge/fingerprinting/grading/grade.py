"""One grader for each kind of anchor. A reply is right or wrong; a reply that names two answers is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scope_edge.estimation.anchor_spec import LETTERS
from scope_edge.fingerprinting.grading.answers import answer_part, bare, block, fences, stated, statements, visible
from scope_edge.fingerprinting.grading.denials import turned_down
from scope_edge.fingerprinting.grading.numbers import (
    near,
    numbers_in,
    plain_number,
    read_number,
    without_contrast,
    without_numbers,
)
from scope_edge.fingerprinting.grading.sentences import (
    blanked,
    claimed,
    claims,
    contradicts,
    denies,
    folded,
    is_bare,
    options_named,
)

if TYPE_CHECKING:
    from scope_edge.estimation.anchor_spec import AnchorSpec, Kind

# A word of a rule is a run of letters, digits, ' and -.
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_END = re.compile(r"(?<![.!?])[.!?]+[\"')\]]*(?=\s|\Z)")
# Every rule asks for less than this.
_LONGEST = 10_000
_MOST_STARTS = 200
_CLOSE = 1e-9
_CAUSE = re.compile(
    r"\s*(?:,\s+(?:because|since|as|which|who|where)\b|\s+because\b|\s+since\b|\s+[-–—]\s+|;\s|\.\s).*\Z", re.DOTALL
)
# What names a number that is not meant.
_BESIDE = re.compile(
    r"\b(?:not|isn't|never|(?:more|less|fewer|greater|larger|smaller) than)\s+(?:(?:about|exactly|equal to)\s+)?[$€£(*]*[-+]?[\d.]",
    re.IGNORECASE,
)
_REMARK = re.compile(r"\s*\([^()]*\)\Z")
_ALTERNATIVE = re.compile(r"[\s,;.(–—-]*(?:or|and|nor|no|wait|actually|maybe|perhaps)\b", re.IGNORECASE)
_LEADS = re.compile(
    r"(?<!\S)(?:is|are|was|were|=|ist|est|es|son)\s|:\s|\b(?:(?:it|that|this|he|she)'s|c'est)\s|(?:は|是)\s?",
    re.IGNORECASE,
)
_INSTEAD = re.compile(r"(?:not|nicht|pas|no)\s[^,.;]{1,40}?,?\s(?:but|sondern|mais|sino)\s(.+)", re.IGNORECASE)
_COPULA = re.compile(r"(?:です|でした|だ|である|입니다|이다)[。.!！]?\Z")


def grade(spec: AnchorSpec, text: str | None) -> float | None:
    """Grade a reply in [0, 1]. None without a reply: a failed call is missing, not wrong; a refusal or empty reply is wrong."""
    return None if text is None else float(_GRADERS[spec.kind](spec, text))


def _choice(spec: AnchorSpec, text: str) -> bool:
    letters = LETTERS[: len(spec.options)]
    options = {_folded(option): letter for option, letter in zip(spec.options, letters, strict=True)}
    text = answer_part(spec, text)
    announced = stated(text) is not None
    where = statements(text) if announced else _unlisted(text, letters)
    for statement in where:
        statement = re.sub(rf",\s?(?:and )?not (?:option |choice )?[(\[]?[{letters}]\b[)\]]?", "", statement)
        named = _letters(bare(statement), letters, options)
        if named:
            return named == {spec.key} and not turned_down(folded(spec.question), _without(statement, spec))
        if texts := options_named(statement, spec.options):
            # Without an announcement, other sentences may name other options.
            texts |= set() if announced else options_named(text, spec.options)
            return {letters[i] for i in texts} == {spec.key} and not denies(spec.question, statement, spec.options)
    return False


def _unlisted(text: str, letters: str) -> list[str]:
    """Return where a letter may stand that is no part of a list of several: the last line and the first, as `statements`."""
    listed = re.compile(rf"\W*([{letters}])[).:\]]+\s", re.IGNORECASE)
    found = [one and one.group(1).upper() for one in map(listed.match, lines(text))]
    if len({*found} - {None}) < 2:
        return statements(text)
    return [] if found[-1] else statements(text)[:1]


def _without(statement: str, spec: AnchorSpec) -> str:
    """Return a statement, folded, without the letter of the right option and the option's text."""
    letter = spec.key if spec.key == "A" else f"[{spec.key}{spec.key.lower()}]"
    statement = re.sub(rf"[(\[]?(?<![\w'’]){letter}(?![\w'’])[)\]]?", "\0", statement)
    option = spec.options[LETTERS.index(spec.key)]
    if "\0" not in statement:
        return blanked(statement, (option,))
    return re.sub(rf"\0[^\w,;]{{0,4}}{re.escape(folded(option))}", "\0", folded(statement))


def _letters(text: str, letters: str, options: Mapping[str, str]) -> set[str]:
    """Return the letters of the options that a statement names, by letter or text."""
    whole = options.get(_folded(text))
    if whole:
        return {whole}
    alone = re.fullmatch(rf"(?:option|choice)?\W*([{letters}{letters.lower()}])\W*", text, re.IGNORECASE)
    if alone:
        return {alone.group(1).upper()}
    first = re.match(
        rf"(?:option\s+|choice\s+)?[(\[*\"']*([{letters}])(?:[)\].:,*\"']+|\s+[-–—(=])\s*(.*)",
        text,
        re.DOTALL | re.IGNORECASE,
    )
    if first:
        letter, rest = first.group(1).upper(), bare(first.group(2))
        plain = f"{_folded(rest.strip('()'))} "
        said = next(
            (options[one] for one in sorted(options, key=len, reverse=True) if plain.startswith(f"{one} ")), None
        )
        # Its own text may hold what looks like a letter of another: "vitamin C".
        return {letter, said} if said else {letter} | _loose(rest, letters, options)
    return _loose(text, letters, options)


def _loose(text: str, letters: str, options: Mapping[str, str]) -> set[str]:
    """Return letters that stand alone in a sentence; "A" may be a word: it counts only in brackets or after "option"."""
    # The text of an option may hold what looks like a letter; beside a letter ("Mars (C)") it is an answer of its own.
    for one in sorted((one for one in options if len(one) > 1), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(one)}(?!\w)", f"\0{options[one].lower()}", text, flags=re.IGNORECASE)
    beside = re.findall(rf"\0(\w)(?:[\s,:*–—-]{{0,4}}[(\[][{letters}][)\]]|\s?[-–—:,]\s?[{letters}]\W{{0,4}}\Z)", text)
    marked = re.findall(rf"\(([{letters}])\)|\b(?:[Oo]ption|[Cc]hoice)\s+([{letters}])\b", text)
    alone = re.findall(rf"(?<![\w'’°.-])([{letters.replace('A', '')}])(?![\w'’-])", text)
    listed = re.search(
        rf"\bA\)?\s*(?:or|and|[,/&])\s*\(?[{letters}]\b|\b[{letters}]\)?\s*(?:or|and|[,/&])\s*\(?A\b", text
    )
    return {a or b for a, b in marked} | set(alone) | ({"A"} if listed else set()) | {one.upper() for one in beside}


def _short(spec: AnchorSpec, text: str) -> bool:
    text = answer_part(spec, text)
    spellings = (spec.key, *spec.accept)
    right, wrong = ({_folded(one, spec.exact) for one in some} for some in (spellings, spec.tempting))
    announced = stated(text) is not None
    for i, statement in enumerate(statements(text)):
        heard = _heard(spec, statement)
        if heard & right:
            # After the first line, the others may take it back.
            return not contradicts(spec.question, text if i else statement, spellings)
        if announced:
            return claimed(spec.question, statement, spellings, spec.tempting, exact=spec.exact)
        if heard & wrong or is_bare(statement):
            return False
    return claims(spec.question, text, spellings, spec.tempting, exact=spec.exact)


def _heard(spec: AnchorSpec, statement: str) -> set[str]:
    """Return, folded, what a statement may mean as a whole: without its reason, a remark in brackets, or what leads to "is"."""
    plain = bare(statement)
    found = [plain]
    for pattern in (_CAUSE, _REMARK):
        if (rest := pattern.search(plain)) is None:
            continue
        another = rest.group().lstrip()[:1] in (".", ";") and is_bare(rest.group()[1:])
        if not another and not _ALTERNATIVE.match(rest.group()):
            found.append(plain[: rest.start()])
    if instead := _INSTEAD.match(plain):
        found.append(instead[1])
    plain = _COPULA.sub("", re.sub(r"\A(?:no|nein|non),\s+", "", plain, flags=re.IGNORECASE))
    if (leads := list(_LEADS.finditer(plain))) and not denies(
        spec.question, f"{plain[: leads[-1].end()]}\0", (spec.key, *spec.accept)
    ):
        found.append(plain[leads[-1].end() :])
    elif not leads:
        found.append(plain)
    return {_folded(bare(one), spec.exact) for one in found}


def _folded(text: str, exact: bool = False) -> str:
    """Return a text without accents, articles, punctuation and capitals. exact: only spaces are normalized."""
    if exact:
        return " ".join(visible(text).split())
    plain = re.sub(r"(?<!\w)(?:the|an?)\s+(?=\w)", "", folded(text))
    # The sign of a number is a part of it.
    return re.sub(r"(?:[\s_*`\"'.,;:!?{}$\\]|(?<=\w)-|-(?!\d))+", " ", plain).strip()


def _number(spec: AnchorSpec, text: str) -> bool:
    units, given = dict(spec.units), numbers_in(spec.question)
    for statement in statements(answer_part(spec, text)):
        found = read_number(bare(statement), units, given)
        if found is not None or any(letter.isdigit() for letter in statement) or len(statement.split()) <= 3:
            rest = folded(without_numbers(without_contrast(bare(statement)), "\0"))
            if found is None or _BESIDE.search(without_contrast(statement)) or turned_down(folded(spec.question), rest):
                return False
            return near(found, plain_number(spec.key), spec.relative, spec.absolute)
    return False


def _json(spec: AnchorSpec, text: str) -> bool:
    key = json.loads(spec.key)
    text = answer_part(spec, text)
    for _, candidate in reversed(fences(text)):
        try:
            return _same(_DECODER.decode(candidate), key)
        except (ValueError, RecursionError):
            continue
    values = _values(text)
    return bool(values) and _same(values[-1], key)


def _values(text: str) -> list[Any]:
    """Return every JSON object and list in a text, in order."""
    found: list[Any] = []
    at = 0
    for _ in range(_MOST_STARTS):
        start = _START.search(text, at)
        if start is None:
            break
        try:
            value, at = _DECODER.raw_decode(text, start.start())
            found.append(value)
        except (ValueError, RecursionError):
            at = start.end()
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_START = re.compile(r"[\[{]")
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _same(found: Any, key: Any) -> bool:
    """Return whether two values are the same: types count, the order of keys does not, 2 and 2.0 are one number."""
    if isinstance(found, bool) or isinstance(key, bool):
        return found is key
    if isinstance(found, (int, float)) and isinstance(key, (int, float)):
        return abs(found - key) <= _CLOSE * max(1.0, abs(key))
    if isinstance(found, dict) and isinstance(key, dict):
        return found.keys() == key.keys() and all(_same(found[name], key[name]) for name in key)
    if isinstance(found, list) and isinstance(key, list):
        return len(found) == len(key) and all(map(_same, found, key))
    return type(found) is type(key) and bool(found == key)


def _output(spec: AnchorSpec, text: str) -> bool:
    def trimmed(output: str) -> list[str]:
        return [line.rstrip() for line in output.strip("\n").rstrip().split("\n")]

    found = block(answer_part(spec, text))
    one_line = "\n" not in spec.key
    candidates = (found, bare(found) if found != spec.key else found, found.strip("`*\"' ")) if one_line else (found,)
    return any(trimmed(one) == trimmed(visible(spec.key)) for one in candidates)


def _line(spec: AnchorSpec, text: str) -> bool:
    for statement in statements(answer_part(spec, text)):
        plain = bare(statement)
        numbers = set(re.findall(r"\bline\s*(?:number\s*)?[#:]?\s*(\d{1,3})\b", plain, re.IGNORECASE))
        if not numbers:
            first = re.match(r"\W*(\d{1,3})(?![\w.]|\s*(?:,|and|or)\s*\d)", plain)
            numbers = {first.group(1)} if first else set()
        if numbers:
            return numbers == {spec.key}
    return False


_GRADERS: Mapping[Kind, Callable[[AnchorSpec, str], bool]] = {
    "choice": _choice,
    "short": _short,
    "number": _number,
    "json": _json,
    # The whole reply counts: a repeated prompt breaks the rules.
    "rules": lambda spec, text: obeys(visible(text), spec.rules),
    "output": _output,
    "line": _line,
}


# Rules on the form of a reply.


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
