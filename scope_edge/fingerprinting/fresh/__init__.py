"""Anchors made by seeded templates: the same question with other numbers. A model that knows the shipped text by heart, but
not how to answer it, shows on fresh ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scope_edge.errors import UsageError
from scope_edge.estimation.anchor_spec import AnchorSpec
from scope_edge.fingerprinting.fresh.draws import Draws, QuestionDraft, QuestionTemplate
from scope_edge.fingerprinting.fresh.numbers import NUMBERS
from scope_edge.fingerprinting.fresh.programs import PROGRAMS
from scope_edge.fingerprinting.fresh.puzzles import PUZZLES
from scope_edge.fingerprinting.fresh.quantities import QUANTITIES

TEMPLATES: Mapping[str, QuestionTemplate] = {one.id: one for one in (*NUMBERS, *QUANTITIES, *PROGRAMS, *PUZZLES)}


def fresh_specs(specs: Sequence[AnchorSpec], seed: int) -> tuple[AnchorSpec, ...]:
    """Return the specs, those made by templates with the numbers that `seed` draws; 0 gives the shipped ones.

    A fresh instance keeps its id and stands in for the shipped one: about as hard, and not to be known by heart.
    """
    return tuple(fresh_anchor(spec.id, seed) if spec.fresh else spec for spec in specs)


def fresh_anchor(id: str, seed: int) -> AnchorSpec:
    """The anchor that template `id` makes of a seed; seed 0 is the shipped one. Raises UsageError for an unknown id."""
    return drafted(id, seed)[0]


def drafted(id: str, seed: int) -> tuple[AnchorSpec, QuestionDraft]:
    """As `fresh_anchor`, with what its key can be checked by."""
    template = TEMPLATES.get(id)
    if template is None:
        raise UsageError(f"{id!r}: no template makes this anchor; those that do are {', '.join(TEMPLATES)}")
    draft = template.fill(Draws(id, seed))
    spec = AnchorSpec(
        id=id,
        field=template.field,
        tier=template.tier,
        kind=template.kind,
        question=draft.question,
        key=draft.key,
        fresh=True,
        **draft.more,
    )
    return spec, draft
