"""Difficulties and abilities in turns, until they agree: the joint fit of what the user has had measured.

What models did on other sets, bundled ones above all, counts in their abilities. The result is the same whatever the order
in which models and files come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.prior import ability_of
from scope_edge.refit.told import Placed, Told, tell

if TYPE_CHECKING:
    from scope_edge.fingerprints import Fingerprint
    from scope_edge.prior import Basis
    from scope_edge.records import Floats

    Fingerprints = Mapping[str, tuple[Fingerprint, ...]]

_ROUNDS = 20
# Logits of difficulty; outcomes cannot show as little.
_SETTLED = 0.01


def told_by_all(fingerprints: Fingerprints, placed: Mapping[str, Placed], basis: Basis) -> dict[str, Told]:
    """What the models tell of every placed set, by its name. Milliseconds a model and round, of which there are about five."""
    outcomes = {
        name: {model: part.correct for model in sorted(fingerprints) if (part := _on(name, fingerprints[model]))}
        for name in sorted(placed)
    }
    models = sorted({model for one in outcomes.values() for model in one})
    # Sums differ in their last digits with the order.
    parts = {model: sorted(fingerprints[model], key=lambda part: part.anchors.name) for model in models}
    told: dict[str, Told] = {}
    for _ in range(_ROUNDS):
        abilities = {m: _able(basis, m, seen_by(m, parts[m], told, placed)) for m in models}
        before, told = told, {name: tell(placed[name], one, abilities) for name, one in outcomes.items()}
        if before and all(
            np.abs(one.difficulty - before[name].difficulty).max() < _SETTLED for name, one in told.items()
        ):
            break
    return told


def seen_by(
    model: str, parts: Sequence[Fingerprint], told: Mapping[str, Told], placed: Mapping[str, Placed]
) -> tuple[Fingerprint, ...]:
    """A model's fingerprints, their anchors as hard as the other models tell."""
    return tuple(
        replace(part, anchors=told[name].by_others(model, placed[name]))
        if (name := part.anchors.name) in told
        else part
        for part in parts
    )


def _on(name: str, parts: Sequence[Fingerprint]) -> Fingerprint | None:
    return next((part for part in parts if part.anchors.name == name), None)


def _able(basis: Basis, model: str, parts: Sequence[Fingerprint]) -> tuple[Floats, Floats]:
    ability = ability_of(basis, model, parts)
    assert ability is not None  # it has at least one fingerprint
    return ability.mean, ability.covariance
