"""From raw estimates to calibrated ones: a probability that means what it says, and an upper bound on length that holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.errors import PackError
from scope_edge.estimation.newton import sigmoid
from scope_edge.types import Estimates

if TYPE_CHECKING:
    from scope_edge.types import Evidence, Floats

# The band shown around p: 90 %.
_BAND = 1.6448536269514722
_PROBIT = np.pi / 8


@dataclass(frozen=True, slots=True, eq=False)
class RawEstimates:
    """What an estimator believes of each model of the pool, before calibration. Arrays have shape (n,).

    Attributes:
        logit: mean log-odds of a correct answer. ability_variance: of `logit`, for what is not known of the model.
        query_variance: of `logit`, for what is not known of the query; a number for all, shape (1,).
        domains: (sets,), how much the query is like each measured set.
        log_tokens: mean natural log of completion tokens (cl100k), NaN = not known. log_spread: its standard deviation.
        upper: how many spreads above the mean the upper bound lies. token_factor: own tokens per cl100k token.
    """

    models: tuple[str, ...]
    logit: Floats
    ability_variance: Floats
    query_variance: Floats
    domains: Floats
    log_tokens: Floats
    log_spread: Floats
    upper: Floats
    token_factor: Floats
    evidence: tuple[Evidence, ...]
    source: tuple[str, ...]


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
        """One that changes nothing."""
        return cls(np.ones(sets), np.zeros(sets))


def probability(logit: Floats, variance: Floats, domains: Floats, calibration: Calibration) -> Floats:
    """Calibrated P(correct) of log-odds of some variance. Averaging over it pulls towards one half (MacKay 1992).

    logit, variance: shape (models, ...); domains: (..., sets), of the queries, as in `Place`.
    """
    slope, intercept = (domains @ calibration.slope.T).T, (domains @ calibration.intercept.T).T
    return sigmoid(slope * logit / np.sqrt(1 + _PROBIT * variance) + intercept)


def calibrate(raw: RawEstimates, calibration: Calibration) -> Estimates:
    """Estimates the policy may act on. p_low and p_high move the model's ability by 90 % of what is not known of it."""
    away = _BAND * np.sqrt(raw.ability_variance)
    p = probability(raw.logit, raw.ability_variance + raw.query_variance, raw.domains, calibration)
    low, high = (
        probability(raw.logit + sign * away, raw.query_variance, raw.domains, calibration) for sign in (-1.0, 1.0)
    )
    return Estimates(
        models=raw.models,
        p_correct=p,
        p_low=np.minimum(low, p),
        p_high=np.maximum(high, p),
        tokens=raw.token_factor * np.exp(raw.log_tokens),
        tokens_hi=raw.token_factor
        * np.exp(raw.log_tokens + calibration.widening * np.maximum(raw.upper, 0.0) * raw.log_spread),
        evidence=raw.evidence,
        source=raw.source,
    )


def calibration_body(calibration: Calibration) -> dict[str, Any]:
    """The calibration as the body of a pack."""
    return {"slope": calibration.slope, "intercept": calibration.intercept}


def calibration_from_body(body: Mapping[str, Any], where: str) -> Calibration:
    """The calibration out of a pack's body. Raises PackError when a field is missing or shapes do not fit."""
    try:
        slope, intercept = (np.require(body[name], np.float64, "A") for name in ("slope", "intercept"))
    except (KeyError, TypeError, ValueError) as error:
        raise PackError(f"{where}: not a usable calibration ({error!r}); reinstall scope-edge") from error
    if slope.ndim != 1 or slope.shape != intercept.shape:
        raise PackError(f"{where}: the calibration's shapes do not fit together; reinstall scope-edge")
    return Calibration(slope, intercept)
