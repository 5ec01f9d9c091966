"""Extract a released estimator's exact prompt from the code block of its model card.

Cards show it as plain text with `{placeholders}`, `[placeholders]` or `<placeholders>`, or as Python that builds it. Either
way the prompt is split by its sections; all other text is kept unchanged. Python is parsed, never run.
"""

from __future__ import annotations

import ast
import contextlib
import re
import warnings
from collections.abc import Iterator
from string import Formatter
from typing import Final, Literal

from scope_edge.errors import UsageError
from scope_edge.estimator.prompt import DEFAULT_EXAMPLE, EXAMPLES, MAX_TEMPLATE, PromptTemplate

MAX_CARD: Final = 1024 * 1024
_FENCE = re.compile(r"^[ ]{0,3}(`{3,}|~{3,})[^\n`]*\n(.*?)^[ ]{0,3}\1[ \t]*$", re.MULTILINE | re.DOTALL)
_TASK, _OUTPUT = "### Task", "### Output:"
# A placeholder found in code, between two characters that no text contains.
_OPEN, _CLOSE = "\ue000", "\ue001"
_HOLE = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")
_PLAIN_HOLE = re.compile(r"\{[A-Za-z_][\w.]*\}")
_ANY_HOLE = re.compile(rf"{_HOLE.pattern}|{_PLAIN_HOLE.pattern}|\[[A-Za-z_][\w .-]*\]|<[A-Za-z_][\w .-]*>")
_COUNT = re.compile(r"\b(?:(?:num|number|count)(?:_\w+)?|[kn])\b|\blen\(", re.IGNORECASE)
_CODE_OR_PLAIN = re.compile(rf"{_HOLE.pattern}|(?<!\{{){_PLAIN_HOLE.pattern}(?!\}})")
_TRIPLE = re.compile(r"([A-Za-z]*)(\"\"\"|''')(.*?)\2(\s*\.format\()?", re.DOTALL)
_EXAMPLE_LINE = re.compile(
    rf"^[ \t*]*Example[ \t]*(?:\d+|[ikn]\b|{_ANY_HOLE.pattern})[^\n]*\n?", re.MULTILINE | re.IGNORECASE
)
_MODEL_HEAD = re.compile(r"^### Target Model[^\n]*\n", re.MULTILINE)
_QUESTION_HEAD = re.compile(r"### Target Question[^\n]*\n")
_SECTION = re.compile(r"^###", re.MULTILINE)
_FIRST_QUESTION = re.compile(
    r"(Question[ \t*]*:[ \t*]*)(.*?)(\n[ \t*]*Performance[ \t*]*:[ \t*]*)\{[^\n]*\}", re.DOTALL
)


def template_from_card(markdown: str) -> str | None:
    """Return the prompt template on a model card, in the format of prompt.py; None when missing or unusable.

    It is the first fenced block with "### Task" and "### Output:". The model's name is the text under "### Target Model",
    the examples reach from the first "Example" (or a placeholder for all of them) to "### Target Question", and the
    question is the text under that.
    """
    for text in _prompts(markdown[:MAX_CARD]):
        template = _canonical(text)
        if template is not None:
            with contextlib.suppress(UsageError):
                PromptTemplate.parse(template, "model card")
                return template
    return None


def mode_from_card(markdown: str) -> Literal["cot", "direct"] | None:
    """Return "cot" if the card's prompt asks for an analysis before the answer line, else "direct"; None without a prompt."""
    template = template_from_card(markdown)
    if template is None:
        return None
    _, _, form = template.partition("### Output Format")
    return "cot" if re.search(r"^[ \t*]*Analysis\b", form, re.MULTILINE) else "direct"


def _prompts(markdown: str) -> Iterator[str]:
    """Yield prompts in the card's fenced blocks; placeholders in Python code are marked."""
    for fence in _FENCE.finditer(markdown.replace("\r\n", "\n")):
        block = fence.group(2)
        if _TASK not in block or _OUTPUT not in block or len(block) > MAX_TEMPLATE:
            continue
        found = list(_python_strings(block))
        text = next((text for text in found if _TASK in text and _OUTPUT in text), block)
        start, end = text.index(_TASK), text.rindex(_OUTPUT) + len(_OUTPUT)
        yield text[start:end]


