"""The questions for a model: the anchors of a core set with text and key, and the tokens they are expected to take."""

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
from scope_edge.estimation.anchor_spec import load_core
from scope_edge.fingerprinting.fresh import fresh_specs
from scope_edge.fingerprinting.grading import AnchorSpec, grade, prompt_of
from scope_edge.types import Query

if TYPE_CHECKING:
    from scope_edge.estimation.ability import Population
    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.types import ModelCard

CORE = "core-250"


@dataclass(frozen=True, slots=True)
class Question:
    """One anchor as a question.

    Attributes:
        anchor: its id. prompt: the text that is sent.
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
        """Grade an answer in [0, 1]."""
        return grade(self.spec, text) or 0.0


def load_questions(
    card: ModelCard, population: Population, name: str = CORE, seed: int = 0
) -> tuple[AnchorSet, tuple[Question, ...]]:
    """Load an anchor set and its questions for the model of a card, in the set's order.

    seed: if not 0, templates draw other numbers. Raises UsageError (no such set with text), AssetError (damaged).
    """
    if name != CORE:
        raise UsageError(f"no anchor set {name!r} has questions and keys to be graded by; there is {CORE}")
    core = load_core()
    specs = fresh_specs(core.specs, seed) if seed else core.specs
    design = length_design(core.anchors.log_length, core.anchors.domains, population)
    lengths = np.exp(design @ population.length_mean) * card.token_factor
    questions: list[Question] = []
    for anchor, spec, length in zip(core.anchors.ids, specs, lengths.tolist(), strict=True):
        prompt = prompt_of(spec)
        tokens = query_prompt_tokens(Query(prompt))
        expected, high = tokens.expected * card.token_factor, tokens.high * card.token_factor
        questions.append(Question(anchor, spec, prompt, expected, high, length))
    return core.anchors, tuple(questions)


def digest(questions: Sequence[Question]) -> str:
    """Return the sha256 of the prompts, hex: another wording is another question."""
    rows = [(one.anchor, one.prompt) for one in questions]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
