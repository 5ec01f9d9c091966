"""Estimates corrected near queries whose answers the user judged, and nowhere else.

The prior knows how able a model is. Were abilities fitted to what users say, they would learn more from fair samples
than this does; but people speak up about what went wrong, and a model would sink on all queries for it. So every anchor
made of feedback pulls at its surroundings: a model's log-odds of being right are those of the prior plus a Gaussian
process over embeddings, with covariance exp(8 (cos - 1)), given the outcomes (Rasmussen and Williams 2006, ch. 3: the
mode of its posterior). Lengths likewise, in their logs. build_scripts/measure_feedback.py sets it against abilities
fitted to the same outcomes: docs/journal.md has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimation.feedback_store import FEEDBACK, FeedbackRecord, load_feedback, stamp
from scope_edge.estimation.irt import SLICE
from scope_edge.estimation.newton import fit_logistic, logit, sigmoid
from scope_edge.types import Neighbor, Outcome, Slice

if TYPE_CHECKING:
    from scope_edge.estimation.difficulty import DifficultyMap
    from scope_edge.estimation.irt import IrtEstimator
    from scope_edge.types import EncodedQuery, Estimates, EstimatorReport, Floats, ModelCard, Vector

# How fast likeness fades: at cosine 0.9 half of it is left, at 0.7 a tenth, at 0.4 a hundredth.
_SHARPNESS = 8.0
# Of the process, in log-odds and in log-length; and of one length about what is expected of it.
_VARIANCE, _LENGTH_VARIANCE, _LENGTH_NOISE = 1.0, 0.25, 0.5
# Answers of one model that are looked at, the latest: their likeness among each other is a matrix.
_MOST = 500
# Two equal queries would leave their covariance without a root.
_JITTER = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class FeedbackCorrection:
    """What one model's judged answers pull at.

    Attributes:
        said: the answers. vectors: (n, d) of their queries.
        weights, length_weights: (n,) what each adds to log-odds and log-length, by likeness.
    """

    said: tuple[FeedbackRecord, ...]
    vectors: Vector
    weights: Floats
    length_weights: Floats

    def at(self, vector: Vector) -> tuple[float, float]:
        """What is added to log-odds and log-length at a unit vector."""
        near = np.exp(_SHARPNESS * (self.vectors @ vector - 1.0))
        return float(near @ self.weights), float(near @ self.length_weights)


class FeedbackCorrectedEstimator:
    """The prior of a pool, and what feedback makes of its estimates. Feedback that comes later is known from the next query on."""

    def __init__(self, prior: IrtEstimator, fitted: DifficultyMap, pool: Sequence[ModelCard]) -> None:
        self._prior, self._map = prior, fitted
        self._factors = {card.id: card.token_factor for card in pool}
        self._known: tuple[tuple[int, int] | None, Mapping[str, FeedbackCorrection]] = (None, {})

    def estimate(self, encoded: EncodedQuery, similarity: float) -> tuple[Estimates, EstimatorReport]:
        """As `Prior.estimate`, corrected."""
        estimates, report = self._prior.estimate(encoded, similarity)
        pulls = self._pulls()
        return (corrected(estimates, pulls, encoded.vector) if pulls else estimates), report

    def slices(self, encoded: EncodedQuery) -> tuple[Slice, ...]:
        """As `Prior.slices`, with the answers that were judged among them."""
        pulls, found = self._pulls(), {one.model: one for one in self._prior.slices(encoded)}
        for model, pull in pulls.items():
            found[model] = _joined(found.get(model, Slice(model, (), ())), pull, encoded.vector)
        return tuple(found[model] for model in self._prior.models if model in found)

    def _pulls(self) -> Mapping[str, FeedbackCorrection]:
        """By model of the pool; made anew when what is kept has changed."""
        now = stamp()
        if now != self._known[0]:
            self._known = now, pulls_of(load_feedback().said, self._prior, self._map, self._factors)
        return self._known[1]


def pulls_of(
    said: Sequence[FeedbackRecord], prior: IrtEstimator, fitted: DifficultyMap, factors: Mapping[str, float]
) -> Mapping[str, FeedbackCorrection]:
    """What judged answers pull at, by model of the prior. factors: own tokens a cl100k token."""
    found = {}
    for column, model in enumerate(prior.models):
        mine = tuple(one for one in said if one.model == model)[-_MOST:]
        if not mine:
            continue
        vectors = _unit(np.array([one.vector for one in mine]))
        states, features = (np.array([getattr(one, name) for one in mine]) for name in ("state", "features"))
        places = fitted.places_of(vectors, states.astype(np.float32), features)
        table = prior.table(places, np.ones(len(mine)))
        expected, tokens = table.p_correct[:, column], table.tokens[:, column]
        if np.isnan(expected).any():
            continue  # nothing is expected of a model without a fingerprint, so there is nothing to correct
        correct, lengths = (np.array([getattr(one, name) for one in mine]) for name in ("correct", "tokens"))
        surprise = np.log(lengths * factors[model]) - np.log(tokens)
        found[model] = pull_of(mine, vectors, logit(expected), (correct, surprise))
    return found


def pull_of(
    said: tuple[FeedbackRecord, ...], vectors: Vector, expected: Floats, outcomes: tuple[Floats, Floats]
) -> FeedbackCorrection:
    """What answers of one model pull at.

    vectors: (n, d), unit. expected: (n,) log-odds of being right. outcomes: (n,) correct, and by how much log-length was more than
    expected, NaN = not known.
    """
    near = np.exp(_SHARPNESS * (vectors @ vectors.T - 1.0)).astype(np.float64)
    correct, surprise = outcomes
    return FeedbackCorrection(said, vectors, _weights(near, expected, correct), _length_weights(near, surprise))


def corrected(estimates: Estimates, pulls: Mapping[str, FeedbackCorrection], vector: Vector) -> Estimates:
    """Estimates of one query, every model's moved by what pulls at it."""
    moves = np.array([pulls[model].at(vector) if model in pulls else (0.0, 0.0) for model in estimates.models])
    odds, longer = moves[:, 0], np.exp(moves[:, 1])
    return replace(
        estimates,
        p_correct=_moved(estimates.p_correct, odds),
        p_low=_moved(estimates.p_low, odds),
        p_high=_moved(estimates.p_high, odds),
        tokens=estimates.tokens * longer,
        tokens_hi=estimates.tokens_hi * longer,
    )


