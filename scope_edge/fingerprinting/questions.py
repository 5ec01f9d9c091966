"""What a model is asked: the anchors of a core set that have text and a key, most informative first, and what they may cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.encoding.token_count import query_prompt_tokens
from scope_edge.errors import UsageError
from scope_edge.estimation.ability import length_design
from scope_edge.estimation.anchor_spec import CoreSet, load_core
from scope_edge.fingerprinting.fresh import fresh_specs
from scope_edge.fingerprinting.grading import AnchorSpec, grade, prompt_of
from scope_edge.types import Query

if TYPE_CHECKING:
    from scope_edge.estimation.ability import Population
    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.types import Floats, ModelCard

CORE = "core-250"


@dataclass(frozen=True, slots=True)
class Question:
    """One anchor as it is put to a model.

    Attributes:
        anchor: its id. prompt: what is sent, word for word.
        prompt_tokens, prompt_tokens_high: expected and at most, own tokens.
        completion_tokens: an average model's, own tokens.
    """

    anchor: str
    spec: AnchorSpec
    prompt: str
    prompt_tokens: float
    prompt_tokens_high: float
    completion_tokens: float

    def grade(self, text: str) -> float:
        """How right an answer is, in [0, 1]."""
        return grade(self.spec, text) or 0.0


def load_questions(
    card: ModelCard, population: Population, name: str = CORE, seed: int = 0
) -> tuple[AnchorSet, tuple[Question, ...]]:
    """An anchor set and its questions, in the set's order.

    seed: other than 0, templates draw other numbers. Raises UsageError (no such set with text), AssetError (damaged).
    """
    if name != CORE:
        raise UsageError(f"no anchor set {name!r} has questions and keys to be graded by; there is {CORE}")
    core = load_core()
    return core.anchors, questions_of(core, card, population, seed)


def questions_of(core: CoreSet, card: ModelCard, population: Population, seed: int = 0) -> tuple[Question, ...]:
    """The questions of a core set, for the model of a card."""
    specs = fresh_specs(core.specs, seed) if seed else core.specs
    lengths = usual_lengths(core.anchors, population) * card.token_factor
    return tuple(map(_question, core.anchors.ids, specs, lengths.tolist(), [card.token_factor] * len(specs)))


def usual_lengths(anchors: AnchorSet, population: Population) -> Floats:
    """(n,) completion tokens (cl100k) that an average model spends on each anchor."""
    return np.exp(length_design(anchors.log_length, anchors.domains, population) @ population.length_mean)


def digest(questions: Sequence[Question]) -> str:
    """sha256 of what is asked, hex: another wording is another question."""
    rows = [(one.anchor, one.prompt) for one in questions]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _question(anchor: str, spec: AnchorSpec, length: float, factor: float) -> Question:
    prompt = prompt_of(spec)
    tokens = query_prompt_tokens(Query(prompt))
    return Question(anchor, spec, prompt, tokens.expected * factor, tokens.high * factor, length)
