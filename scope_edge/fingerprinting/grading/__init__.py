"""Grading a reply to an anchor. Nothing that a model wrote is ever executed."""

from scope_edge.estimation.anchor_spec import AnchorSpec, prompt_of
from scope_edge.fingerprinting.grading.grade import grade

__all__ = ["AnchorSpec", "grade", "prompt_of"]
