"""A model's own chat template, around messages that stay plain text. Runs in the worker alone.

A template is a Jinja program from an untrusted file, so it runs in Jinja's sandbox. It never sees the messages: each is replaced
by a placeholder while the template runs, and the result is cut at the placeholders. So the template may write control tokens, and a
user's text never contains any, whatever it spells.
"""

from __future__ import annotations

import datetime
import json
import secrets
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from scope_edge.providers.llama.messages import Message, TextPiece


class TemplateError(ValueError):
    """The template cannot be used for these messages; the message is one line."""


def render_chat(template: str, messages: Sequence[Message], *, bos: str = "", eos: str = "") -> tuple[TextPiece, ...]:
    """Render the prompt. bos, eos: the vocabulary's spelling of the begin and end tokens.

    A conversation that the template does not take as it is, it gets in the plainest form that it does: with one system message
    at the start, with turns of one role joined, or with the system message in the user's first turn.

    Raises TemplateError: the template is broken, refuses every form, or does not write each message out once.
    """
    first: TemplateError | None = None
    for form in _forms(tuple(messages)):
        try:
            return _rendered(template, form, bos, eos)
        except TemplateError as error:
            first = first or error
    raise first or TemplateError("its chat template cannot be used for an empty conversation")


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
    try:
        text = (
            _environment()
            .from_string(template)
            .render(messages=rows, add_generation_prompt=True, bos_token=bos, eos_token=eos, tools=None, documents=None)
        )
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise TemplateError(f"its chat template cannot be used ({' '.join(str(error).split())[:200]})") from error
    pieces: list[TextPiece] = []
    for placeholder, message in zip(placeholders, messages, strict=True):
        if text.count(placeholder) != 1:
            raise TemplateError(
                f"its chat template writes the {message.role}'s text {text.count(placeholder)} times, not once"
            )
        before, _, text = text.partition(placeholder)
        pieces += [TextPiece(before, markup=True), TextPiece(message.text)]
    return tuple(piece for piece in (*pieces, TextPiece(text, markup=True)) if piece.text)


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
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
