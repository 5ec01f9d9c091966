"""The privacy check: e-mail addresses and probable keys must not leave the machine unasked.

The setting `privacy = "patterns"` keeps a query that contains one on the device, whatever its preference, and says so. The
check goes by form alone: a secret without a telling form (a name, a diagnosis) is not found; `--local-only` is for those.
A key is known by its maker's prefix, by a word before it ("password: ..."), or because it looks drawn at random: its letters and
digits follow each other unlike those of words and identifiers.

The time is proportional to the text's length, whatever the text: an expression that can begin at many places never runs far.
`build_scripts/measure_privacy.py` measures what is found, and how often an ordinary text is taken for a key.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from urllib.parse import unquote

from scope_edge.types import Preference, Query

# Labels of any script, an encoded (punycode) top-level domain, or an IP address in brackets.
_EMAIL = re.compile(
    r"[\w.+-][@\uff20\ufe6b](?:(?:[\w-]{1,63}[.\u3002\uff0e\uff61]){1,16}(?:xn--[A-Za-z0-9-]{2,59}|[^\W\d_]{2,24})"
    r"|\[[0-9A-Fa-f.:]{3,45}\])"
)
# Forms that are keys whatever else they hold: of AWS, Google, Telegram; a private key block; a password in an address.
_SURE_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9])|AIza[\w-]{30}|eyJ[\w-]{10,300}\.[\w-]{10}"
    r"|[0-9]{8,10}:AA[\w-]{33})|-----BEGIN [A-Z ]{0,30}PRIVATE KEY|[a-z]{3,12}://[^\s/:@]{1,64}:[^\s/@]{1,128}@",
    re.ASCII,
)
# Prefixes that makers give to keys.
_PREFIXED = re.compile(
    r"(?<![A-Za-z0-9])(?:sk|pk|rk|gh[pousr]|github_pat|glpat|hf|xox[abeoprs]|xapp|npm|pypi|shp(?:at|ss|ca)|do[opr]_v1|dckr_pat|gsk"
    r"|xai|pplx|nvapi|tvly|r8|lsv2_[ps]t|whsec|sntry[su]|rubygems|figd|sq0(?:atp|csp)|PMAK|NRAK|hv[bs]|ya29|GOCSPX|SG)[-_.]"
    r"([A-Za-z0-9._-]{16,400})"
)
# A word that announces a secret, and what follows it.
_ANNOUNCED = re.compile(
    r"(?:passw(?:or)?d|passphrase|passwor[dt]|kennwort|contrase\u00f1a|mot de passe|pwd|secret|token|api[ _-]?key|access[ _-]?key"
    r"|bearer|basic)(?:[\"'`]?[ \t]{0,3}(?:=>|:=|[:=])\s{0,3}(?:bearer |basic )?|[ \t]{1,3}(?:(?:is|ist|est|es)[ \t]{1,3})?)"
    r"[\"'`]?([^\s\"'`,;<>(){}\[\]]{8,200})(?![\w(\[{<])",
    re.IGNORECASE,
)
_RUN = re.compile(r"[A-Za-z0-9_+/=-]{20,}")
_LONGEST_RUN, _LONGEST_KEY = 512, 160
# The content of a data URI, and the line ends of a file in base64: its lines are one long run.
_CONTENT = re.compile(r"(?<=;base64,)[A-Za-z0-9+/=]+|(?<=[A-Za-z0-9+/]{60})\r?\n(?=[A-Za-z0-9+/]{1,76}={0,2}(?:\s|$))")
# Parts that identify and open nothing: UUIDs, hashes, checksums of packages.
_HARMLESS = re.compile(
    r"(?<![A-Za-z0-9])(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|(?:0x)?[0-9a-fA-F]{6,}|sha(?:1|256|384|512)-[\w+/=]{27,88})"
    r"(?![A-Za-z0-9])"
)
_HEX = re.compile(r"(?=[a-fA-F]{0,64}[0-9])[0-9a-fA-F]{16,}")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
# Bits by which a run must look more like drawn characters than like words, bare and behind a prefix or a word.
_LEAST_BITS, _LEAST_BITS_TOLD = 30.0, 5.0
_SMALLEST_ALPHABET = 36

# Bits that the second of two characters costs in words and identifiers, by kinds: lower case, upper case, digit, mark.
_KINDS = {
    "ll": 0.02, "lu": 6.3, "ld": 7.8, "ul": 1.8, "uu": 0.5, "ud": 7.1, "dl": 2.0, "du": 3.8, "dd": 0.6,
    "lm": 2.5, "um": 2.5, "dm": 2.5, "ml": 0.3, "mu": 2.5, "md": 2.5, "mm": 1.0,
}  # fmt: skip
_IN_ORDER = 4.5
# And by letters: a row for each first letter, in it a character for each second one, "0" = 0 bits ... "<" = 12.
_LETTER_PAIRS = (
    ";544975:5;6343;5;34366776;",
    "3656389:34<37847:4473;<:48",
    "3:6738:35<447828956359::7<",
    "467527692::57747954658897:",
    "484355797;845375723486757:",
    "4:6733892<;4773894554::;6<",
    "587818543<;56456<446488<87",
    "288729;93;966729;5645:9<7;",
    "5545565<9;844235:543<5<6<6",
    "49782999595789289647399979",
    "486517693;9484578636585;8;",
    "387526993<838736;845589<49",
    "259729<:4<865733<8565::;8<",
    "484335395:668647:833669:7;",
    "6544766:6:654254<2544658:9",
    "397737864<8398349354588;5<",
    "89879999999586797568096999",
    "3865276:3<675537;444668<5<",
    "595728753:667754873248796<",
    "396727933<966846:34559795:",
    "5556456<5<<34364<34389<9;:",
    "28:;188:3;:87858;7999788:;",
    "387637;33;:6843983479:77;9",
    "463635973;;56;73;662999668",
    "665645884:;544529633985977",
    "4:981:992::65748:9778::977",
)


class PrivacyGuard:
    """Keeps queries that hold something private on the device: a `pipeline.PrivacyCheck`."""

    def check(self, query: Query, preference: Preference) -> tuple[Preference, tuple[str, ...]]:
        """Return the preference, with local_only if any text to be sent holds something private; and warnings."""
        texts = (query.text, query.system or "", *(text for _, text in query.history), *query.attached)
        found = private_parts(texts)
        if not found or preference.local_only:
            return preference, ()
        return replace(preference, local_only=True), (f"kept on the device: {' and '.join(found)} was found in it",)


def private_parts(texts: Iterable[str]) -> tuple[str, ...]:
    """Name the kinds of private parts in any of the texts; never the parts themselves."""
    views = [view for text in texts for view in _views(text)]
    kinds = {"an e-mail address": lambda text: _EMAIL.search(text) is not None, "what looks like a key": _holds_key}
    return tuple(kind for kind, holds in kinds.items() if any(map(holds, views)))


def _views(text: str) -> Iterator[str]:
    """Yield a text as it is, and as it reads once the escapes of JSON, HTML and addresses are resolved."""
    yield text
    plain = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text) if "\\u" in text else text
    plain = html.unescape(plain) if "&" in plain else plain
    plain = unquote(plain) if "%" in plain else plain
    if plain != text:
        yield plain


def holds_named_key(text: str) -> bool:
    """Say whether a text holds a key with its maker's prefix or form, or an address with a password."""
    return _SURE_KEY.search(text) is not None or any(
        randomness(found[1]) >= _LEAST_BITS_TOLD for found in _PREFIXED.finditer(text)
    )


