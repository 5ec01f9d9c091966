"""Grading: what an anchor asks, and whether a reply answers it. Nothing a model wrote is ever executed."""

from scope_edge.grading.grade import grade
from scope_edge.grading.specs import AnchorSpec, prompt_of

__all__ = ["AnchorSpec", "grade", "prompt_of"]
