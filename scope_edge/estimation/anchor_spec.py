"""What an anchor asks and how a reply to it is graded: the record, its prompt, and its form in a pack or a source file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from scope_edge.errors import PackError

Kind = Literal["choice", "short", "number", "json", "rules", "output", "line"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TIERS = (1, 2, 3)
LETTERS = "ABCDEFGH"
_ENDINGS: Mapping[Kind, str] = {
    "choice": 'End with a line that says "Answer:" and the letter of the right option.',
    "short": 'End with a line that says "Answer:" and nothing but the answer.',
    "number": 'End with a line that says "Answer:" and nothing but the number.',
    "json": "End with the JSON alone, in a code block.",
    "rules": "",
    "output": "End with the exact output, in a code block.",
    "line": 'End with a line that says "Answer:" and the number of that line.',
}


@dataclass(frozen=True, slots=True)
class AnchorSpec:
    """One anchor: what is asked and what is right.

    Attributes:
        field: the subject. tier: 1 (any model worth using), 2, 3 (hard for the best). kind: which grader.
        key: the right answer; for `rules` one of many.
        options: of a choice, in the order of `LETTERS`.
        accept: other spellings of a short answer; other right letters never. exact: whether its capitals count.
        relative, absolute: how far a number may be off; the larger of both holds.
        units: (unit, factor): what a number may be followed by, and what it is then multiplied by.
        rules: (name, value), see `scope_edge.fingerprinting.grading.grade`; all must hold.
        fresh: made by a template: `scope_edge.fingerprinting.fresh.fresh_anchor` makes others like it.
    """

    id: str
    field: str
    tier: int
    kind: Kind
    question: str
    key: str
    options: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()
    exact: bool = False
    relative: float = 0.0
    absolute: float = 0.0
    units: tuple[tuple[str, float], ...] = ()
    rules: tuple[tuple[str, Any], ...] = ()
    fresh: bool = False


def text_of(spec: AnchorSpec) -> str:
    """The question with its options: what is embedded and compared."""
    listed = (f"({letter}) {option}" for letter, option in zip(LETTERS, spec.options, strict=False))
    return "\n".join((spec.question, *listed))


def ending_of(spec: AnchorSpec) -> str:
    """How the model is told to end its reply, maybe empty."""
    return _ENDINGS[spec.kind]


def prompt_of(spec: AnchorSpec) -> str:
    """What a model is sent, word for word."""
    ending = ending_of(spec)
    return f"{text_of(spec)}\n\n{ending}" if ending else text_of(spec)


def spec_body(spec: AnchorSpec) -> dict[str, Any]:
    """A spec as plain types, without what is at its default."""
    body: dict[str, Any] = {}
    for one in fields(AnchorSpec):
        value = getattr(spec, one.name)
        if value != one.default:
            body[one.name] = value
    if spec.rules or spec.units:
        body.update({name: dict(getattr(spec, name)) for name in ("rules", "units") if getattr(spec, name)})
    return body


def spec_from_body(body: Mapping[str, Any], where: str) -> AnchorSpec:
    """A spec out of plain types. Raises PackError naming the anchor and what is wrong with it."""
    name = body.get("id", "?")
    try:
        plain = dict(body)
        for field in ("options", "accept"):
            plain[field] = tuple(str(one) for one in plain.get(field, ()))
        plain["units"] = tuple((unit, float(factor)) for unit, factor in plain.get("units", {}).items())
        plain["rules"] = tuple(plain.get("rules", {}).items())
        spec = AnchorSpec(**plain)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PackError(f"{where}: anchor {name!r} cannot be used ({error!r}); get a fresh copy") from error
    fault = _fault(spec)
    if fault:
        raise PackError(f"{where}: anchor {name!r}: {fault}; get a fresh copy")
    return spec


def _fault(spec: AnchorSpec) -> str | None:
    """What makes a spec ungradable, or None."""
    texts = (spec.id, spec.field, spec.question, spec.key, *spec.options, *spec.accept)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return "a text is empty or not a text"
    if spec.kind not in KINDS or spec.tier not in TIERS:
        return f"kind {spec.kind!r} or tier {spec.tier!r} is unknown"
    if (spec.kind == "choice") != bool(spec.options):
        return "options belong to a choice and only there"
    if spec.kind == "choice" and spec.key not in tuple(LETTERS[: len(spec.options)]):
        return f"key {spec.key!r} is no letter of its options"
    if (spec.kind == "rules") != bool(spec.rules):
        return "rules belong to the kind rules and only there"
    return None
