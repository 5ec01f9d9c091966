"""Finding the answer in a reply. The last stated answer wins; thoughts are not an answer."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from scope_edge.estimation.anchor_spec import LETTERS, ending_of
from scope_edge.providers.thoughts import without_thoughts

if TYPE_CHECKING:
    from scope_edge.estimation.anchor_spec import AnchorSpec

# Of a longer reply only the end is read: the answer is there.
MAX_CHARACTERS = 60_000
# Of a statement only the beginning is read.
_STATEMENT = 1_000
# LaTeX around plain text.
WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mathit|operatorname)\s*\{([^{}]*)\}")
_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000\t]")
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad]")
_QUOTES = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2212": "-", "\u2010": "-", "\u2011": "-"}
)
_FENCE = re.compile(r"[ ]{0,3}(`{3,}|~{3,})[^`]*")
_MARKER = re.compile(
    r"\b(?:final\s+answer|correct\s+answer|right\s+answer|answer|correct\s+option|right\s+option|correct\s+choice)\b"
    r"[*_\s]*(?:is\b|:|=)[*_:]*",
    re.IGNORECASE,
)
_CONTENT = re.compile(r"[^\s*_]")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")


def visible(text: str) -> str:
    """Return a reply without thoughts and invisible characters, with one kind of space, quote and minus."""
    text = without_thoughts(text.replace("\r\n", "\n").replace("\r", "\n"))
    return _INVISIBLE.sub("", _SPACES.sub(" ", text)).translate(_QUOTES).strip()


def answer_part(spec: AnchorSpec, text: str) -> str:
    """Return the visible reply without a repetition of the prompt."""
    text = visible(text)[-MAX_CHARACTERS:]
    for echoed in (spec.question, ending_of(spec)):
        if echoed:
            text = text.replace(visible(echoed), "")
    listed = [f"({letter}) {visible(option)}" for letter, option in zip(LETTERS, spec.options, strict=False)]
    lines = text.split("\n")
    # One option written out is an answer; several are a copy of the list.
    if sum(line.strip() in listed for line in lines) > 1:
        lines = [line for line in lines if line.strip() not in listed]
    return "\n".join(lines).strip()


def fences(text: str) -> list[tuple[int, str]]:
    """Return (end, content) of every code block of a text; a block that is not closed goes on to the text's end."""
    found: list[tuple[int, str]] = []
    begun, mark, at = 0, "", 0
    for line in text.split("\n"):
        end = at + len(line)
        opening = None if mark else _FENCE.fullmatch(line)
        if opening is not None:
            begun, mark = end + 1, opening.group(1)
        elif mark and line.strip().startswith(mark) and not line.strip().strip(mark[0]):
            found.append((end, text[begun : max(at - 1, begun)]))
            mark = ""
        at = end + 1
    return [*found, (len(text), text[begun:])] if mark else found


def stated(text: str) -> tuple[int, str] | None:
    """Return (start, text) of the last answer that is announced as such, or None."""
    marker, box = _last(_MARKER, text), _last(_BOXED, text)
    if box is not None and (marker is None or box.start() > marker.start()):
        return box.start(), _braced(text, box.end())
    if marker is None:
        return None
    after = text[marker.end() :].lstrip(" *_\n")
    if _FENCE.fullmatch(after.split("\n", 1)[0]):
        return marker.start(), fences(after)[0][1].strip()
    return marker.start(), after.split("\n", 1)[0]


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = (one for one in pattern.finditer(text) if _CONTENT.search(text, one.end()))
    return next(iter(deque(found, maxlen=1)), None)


def statements(text: str) -> list[str]:
    """Return where to look for the answer, best first: the announced answer, else the last line and the first."""
    announced = stated(text)
    if announced is not None:
        return [announced[1][:_STATEMENT]]
    lines = [line.strip()[:_STATEMENT] for line in text.split("\n") if line.strip().strip("`~*_-#")]
    return list(dict.fromkeys((lines[-1], lines[0]))) if lines else []


def block(text: str) -> str:
    """Return the last code block of a reply, unless an answer is announced after it; else the stated answer."""
    blocks, announced = fences(text), stated(text)
    if blocks and (announced is None or announced[0] < blocks[-1][0]):
        return blocks[-1][1].rstrip("\n")
    return (announced[1] if announced else text).strip()


def bare(text: str) -> str:
    """Return a statement without markdown, LaTeX wrapping, quotes and final punctuation around it."""
    text = re.sub(r"\\[()\[\],;!]|\$", "", WRAPPED.sub(r"\1", text))
    return text.strip("*_`\"' \n").rstrip(".!;,:*_`\"' \n。！")


def _braced(text: str, start: int) -> str:
    """Return the text between an opening brace just before `start` and its closing brace."""
    depth = 1
    for at in range(start, min(len(text), start + 2000)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return text[start:at]
    return text[start:].split("\n", 1)[0]
