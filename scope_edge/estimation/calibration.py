"""Calibration: a probability that means what it says, and an upper bound on length that holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.estimation.newton import sigmoid
from scope_edge.storage.packs import reading

if TYPE_CHECKING:
    from scope_edge.types import Floats

_PROBIT = np.pi / 8


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Platt scaling of the log-odds (Platt 1999), fitted on models and queries that the estimates had not seen.

    Attributes:
        slope, intercept: shape (sets,), or (models, sets) where models differ. A query gets the mixture of the sets it is like.
        widening: of the way from the expected log-length to its upper bound; shape (), or (models,).
    """

    slope: Floats
    intercept: Floats
    widening: Floats = field(default_factory=lambda: np.ones(()))

    @classmethod
    def none(cls, sets: int) -> Calibration:
        """Return a calibration that changes nothing."""
        return cls(np.ones(sets), np.zeros(sets))


def probability(logit: Floats, variance: Floats, domains: Floats, calibration: Calibration) -> Floats:
    """Return calibrated P(correct) for log-odds with a variance. Averaging over it pulls towards one half (MacKay 1992).

    logit, variance: shape (models, ...); domains: (..., sets), of the queries, as in `MapPositions`.
    """
    slope, intercept = (domains @ calibration.slope.T).T, (domains @ calibration.intercept.T).T
    return sigmoid(slope * logit / np.sqrt(1 + _PROBIT * variance) + intercept)


def calibration_body(calibration: Calibration) -> dict[str, Any]:
    """Return the calibration as the body of a pack."""
    return {"slope": calibration.slope, "intercept": calibration.intercept}


def calibration_from_body(body: Mapping[str, Any], where: str) -> Calibration:
    """Read the calibration from a pack's body. Raises PackError when a field is missing or shapes do not fit."""
    with reading(where, "calibration"):
        slope, intercept = (np.require(body[name], np.float64, "A") for name in ("slope", "intercept"))
        if slope.ndim != 1 or slope.shape != intercept.shape:
            raise ValueError("its shapes do not fit together")
        return Calibration(slope, intercept)
