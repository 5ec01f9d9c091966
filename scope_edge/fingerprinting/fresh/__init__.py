"""Anchors made by seeded templates: the same question with other numbers. A model that has memorized the shipped text
without understanding it does worse on fresh ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scope_edge.errors import UsageError
from scope_edge.estimation.anchor_spec import AnchorSpec
from scope_edge.fingerprinting.fresh.draws import Draws, QuestionDraft, QuestionTemplate
from scope_edge.fingerprinting.fresh.numbers import NUMBERS
from scope_edge.fingerprinting.fresh.reasoning import REASONING

TEMPLATES: Mapping[str, QuestionTemplate] = {one.id: one for one in (*NUMBERS, *REASONING)}


def fresh_specs(specs: Sequence[AnchorSpec], seed: int) -> tuple[AnchorSpec, ...]:
    """Return the specs, those made by templates with the numbers that `seed` draws; seed 0 gives the shipped specs.

    A fresh anchor keeps its id and replaces the shipped one: about as hard, with another text.
    """
    return tuple(fresh_anchor(spec.id, seed) if spec.fresh else spec for spec in specs)


def fresh_anchor(id: str, seed: int) -> AnchorSpec:
    """Return the anchor that template `id` makes of a seed. Raises UsageError for an unknown id."""
    return drafted(id, seed)[0]


def drafted(id: str, seed: int) -> tuple[AnchorSpec, QuestionDraft]:
    """Return the fresh anchor and its draft, by which its key can be checked. Raises UsageError for an unknown id."""
    template = TEMPLATES.get(id)
    if template is None:
        raise UsageError(f"{id!r}: no template makes this anchor; those that do are {', '.join(TEMPLATES)}")
    draft = template.fill(Draws(id, seed))
    about = (id, template.field, template.tier, template.kind)
    tempting = draft.tempting if template.kind == "short" else ()
    return AnchorSpec(*about, draft.question, draft.key, tempting=tempting, fresh=True, **draft.more), draft
