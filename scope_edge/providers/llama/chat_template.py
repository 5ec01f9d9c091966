"""A model's own chat template, around messages that stay plain text. Runs in the worker alone.

A template is a Jinja program from an untrusted file, so it runs in Jinja's sandbox, within limits of time, memory and length. It never sees the messages: each is replaced
by a placeholder while the template runs, and the result is cut at the placeholders. So the template may write control tokens, and a
user's text never contains any, whatever it spells.
"""

from __future__ import annotations

import datetime
import json
import secrets
from collections.abc import Mapping, Sequence
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


class TemplateError(ValueError):
    """The template cannot be used for these messages; the message is one line."""


def render_chat(template: str, messages: Sequence[Message], *, bos: str = "", eos: str = "") -> tuple[TextPiece, ...]:
    """Render the prompt. bos, eos: the vocabulary's spelling of the begin and end tokens.

    Raises TemplateError: the template is broken, refuses the messages, or does not write each of them out once.
    """
    mark = secrets.token_hex(12)
    # Letters and digits alone, which no template trims, escapes or takes for markup.
    placeholders = [f"text{i}x{mark}" for i in range(len(messages))]
    rows = [{"role": one.role, "content": placeholder} for one, placeholder in zip(messages, placeholders, strict=True)]
    text = _rendered(template, {"messages": rows, "bos_token": bos, "eos_token": eos})
    pieces: list[TextPiece] = []
    for placeholder, message in zip(placeholders, messages, strict=True):
        if text.count(placeholder) != 1:
            raise TemplateError(
                f"its chat template writes the {message.role}'s text {text.count(placeholder)} times, not once"
            )
        before, _, text = text.partition(placeholder)
        pieces += [TextPiece(before, markup=True), TextPiece(message.text)]
    return tuple(piece for piece in (*pieces, TextPiece(text, markup=True)) if piece.text)


def _rendered(template: str, values: Mapping[str, object]) -> str:
    """Return what a template writes. Raises TemplateError."""
    given = {**values, "add_generation_prompt": True, "tools": None, "documents": None}
    parts: list[str] = []
    try:
        if len(template) > _MAX_LENGTH:
            raise ValueError(f"it is longer than {_MAX_LENGTH} characters")
        with limits():
            left = _MAX_LENGTH
            for part in _environment().from_string(template).generate(given):
                parts.append(part)
                left -= len(part)
                if left < 0:
                    raise ValueError(f"it writes more than {_MAX_LENGTH} characters")
        return "".join(parts)
    except TooSlowError as error:
        why, cause = f"it runs for more than {SECONDS:g} seconds", error
    except MemoryError as error:
        why, cause = f"it takes more than {MEMORY_BYTES // 2**20} MB of memory", error
    except RecursionError as error:
        why, cause = "it calls itself without end", error
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        why, cause = " ".join(str(error).split())[:200], error
    raise TemplateError(f"its chat template cannot be used ({why})") from cause


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
