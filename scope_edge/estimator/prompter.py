"""One installed estimator's prompts for a pool's models: its template, the examples it is shown, how it is sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scope_edge.estimator.examples import TextSlices
from scope_edge.estimator.prompt import MAX_EXAMPLE, MAX_QUESTION, Template
from scope_edge.llama.messages import Job, Piece
from scope_edge.prompt_tokens import estimate_prompt_tokens

if TYPE_CHECKING:
    from scope_edge.estimator.installed import Installed
    from scope_edge.records import Vector


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, its expected tokens (cl100k, so an estimate), and how many of its texts were cut."""

    pieces: tuple[Piece, ...]
    tokens: float
    cut: int


class Prompter:
    """Writes prompts and the jobs that sample them."""

    def __init__(self, installed: Installed, slices: TextSlices) -> None:
        """Raises AssetError or UsageError: the estimator's template is damaged or unusable."""
        self._installed = installed
        self._template = Template.parse(installed.template, installed.name)
        self._slices = slices

    def prompt(
        self, model: int, similarities: Sequence[Vector], question: str, *, without: str | None = None
    ) -> Prompt:
        """The prompt for a model, by index in the pool; the other arguments as in `TextSlices.examples`."""
        examples = self._slices.examples(model, similarities, self._installed.examples, without=without)
        pieces = self._template.render(self._slices.names[model], examples, question)
        cut = (len(question) > MAX_QUESTION) + sum(len(one.question) > MAX_EXAMPLE for one in examples)
        return Prompt(pieces, sum(estimate_prompt_tokens(piece.text).expected for piece in pieces), cut)

    def job(self, prompt: Prompt, samples: int, *, after: int = 0) -> Job:
        """The job that draws so many samples; `after` so many were drawn already, which it does not repeat."""
        one = self._installed
        sampling = replace(one.sampling, seed=one.sampling.seed + after)
        return Job(prompt.pieces, samples, one.mode, one.analysis_tokens, sampling)
