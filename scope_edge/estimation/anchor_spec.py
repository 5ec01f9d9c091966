"""Core sets that can be asked: an anchor's question and right answer, the prompt, and the bundled core-250.

They are loaded to be asked or graded, never to route:

core = load_core()
for spec in core.specs:                       # most informative first
    reply = ask(prompt_of(spec))              # None when no reply came
    correct = grade(spec, reply)              # fingerprinting.grading: 0 to 1, or None: missing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from scope_edge.errors import PackError
from scope_edge.estimation.anchors import AnchorSet, set_body, set_from_body
from scope_edge.storage import assets
from scope_edge.storage.packs import reading, unpack

CORE_250 = "anchors/core-250.pack"
_KIND = "core-set"
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
    """One anchor: its question and its right answer.

    Attributes:
        field: the subject. tier: 1 (any model worth using), 2, 3 (hard for the best). kind: which grader.
        key: the right answer; for `rules` one of many. options: of a choice, in the order of `LETTERS`.
        accept: other spellings of a short answer; other right letters never. exact: whether its capitals count.
        tempting: plausible wrong answers of a short one: a sentence that names one is no right answer.
        relative, absolute: how far a number may be off; the larger of both holds.
        units: (unit, factor): units that may follow a number, and the factor that each multiplies it by.
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
    tempting: tuple[str, ...] = ()
    relative: float = 0.0
    absolute: float = 0.0
    units: tuple[tuple[str, float], ...] = ()
    rules: tuple[tuple[str, Any], ...] = ()
    fresh: bool = False


def text_of(spec: AnchorSpec) -> str:
    """Return the question with its options, the text that is embedded and compared."""
    listed = (f"({letter}) {option}" for letter, option in zip(LETTERS, spec.options, strict=False))
    return "\n".join((spec.question, *listed))


def ending_of(spec: AnchorSpec) -> str:
    """Return the instruction for the end of the reply, maybe empty."""
    return _ENDINGS[spec.kind]


def prompt_of(spec: AnchorSpec) -> str:
    """Return the prompt that a model is sent, word for word."""
    ending = ending_of(spec)
    return f"{text_of(spec)}\n\n{ending}" if ending else text_of(spec)


def spec_body(spec: AnchorSpec) -> dict[str, Any]:
    """Return a spec as plain types, without fields at their default."""
    changed = {one.name: value for one in fields(spec) if (value := getattr(spec, one.name)) != one.default}
    return {name: dict(value) if name in ("rules", "units") else value for name, value in changed.items()}


def spec_from_body(body: Mapping[str, Any], where: str) -> AnchorSpec:
    """Read a spec from plain types. Raises PackError naming the anchor and its fault."""
    with reading(where, f"anchor {body.get('id', '?')!r}", "get a fresh copy"):
        plain = dict(body)
        for field in ("options", "accept", "tempting"):
            plain[field] = tuple(str(one) for one in plain.get(field, ()))
        plain["units"] = tuple((unit, float(factor)) for unit, factor in plain.get("units", {}).items())
        plain["rules"] = tuple(plain.get("rules", {}).items())
        spec = AnchorSpec(**plain)
        if fault := _fault(spec):
            raise ValueError(fault)
        return spec


def _fault(spec: AnchorSpec) -> str | None:
    """Say why a spec cannot be graded, or None."""
    texts = (spec.id, spec.field, spec.question, spec.key, *spec.options, *spec.accept)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return "a text is empty or not a text"
    if spec.kind not in KINDS or spec.tier not in TIERS:
        return f"kind {spec.kind!r} or tier {spec.tier!r} is unknown"
    if (spec.kind == "choice") != bool(spec.options):
        return "options belong to a choice and only there"
    if spec.kind == "choice" and spec.key not in tuple(LETTERS[: len(spec.options)]):
        return f"key {spec.key!r} is not a letter of its options"
    if (spec.kind == "rules") != bool(spec.rules):
        return "rules belong to the kind rules and only there"
    return None


@dataclass(frozen=True, slots=True, eq=False)
class CoreSet:
    """A core anchor set that can be asked: row i of `anchors` is where `specs[i]` lies on the map."""

    anchors: AnchorSet
    specs: tuple[AnchorSpec, ...]


def load_core() -> CoreSet:
    """Load the bundled core-250. Raises AssetError when it is missing or damaged."""
    body = unpack(assets.read(CORE_250), _KIND, CORE_250, verified=True)
    specs = tuple(spec_from_body(one, CORE_250) for one in body.get("specs", ()))
    anchors = set_from_body(body.get("anchors", {}), CORE_250)
    if anchors.ids != _ids(anchors.name, specs):
        raise PackError(f"{CORE_250}: its questions and their positions do not fit together; reinstall scope-edge")
    return CoreSet(replace(anchors, texts=tuple(text_of(spec) for spec in specs)), specs)


def core_body(core: CoreSet) -> tuple[str, dict[str, Any]]:
    """Return kind and body of the pack of a core set. The anchors' texts are left out, since the specs have them."""
    if core.anchors.ids != _ids(core.anchors.name, core.specs):
        raise PackError(f"{core.anchors.name}: its questions and their positions do not fit together; build it again")
    anchors = set_body(replace(core.anchors, texts=()))
    return _KIND, {"anchors": anchors, "specs": [spec_body(spec) for spec in core.specs]}


def _ids(name: str, specs: Sequence[AnchorSpec]) -> tuple[str, ...]:
    return tuple(f"{name}/{spec.id}" for spec in specs)
