"""The estimator's prompt and its answer line, rendered and parsed together so that they cannot drift apart.

A template is plain text with `{{model}}`, `{{question}}` and one block `{{#example}} ... {{/example}}` that is repeated for
every example, with `{{number}}`, `{{example_question}}`, `{{length}}` and `{{correct}}` in it. A line break right after a
block's tag belongs to the tag. The first line may be a comment, `{{! ... }}`. Names are filled in one pass over the
template, never over inserted text, so these marks have no effect in a question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Final

import numpy as np

from scope_edge.encoding.token_count import estimate_prompt_tokens
from scope_edge.errors import UsageError
from scope_edge.providers.llama.messages import Job, TextPiece

if TYPE_CHECKING:
    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.estimator.store import Installed
    from scope_edge.policy.costs import Ints
    from scope_edge.types import Floats, ModelCard, Vector

# The number of examples in training, of the ten nearest anchors.
EXAMPLES: Final = 5
# The longest texts in a prompt, in characters; longer ones are cut in the middle. About 2,000 and 600 tokens.
MAX_QUESTION: Final = 8000
MAX_EXAMPLE: Final = 2400
MAX_TEMPLATE: Final = 64 * 1024
# From this share on an outcome counts as correct: the prompt only has yes and no.
CORRECT_FROM: Final = 0.5
DEFAULT_EXAMPLE: Final = (
    "Example {{number}}:\nQuestion: {{example_question}}\nPerformance: {len: {{length}}, correct: {{correct}}}\n\n"
)
BUNDLED: Final = resources.files("scope_edge.estimator").joinpath("template.txt").read_text("utf-8")
# Qwen's chat format (ChatML), which the weights were trained in.
_BEFORE = TextPiece("<|im_start|>user\n", markup=True)
_AFTER = TextPiece("<|im_end|>\n<|im_start|>assistant\n", markup=True)

_COMMENT = re.compile(r"\{\{!.*\}\}[ \t]*(?:\n|$)")
_NAME = re.compile(r"\{\{([A-Za-z_]\w*)\}\}")
_OPEN, _CLOSE = re.compile(r"\{\{#example\}\}\n?"), re.compile(r"\{\{/example\}\}\n?")
_FRAME_NAMES = ("model", "question")
_EXAMPLE_NAMES = ("number", "example_question", "length", "correct")

# An answer line begins with the marker, Markdown's decoration aside, and its braces close on the same line.
_DECORATION = r"[ \t*_`#>~-]*"
_MARKER = re.compile(rf"^{_DECORATION}Predicted Performance{_DECORATION}:", re.MULTILINE | re.IGNORECASE)
_LINE = re.compile(rf"{_DECORATION}\{{([^{{}}\n]*)\}}")
# Inside the braces a minus has a meaning.
_MARKS = r"[ \t*_`\"']*"
_FIELDS = re.compile(
    rf"{_MARKS}len{_MARKS}:{_MARKS}\[?([^\s,\[\]*_`\"']*)\]?{_MARKS},"
    rf"{_MARKS}correct{_MARKS}:{_MARKS}\[?(yes|no)\]?{_MARKS}",
    re.IGNORECASE,
)
_LENGTH = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Example:
    """The target model's outcome on one anchor. length: completion tokens, the model's own, at least 1."""

    question: str
    length: int
    correct: bool


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """An estimator's prediction in text: completion tokens (1 to 99,999) and whether the answer is right."""

    length: int
    correct: bool


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A parsed template: alternating literal text and names. Made by `parse`."""

    before: tuple[str, ...]
    example: tuple[str, ...]
    after: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, where: str) -> PromptTemplate:
        """Read a template; `where` is named in errors. Raises UsageError naming a missing or unknown part."""
        if len(text) > MAX_TEMPLATE:
            raise UsageError(
                f"{where}: {len(text)} characters, more than the {MAX_TEMPLATE} a prompt template may have"
            )
        text = text.replace("\r\n", "\n")
        comment = _COMMENT.match(text)
        body = (text[comment.end() :] if comment else text).rstrip("\n")
        opened, closed = list(_OPEN.finditer(body)), list(_CLOSE.finditer(body))
        if len(opened) != 1 or len(closed) != 1 or closed[0].start() < opened[0].end():
            raise UsageError(f"{where}: a prompt template has exactly one block {{{{#example}}}} ... {{{{/example}}}}")
        before, example = body[: opened[0].start()], body[opened[0].end() : closed[0].start()]
        frame, after = _FRAME_NAMES, body[closed[0].end() :]
        parsed = cls(_split(before, frame, where), _split(example, _EXAMPLE_NAMES, where), _split(after, frame, where))
        for needed, names in (
            (_FRAME_NAMES, parsed.before[1::2] + parsed.after[1::2]),
            (_EXAMPLE_NAMES[1:], parsed.example[1::2]),
        ):
            missing = [name for name in needed if name not in names]
            if missing:
                raise UsageError(f"{where}: the prompt template lacks {{{{{missing[0]}}}}}")
        return parsed

    def render(self, model: str, examples: Sequence[Example], question: str) -> tuple[TextPiece, ...]:
        """Return the prompt for one model and query: the chat format's marks around one plain piece.

        Texts beyond MAX_QUESTION and MAX_EXAMPLE characters are cut in the middle, see `shortened`; the caller tells the
        user. The text of a plain piece never counts as a mark.
        """
        frame = {"model": _writable(model), "question": shortened(question, MAX_QUESTION)}
        blocks = (
            _filled(
                self.example,
                {
                    "number": str(number),
                    "example_question": shortened(one.question, MAX_EXAMPLE),
                    "length": str(one.length),
                    "correct": "yes" if one.correct else "no",
                },
            )
            for number, one in enumerate(examples, 1)
        )
        body = "".join((_filled(self.before, frame), *blocks, _filled(self.after, frame)))
        return _BEFORE, TextPiece(body), _AFTER


def shortened(text: str, limit: int) -> str:
    """Return the text, with its middle replaced by a mark when it has more than `limit` characters.

    The beginning gives the context and the end usually the question. Lone surrogates, which no encoding can carry,
    become question marks.
    """
    text = _writable(text)
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def parse_answer(text: str) -> ParsedAnswer | None:
    """Read the prediction in free text; None when missing or unusable.

    An answer line begins with "Predicted Performance:", Markdown aside, and its braces close on the same line. The last
    such line counts, even if it is unusable (a length that is 0, negative, of more than 5 digits or not in ASCII digits):
    an earlier line never replaces it. A line that breaks off is ignored.
    """
    found = None
    for marker in _MARKER.finditer(text):
        line = _LINE.match(text, marker.end())
        found = line or found
    fields = _FIELDS.fullmatch(found.group(1)) if found else None
    if fields is None or not _LENGTH.fullmatch(fields.group(1)) or not int(fields.group(1)):
        return None
    return ParsedAnswer(int(fields.group(1)), fields.group(2).lower() == "yes")


def analysis(text: str) -> str:
    """Return the text before the answer line, without a leading "Analysis:"; not cut, not cleaned."""
    markers = list(_MARKER.finditer(text))
    before = (text[: markers[-1].start()] if markers else text).strip()
    return re.sub(rf"^{_DECORATION}Analysis{_DECORATION}:{_DECORATION}", "", before, flags=re.IGNORECASE)


def _split(text: str, known: Sequence[str], where: str) -> tuple[str, ...]:
    """Split into alternating text and names, text first and last. Raises UsageError for an unknown name."""
    parts = tuple(_NAME.split(text))
    for name in parts[1::2]:
        if name not in known:
            others = ", ".join(f"{{{{{one}}}}}" for one in known)
            raise UsageError(
                f"{where}: {{{{{name}}}}} means nothing at that place of a prompt template; known: {others}"
            )
    return parts


def _filled(parts: tuple[str, ...], values: Mapping[str, str]) -> str:
    return "".join(values[part] if i % 2 else part for i, part in enumerate(parts))


def _writable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """One model on one set: the rows with a full outcome, their lengths (own tokens) and whether correct."""

    set: int
    rows: Ints
    lengths: Ints
    correct: Floats


class TextSlices:
    """Outcomes of a pool's models on the anchor sets that have text.

    An outcome that is missing, in part or whole, is never shown as "no" or as a length of 0.
    """

    def __init__(self, pool: Sequence[ModelCard], fingerprints: Mapping[str, Sequence[Fingerprint]]) -> None:
        self.names = tuple(card.id for card in pool)
        self.sets: list[AnchorSet] = []
        self._measured = [self._of(card, fingerprints.get(card.id, ())) for card in pool]
        # The models, by index in the pool, with at least one outcome to show.
        self.models = tuple(i for i, parts in enumerate(self._measured) if parts)

    def _of(self, card: ModelCard, parts: Sequence[Fingerprint]) -> tuple[_Measured, ...]:
        found = []
        for one in parts:
            rows = np.flatnonzero(np.isfinite(one.correct) & (one.tokens > 0)) if one.anchors.texts else ()
            if not len(rows):
                continue
            names = [known.name for known in self.sets]
            if one.anchors.name not in names:
                self.sets.append(one.anchors)
                names.append(one.anchors.name)
            own = np.maximum(np.rint(one.tokens[rows] * card.token_factor), 1).astype(np.intp)
            found.append(_Measured(names.index(one.anchors.name), np.asarray(rows), own, one.correct[rows]))
        return tuple(found)

    def similarities(self, vector: Vector) -> list[Vector]:
        """Return the cosines of a unit vector with the anchors of every set in `sets`, once per query for all models."""
        return [one.vectors @ vector for one in self.sets]

    def examples(
        self, model: int, similarities: Sequence[Vector], k: int, *, without: str | None = None
    ) -> tuple[Example, ...]:
        """Return the k measured anchors nearest to the query, nearest first, each question once.

        model: index in the pool. without: a question to leave out, since it is the one in the prompt.
        """
        near = []
        for part in self._measured[model]:
            away = -similarities[part.set][part.rows]
            for i in np.argsort(away, kind="stable")[: 2 * k]:
                near.append((float(away[i]), part.set, int(part.rows[i]), int(part.lengths[i]), float(part.correct[i])))
        shown: dict[str, Example] = {}
        for _, of, row, length, correct in sorted(near):
            text = self.sets[of].texts[row]
            if text != without and text not in shown and len(shown) < k:
                shown[text] = Example(text, length, correct >= CORRECT_FROM)
        return tuple(shown.values())


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, its expected tokens (cl100k, so an estimate), and how many of its texts were cut."""

    pieces: tuple[TextPiece, ...]
    tokens: float
    cut: int


class Prompter:
    """Writes one installed estimator's prompts for a pool's models, and the jobs that sample them."""

    def __init__(self, installed: Installed, slices: TextSlices) -> None:
        """Raises AssetError or UsageError: the estimator's template is damaged or unusable."""
        self._installed = installed
        self._template = PromptTemplate.parse(installed.template, installed.name)
        self._slices = slices

    def prompt(
        self, model: int, similarities: Sequence[Vector], question: str, *, without: str | None = None
    ) -> Prompt:
        """Return the prompt for a model, by index in the pool; the other arguments as in `TextSlices.examples`."""
        examples = self._slices.examples(model, similarities, self._installed.examples, without=without)
        pieces = self._template.render(self._slices.names[model], examples, question)
        cut = (len(question) > MAX_QUESTION) + sum(len(one.question) > MAX_EXAMPLE for one in examples)
        return Prompt(pieces, sum(estimate_prompt_tokens(piece.text).expected for piece in pieces), cut)

    def job(self, prompt: Prompt, samples: int, *, after: int = 0) -> Job:
        """Return the job that draws samples; `after`: how many were drawn before and are not repeated."""
        one = self._installed
        sampling = replace(one.sampling, seed=one.sampling.seed + after)
        return Job(prompt.pieces, samples, one.mode, one.analysis_tokens, sampling)