def _holds_key(text: str) -> bool:
    return (
        holds_named_key(text)
        or any(_is_secret(found[1]) for found in _ANNOUNCED.finditer(text))
        or any(_is_random(run.group()) for run in _RUN.finditer(_CONTENT.sub("", text)))
    )


def _is_secret(value: str) -> bool:
    """Say whether what follows a word such as "password" is a secret rather than the next word, or a name in a program."""
    if _HEX.fullmatch(value):
        return True
    bits, digits = randomness(value), any(map(str.isdigit, value))
    return "://" not in value and bits >= (_LEAST_BITS_TOLD if digits else 2 * _LEAST_BITS_TOLD)


def _is_random(run: str) -> bool:
    return len(run) <= _LONGEST_RUN and randomness(_HARMLESS.sub("=", run)) >= _LEAST_BITS


def randomness(run: str) -> float:
    """Return by how many bits the most random stretch of a run looks drawn from an alphabet rather than written as words.

    It is the log-likelihood ratio of equally likely characters against a model of pairs. 0.0 for a stretch longer than any key.
    """
    kinds = {_kind(one) for one in run}
    size = 26 * ("l" in kinds) + 26 * ("u" in kinds) + 10 * ("d" in kinds)
    drawn, pairs = math.log2(max(size, _SMALLEST_ALPHABET)), _pair_bits()
    best = total = 0.0
    start = at = length = 0
    for at in range(1, len(run)):
        total += pairs.get(run[at - 1 : at + 1], 6.0) - drawn
        if total <= 0.0:
            total, start = 0.0, at
        elif total > best:
            best, length = total, at - start + 1
    return best if length <= _LONGEST_KEY else 0.0


def _kind(one: str) -> str:
    return "m" if not (one.isascii() and one.isalnum()) else "d" if one.isdigit() else "u" if one.isupper() else "l"


@cache
def _pair_bits() -> dict[str, float]:
    """Return the bits of the second of two characters in words, by the pair."""
    letters, digits, marks = "abcdefghijklmnopqrstuvwxyz", "0123456789", "_+/=-"
    both = letters + letters.upper() + digits + marks
    found = {}
    for one in both:
        for other in both:
            bits = _KINDS[_kind(one) + _kind(other)]
            if other in digits:
                bits += math.log2(len(digits))
            elif other.isalpha() and one.isalpha():
                bits += ord(_LETTER_PAIRS[letters.index(one.lower())][letters.index(other.lower())]) - ord("0")
            elif other.isalpha():
                bits += math.log2(len(letters))
            # "aaaa", "abcd", "1234": typed, not drawn.
            found[one + other] = min(bits, _IN_ORDER) if ord(other) - ord(one) in (0, 1) else bits
    return found