def _moved(p: Floats, odds: Floats) -> Floats:
    """Probabilities with so much added to their log-odds; to the bit the same where that is nothing."""
    return np.where(odds == 0.0, p, sigmoid(logit(p) + odds))


def _weights(near: Floats, expected: Floats, correct: Floats) -> Floats:
    """K^-1 times the mode of the process, which is what outcomes are above expectation there.

    With a root of the covariance, K = L L', the process is L z under a standard Gaussian: a logistic fit of z.
    """
    identity = np.eye(len(near))
    root = np.asarray(np.linalg.cholesky(_VARIANCE * near + _JITTER * identity), np.float64)
    mode, _ = fit_logistic(root, correct, np.zeros(len(near)), identity, expected)
    return _VARIANCE * (correct - sigmoid(expected + root @ mode))


def _length_weights(near: Floats, surprise: Floats) -> Floats:
    """Likewise of what log-lengths were above expectation, NaN = not known; a Gaussian's mode is one step away."""
    weights, known = np.zeros(len(surprise)), np.isfinite(surprise)
    if known.any():
        covariance = _LENGTH_VARIANCE * near[np.ix_(known, known)] + _LENGTH_NOISE * np.eye(int(known.sum()))
        weights[known] = _LENGTH_VARIANCE * np.linalg.solve(covariance, surprise[known])
    return weights


def _joined(slice_: Slice, pull: FeedbackCorrection, vector: Vector) -> Slice:
    """A slice with judged answers among its anchors, the nearest of all."""
    rows = list(zip(slice_.neighbors, slice_.outcomes, strict=True))
    for one, similarity in zip(pull.said, (pull.vectors @ vector).tolist(), strict=True):
        neighbor = Neighbor(f"{FEEDBACK}/{one.id}", similarity, FEEDBACK)
        rows.append((neighbor, Outcome(one.correct, None if np.isnan(one.tokens) else one.tokens)))
    rows = sorted(rows, key=lambda row: (-row[0].similarity, row[0].anchor))[:SLICE]
    return Slice(slice_.model, tuple(row[0] for row in rows), tuple(row[1] for row in rows))


def _unit(vectors: Floats) -> Vector:
    """Rows of norm 1: they were kept at half precision."""
    unit: Vector = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit
