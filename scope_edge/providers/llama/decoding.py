"""The answer of one sample, token by token: analysis -> the marker -> a constrained line -> P(yes).

    Analysis: anything at all, {braces} mean nothing
    Predicted Performance: {len: 480, correct: yes}

The analysis is free. After the marker at the start of a line (written by this code when the analysis ends or reaches its limit)
the rest is constrained: fixed parts are written, digits are drawn among digits, and at the last word the logits of "yes" and "no"
are read instead of drawing one. So no text is parsed, unless the vocabulary cannot spell the line piece by piece: then all of it
is free text.
"""

from __future__ import annotations

import codecs
import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.providers.llama.messages import Ending, Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PlainText:
    """Turns the bytes of tokens into text."""

    def __init__(self, stop: tuple[str, ...] = (), begun: str = "") -> None:
        """Begin with the end of the prompt that belongs to it. stop: texts that end it, and are left out."""
        self._stop = stop
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._shown = [begun] if begun else []
        self._asked = 0
        self._held = ""
        self.stopped = False

    def take(self, raw: bytes) -> None:
        """Add a token's bytes. Sets `stopped` when they complete a stop text."""
        self._add(self._decode(raw))

    def end(self) -> None:
        """End the text, with what was held back."""
        if not self.stopped:
            self._add(self._decode(b"", True))
        if not self.stopped:
            self._shown.append(self._held)
            self._held = ""

    def fresh(self) -> str:
        """Return the text that is new since the last call."""
        text = "".join(self._shown[self._asked :])
        self._asked = len(self._shown)
        return text

    @property
    def text(self) -> str:
        """All text so far, without what may become a stop text."""
        return "".join(self._shown)

    def _add(self, new: str) -> None:
        text, self._held = self._held + new, ""
        found = [at for one in self._stop if (at := text.find(one)) >= 0]
        if found:
            self.stopped = True
            self._shown.append(text[: min(found)])
            return
        kept = len(text) - max((_begun(text, one) for one in self._stop), default=0)
        self._shown.append(text[:kept])
        self._held = text[kept:]


def _begun(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` are the beginning of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


class LoopGuard:
    """Notices that a text does nothing but repeat itself.

    The last `WINDOW` tokens must be one block, over and over, at least `REPEATS` times, to the token. Refrains, tables and code
    do not do that; a list of the same line hundreds of times does, and is ended, too.
    """

    WINDOW, REPEATS = 384, 12
    # Tokens between two looks: one takes a tenth of a millisecond.
    _STEP = 32

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=self.WINDOW)
        self._seen = 0

    def add(self, token: int) -> None:
        """Note the next token."""
        self._recent.append(token)
        self._seen += 1

    def found(self) -> bool:
        """Return whether the text is caught in a loop; only every `_STEP` tokens it is looked for."""
        if self._seen < self.WINDOW or self._seen % self._STEP:
            return False
        return shortest_period(tuple(self._recent)) * self.REPEATS <= self.WINDOW


def shortest_period(tokens: Sequence[int]) -> int:
    """Return the smallest p with tokens[i] = tokens[i + p] throughout, by the prefix function (Knuth, Morris and Pratt 1977)."""
    borders = [0] * len(tokens)
    for i in range(1, len(tokens)):
        k = borders[i - 1]
        while k and tokens[i] != tokens[k]:
            k = borders[k - 1]
        borders[i] = k + (tokens[i] == tokens[k])
    return len(tokens) - borders[-1]


MARKER = "Predicted Performance:"
MAX_DIGITS = 5
# The marker at the start of a line, markdown around it allowed.
_MARKER_LINE = re.compile(r"[\s>*_#`-]*Predicted Performance[*_`]*:", re.IGNORECASE)
_MAX_LINE = 200


class UnfitVocabularyError(ValueError):
    """The vocabulary cannot spell the answer line piece by piece."""


@dataclass(frozen=True, slots=True, eq=False)
class AnswerLine:
    """The answer line in one vocabulary's tokens.

    Attributes:
        marker: of `MARKER`. head: from there to the first digit. tail: from the last digit to the last word.
        digits: ids that spell one or more ASCII digits, (n,); sizes: how many digits each has, (n,).
        zeros: which of them begin with 0, (n,). yes, no: the last word.
    """

    marker: tuple[int, ...]
    head: tuple[int, ...]
    tail: tuple[int, ...]
    digits: NDArray[np.int64]
    sizes: NDArray[np.int64]
    zeros: NDArray[np.bool_]
    yes: int
    no: int


def answer_line(tokenize: Callable[[str], list[int]], piece: Callable[[int], bytes]) -> AnswerLine:
    """Spell the line in a vocabulary's tokens. Raises UnfitVocabularyError when that fails."""

    def spelled(length: str, word: str) -> list[int]:
        return tokenize(f"{MARKER} {{len: {length}, correct: {word}}}")

    marker, seven, eight, no = tokenize(MARKER), spelled("7", "yes"), spelled("8", "yes"), spelled("7", "no")
    at, last = _differ(seven, eight), _differ(seven, no)
    head, tail = seven[:at], seven[at + 1 : last]
    # Vocabularies join up to three digits into one token.
    numbers = (tokenize(f"{n:0{width}d}") for width in (1, 2, 3) for n in range(10**width))
    ids = sorted({tokens[0] for tokens in numbers if len(tokens) == 1})
    many = spelled("12340", "yes")
    inner = many[at : len(many) - (len(seven) - at - 1)]
    fits = head[: len(marker)] == marker and tail and seven[at] in ids
    if not fits or many[:at] != head or not set(inner) <= set(ids):
        raise UnfitVocabularyError("its vocabulary does not keep the digits of an answer apart")
    return AnswerLine(
        marker=tuple(marker),
        head=tuple(head[len(marker) :]),
        tail=tuple(tail),
        digits=np.array(ids, np.int64),
        sizes=np.array([len(piece(i)) for i in ids], np.int64),
        zeros=np.array([piece(i).startswith(b"0") for i in ids], bool),
        yes=seven[last],
        no=no[last],
    )


def _differ(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)) - 1)


class SampleDecoder:
    """One sample.

    Attributes:
        pending: tokens to feed next. state: how to use their logits, "free", "digits", "word" or "done".
        plain: its text without an answer line. tokens: so far.
    """

    def __init__(
        self,
        line: AnswerLine | None,
        tokenize: Callable[[str], list[int]],
        piece: Callable[[int], bytes],
        *,
        limit: int,
        stop: tuple[str, ...] = (),
        begun: str = "",
    ) -> None:
        """Begin. limit: tokens of free text. line: None for plain text, which begins with `begun` and also ends at a `stop`."""
        self._line, self._tokenize, self._piece, self._limit = line, tokenize, piece, limit
        self._text = bytearray()
        self.plain = PlainText(stop, begun)
        self._current = b""
        self._digits = ""
        self.state = "free"
        self._ending: Ending = "cancelled"
        self._p_yes: float | None = None
        self._free = 0
        self._loop = LoopGuard()
        self.tokens = 0
        self.pending: list[int] = []

    @property
    def digits(self) -> int:
        """The number of digits written so far."""
        return len(self._digits)

    def begin_answered(self) -> None:
        """Go on after the marker and the head of the line, which are in the prompt in direct mode."""
        line = self._answer_line
        self._ending, self.state = "answer", "digits"
        for token in (*line.marker, *line.head):
            self._text += self._piece(token)

    def take(self, token: int, *, ends: bool) -> None:
        """Add a token drawn freely. ends: whether it ends the text."""
        if ends:
            return self._stop("stop")
        text = self._piece(token)
        before = self._current
        line = before + text
        if self._line is not None and (found := _MARKER_LINE.match(line.decode("utf-8", "replace"))):
            # The token may hold more than the marker's end; it is dropped, and the rest of the marker spelled out.
            missing = found.group().encode()[len(before) :].decode("utf-8", "replace")
            self._ending = "answer"
            return self._write(self._tokenize(missing) + list(self._line.head), then="digits")
        self._free += 1
        self._loop.add(token)
        self._say([token])
        self._current = line.rsplit(b"\n", 1)[-1][:_MAX_LINE]
        if self._line is None and self.plain.stopped:
            self._stop("stop")
        elif self._free >= self._limit:
            self._stop("limit")
        elif self._line is None and self._loop.found():
            self._stop("loop")
        return None

    def allowed(self) -> NDArray[np.int64]:
        """Return the ids that may come next: more digits, or the end of the number."""
        line = self._answer_line
        fits = line.sizes <= MAX_DIGITS - len(self._digits)
        if not self._digits:
            return line.digits[fits & ~line.zeros]
        return np.append(line.digits[fits], line.tail[0])

    def take_digit(self, token: int) -> None:
        """Add a token drawn from `allowed`; after the number, write the line up to the last word."""
        line = self._answer_line
        if self._digits and token == line.tail[0]:
            return self._write(list(line.tail), then="word")
        self._digits += self._piece(token).decode("ascii")
        self._say([token])
        if len(self._digits) >= MAX_DIGITS:
            # These digits are still pending; the end of the number follows them at once.
            self._write(list(line.tail), then="word")
        return None

    def take_word(self, yes: float, no: float) -> None:
        """Set P(yes) and the last word by their logits."""
        gap = yes - no
        self.state = "done"
        if not math.isfinite(gap):
            self._ending = "broken"
            return
        self._p_yes = 1 / (1 + math.exp(-min(max(gap, -40.0), 40.0)))
        self._text += self._piece(self._answer_line.yes if gap >= 0 else self._answer_line.no) + b"}"
        self.tokens += 1

    def break_off(self, ending: Ending) -> None:
        """End without an answer: cancelled, or invalid numbers."""
        self._ending, self.state, self.pending = ending, "done", []
        self.plain.end()

    def sample(self) -> Sample:
        """Return the sample so far."""
        return Sample(
            text=self.plain.text if self._line is None else self._text.decode("utf-8", "replace"),
            tokens=self.tokens,
            length=int(self._digits) if self._p_yes is not None else None,
            p_yes=self._p_yes,
            ending=self._ending,
        )

    @property
    def _answer_line(self) -> AnswerLine:
        if self._line is None:
            raise ValueError("plain text has no answer line")
        return self._line

    def _stop(self, ending: Ending) -> None:
        """End the free text: write the answer line, or be done."""
        self._ending = ending
        if self._line is None:
            self.pending, self.state = [], "done"
            self.plain.end()
        else:
            before = self._tokenize("\n") if self._current.strip() else []
            self._write([*before, *self._line.marker, *self._line.head], then="digits")

    def _write(self, tokens: list[int], then: str) -> None:
        self._say(tokens)
        self.state = then

    def _say(self, tokens: list[int]) -> None:
        self.pending += tokens
        self.tokens += len(tokens)
        for token in tokens:
            raw = self._piece(token)
            self._text += raw
            if self._line is None:
                self.plain.take(raw)
