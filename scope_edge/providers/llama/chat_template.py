"""A model's own chat template, around messages that stay plain text. Runs in the worker alone.

A template is a Jinja program from an untrusted file, so it runs in Jinja's sandbox, within limits of time, memory and length. It
never sees the messages: each is replaced by a placeholder while the template runs, and the result is cut at the placeholders. So the
template may write control tokens, and a user's text never contains any, whatever it spells.
"""

from __future__ import annotations

import datetime
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from scope_edge.providers.llama.messages import Message, TextPiece
from scope_edge.providers.llama.template_limits import MEMORY_BYTES, SECONDS, TooSlowError, limits

# Of a template and of what it writes, without the messages' texts.
_MAX_LENGTH = 2**20

_UNUSABLE = "its chat template cannot be used ({})"
_EXCEEDED: Mapping[type[BaseException], str] = {
    TooSlowError: f"it runs for more than {SECONDS:g} seconds",
    MemoryError: f"it takes more than {MEMORY_BYTES // 2**20} MB of memory",
    RecursionError: "it calls itself without end",
}
# What a template can end in. Python's compiler refuses blocks that are nested too deeply.
_ERRORS = (
    jinja2.TemplateError, ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, SyntaxError, TypeError,
    ValueError,
)  # fmt: skip


class TemplateError(ValueError):
    """The template cannot be used for these messages; the message is one line."""


class _EndlessError(TemplateError):
    """It cannot be used for any: it exceeds a limit."""


def render_chat(template: str, messages: Sequence[Message], *, bos: str = "", eos: str = "") -> tuple[TextPiece, ...]:
    """Render the prompt. bos, eos: the vocabulary's spelling of the begin and end tokens.

    A conversation that the template does not take as it is, it gets in the plainest form that it does: with one system message
    at the start, with turns of one role joined, or with the system message in the user's first turn.

    Raises TemplateError: the template is broken, refuses every form, or does not write each message out once.
    """
    refusals: list[TemplateError] = []
    for form in _forms(tuple(messages)):
        try:
            return _rendered(template, form, bos, eos)
        except _EndlessError:
            raise
        except TemplateError as error:
            refusals.append(error)
    raise refusals[0]


def _forms(messages: tuple[Message, ...]) -> Iterator[tuple[Message, ...]]:
    """Yield a conversation as it is, and then in plainer and plainer forms."""
    systems = [one.text for one in messages if one.role == "system"]
    rest = tuple(one for one in messages if one.role != "system")
    one_system = (Message("system", "\n\n".join(systems)), *rest) if systems else rest
    forms = [messages, one_system, _alternating(one_system)]
    if systems:
        opened = rest if rest and rest[0].role == "user" else (Message("user", ""), *rest)
        folded = "\n\n".join(filter(None, (*systems, opened[0].text)))
        forms.append(_alternating((Message("user", folded), *opened[1:])))
    yield from dict.fromkeys(forms)


def _alternating(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Join neighbouring messages of one role."""
    groups = (list(group) for _, group in groupby(messages, key=lambda one: one.role))
    return tuple(Message(group[0].role, "\n\n".join(one.text for one in group)) for group in groups)


def _rendered(template: str, messages: Sequence[Message], bos: str, eos: str) -> tuple[TextPiece, ...]:
    mark = secrets.token_hex(12)
    # Letters and digits alone, which no template trims, escapes or takes for markup.
    placeholders = [f"text{i}x{mark}" for i in range(len(messages))]
    rows = [{"role": one.role, "content": placeholder} for one, placeholder in zip(messages, placeholders, strict=True)]
    text = _run(template, {"messages": rows, "bos_token": bos, "eos_token": eos})
    pieces: list[TextPiece] = []
    for placeholder, message in zip(placeholders, messages, strict=True):
        if text.count(placeholder) != 1:
            raise TemplateError(
                f"its chat template writes the {message.role}'s text {text.count(placeholder)} times, not once"
            )
        before, _, text = text.partition(placeholder)
        pieces += [TextPiece(before, markup=True), TextPiece(message.text)]
    return tuple(piece for piece in (*pieces, TextPiece(text, markup=True)) if piece.text)


def _run(template: str, values: Mapping[str, object]) -> str:
    """Return what a template writes. Raises TemplateError."""
    given = {**values, "add_generation_prompt": True, "tools": None, "documents": None}
    try:
        if len(template) > _MAX_LENGTH:
            raise _EndlessError(f"it is longer than {_MAX_LENGTH} characters")
        with limits():
            return _joined(_environment().from_string(template).generate(given))
    except (_EndlessError, TooSlowError, MemoryError, RecursionError) as error:
        raise _EndlessError(_UNUSABLE.format(_EXCEEDED.get(type(error)) or error)) from error
    except _ERRORS as error:
        raise TemplateError(_UNUSABLE.format(" ".join(str(error).split())[:200])) from error


def _joined(parts: Iterable[str]) -> str:
    """Join parts of a text. Raises _EndlessError: they are too long."""
    kept: list[str] = []
    left = _MAX_LENGTH
    for part in parts:
        kept.append(part)
        left -= len(part)
        if left < 0:
            raise _EndlessError(f"it writes more than {_MAX_LENGTH} characters")
    return "".join(kept)


def _to_json(value: object, indent: int | None = None) -> str:
    # Piece by piece: written at once, a list that holds another many times over could not be interrupted.
    return _joined(json.JSONEncoder(ensure_ascii=False, indent=indent).iterencode(value))


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %}: marks training text; ignored here."""

    tags = {"generation"}  # noqa: RUF012 - declared so by jinja

    def parse(self, parser: Parser) -> list[Node]:
        """Return the nodes inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    """Return an environment set up like the templates' own library, for the same white space."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