def _python_strings(block: str) -> Iterator[str]:
    """Yield every string in Python code; nothing for other text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a card's "\\boxed" does not concern the user
            tree = ast.parse(block)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # Cards have incomplete code too: its triple-quoted strings can still be found.
        for prefix, _, text, call in _TRIPLE.findall(block):
            yield _format_holes(text) if "f" in prefix.lower() or call else text
        return
    formatted = {
        id(node.func.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                f"{_OPEN}{ast.unparse(part.value)}{_CLOSE}"
                if isinstance(part, ast.FormattedValue)
                else str(getattr(part, "value", ""))
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield _format_holes(node.value) if id(node) in formatted else node.value


def _format_holes(text: str) -> str:
    """Return a format string's text with single braces and marked fields."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        return text
    return "".join(literal + ("" if name is None else f"{_OPEN}{name}{_CLOSE}") for literal, name, *_ in parts)


def _canonical(text: str) -> str | None:
    """Return a prompt's template; None when a section is missing or a placeholder is unknown."""
    head = _MODEL_HEAD.search(text)
    question = _QUESTION_HEAD.search(text, head.end()) if head else None
    following = _SECTION.search(text, question.end()) if question else None
    if head is None or question is None or following is None:
        return None
    between = text[head.end() : question.start()]
    start = _examples_start(between)
    if start is None:
        return None
    model_part, model_hole = _named(between[:start], "{{model}}")
    question_part, question_hole = _named(text[question.end() : following.start()], "{{question}}")
    block, after = _example_block(between[start:])
    parts = [
        text[: head.end()] + model_part,
        f"{{{{#example}}}}\n{block}{{{{/example}}}}\n",
        after + text[question.start() : question.end()] + question_part + text[following.start() :],
    ]
    named = {model_hole: "{{model}}", question_hole: "{{question}}"}
    for i in (0, 2):
        parts[i] = _CODE_OR_PLAIN.sub(lambda hole: named.get(hole.group()) or _count(hole), parts[i])
    whole = "".join(parts)
    # An unknown placeholder would reach the estimator as text.
    return None if _OPEN in whole else whole


def _count(hole: re.Match[str]) -> str:
    return str(EXAMPLES) if _COUNT.search(hole.group()) else hole.group()


def _examples_start(between: str) -> int | None:
    """Find where the examples begin, between the heads of target model and target question."""
    first = _EXAMPLE_LINE.search(between)
    if first is not None:
        return first.start()
    # One placeholder may stand for all examples: the last before the target question, after the model's.
    holes = [hole for hole in _ANY_HOLE.finditer(between) if not _COUNT.search(hole.group())]
    return holes[-1].start() if len(holes) > 1 and not between[holes[-1].end() :].strip() else None


def _example_block(shown: str) -> tuple[str, str]:
    """Return the repeated block, the card's first example without its values, and the text after the last example.

    Where a placeholder stands for all examples, it is the documented block.
    """
    heads = list(_EXAMPLE_LINE.finditer(shown))
    if not heads:
        hole = _ANY_HOLE.match(shown)
        return DEFAULT_EXAMPLE, shown[hole.end() :] if hole else ""
    first = shown[: heads[1].start()] if len(heads) > 1 else shown
    head = re.sub(r"(Example\s*)[^\s:*]*", r"\1{{number}}", first[: heads[0].end()], count=1)
    body, found = _FIRST_QUESTION.subn(
        lambda m: f"{m[1]}{{{{example_question}}}}{m[3]}{{len: {{{{length}}}}, correct: {{{{correct}}}}}}",
        first[heads[0].end() :],
        count=1,
    )
    if not found:
        return DEFAULT_EXAMPLE, ""
    # The line breaks after the performance are the gap to the next example; "..." and the like are not part of it.
    end = body.index("correct: {{correct}}}") + len("correct: {{correct}}}")
    gap = re.match(r"\n*", body[end:])
    return head + body[:end] + (gap.group() if gap and gap.group() else "\n\n"), ""


def _named(section: str, name: str) -> tuple[str, str | None]:
    """Replace a section's only placeholder, or else all its text, by `name`; also return that placeholder."""
    holes = [hole for hole in _ANY_HOLE.finditer(section) if not _COUNT.search(hole.group())]
    if len(holes) == 1:
        hole = holes[0]
        marked = hole.group() if hole.group().startswith((_OPEN, "{")) else None
        return section[: hole.start()] + name + section[hole.end() :], marked
    stripped = section.strip()
    if not stripped:
        return name + "\n" + section, None
    start = section.index(stripped)
    return section[:start] + name + section[start + len(stripped) :], None
