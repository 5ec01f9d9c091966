"""Estimates corrected near queries whose answers the user judged, and nowhere else.

Fitting abilities to feedback would learn more from fair samples than this does; but users report above all the answers
that went wrong, and a model would sink on all queries for it. So every judged answer acts on its surroundings only: a
model's log-odds of being right are the estimate's plus a Gaussian process over embeddings, with covariance
exp(8 (cos - 1)), given the outcomes (Rasmussen and Williams 2006, ch. 3: the mode of its posterior). Lengths likewise, in
their logs. build_scripts/measure_feedback.py compares it with abilities fitted to the same outcomes: docs/journal.md has
the figures.
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

# How fast similarity fades: at cosine 0.9 half of it is left, at 0.7 a tenth, at 0.4 a hundredth.
_SHARPNESS = 8.0
# Of the process, in log-odds and in log-length; and of one observed log-length around its expectation.
_VARIANCE, _LENGTH_VARIANCE, _LENGTH_NOISE = 1.0, 0.25, 0.5
# Judged answers used per model, the latest: their covariance is a matrix.
_MOST = 500
# Two equal queries would leave their covariance without a root.
_JITTER = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class FeedbackCorrection:
    """The correction of one model's estimates by its judged answers.

    Attributes:
        said: the answers. vectors: (n, d) of their queries, unit.
        weights, length_weights: (n,) what each adds to log-odds and log-length, times its similarity.
    """

    said: tuple[FeedbackRecord, ...]
    vectors: Vector
    weights: Floats
    length_weights: Floats

    def at(self, vector: Vector) -> tuple[float, float]:
        """Return what to add to log-odds and log-length at a unit vector."""
        near = np.exp(_SHARPNESS * (self.vectors @ vector - 1.0))
        return float(near @ self.weights), float(near @ self.length_weights)


class FeedbackCorrectedEstimator:
    """The estimates of a pool, corrected by feedback. Feedback that comes later counts from the next query on."""

    def __init__(self, prior: IrtEstimator, fitted: DifficultyMap, pool: Sequence[ModelCard]) -> None:
        self._prior, self._map = prior, fitted
        self._factors = {card.id: card.token_factor for card in pool}
        self._known: tuple[tuple[int, int] | None, Mapping[str, FeedbackCorrection]] = (None, {})

    def estimate(self, encoded: EncodedQuery, similarity: float) -> tuple[Estimates, EstimatorReport]:
        """Estimate as `IrtEstimator.estimate` does, and correct."""
        estimates, report = self._prior.estimate(encoded, similarity)
        corrections = self._corrections()
        return (corrected(estimates, corrections, encoded.vector) if corrections else estimates), report

    def slices(self, encoded: EncodedQuery) -> tuple[Slice, ...]:
        """Return the slices of `IrtEstimator.slices`, with the judged answers among them."""
        found = {one.model: one for one in self._prior.slices(encoded)}
        for model, correction in self._corrections().items():
            found[model] = _joined(found.get(model, Slice(model, (), ())), correction, encoded.vector)
        return tuple(found[model] for model in self._prior.models if model in found)

    def _corrections(self) -> Mapping[str, FeedbackCorrection]:
        """By model of the pool; computed anew when the stored feedback has changed."""
        now = stamp()
        if now != self._known[0]:
            self._known = now, _load_corrections(self._prior, self._map, self._factors)
        return self._known[1]


def _load_corrections(
    prior: IrtEstimator, fitted: DifficultyMap, factors: Mapping[str, float]
) -> Mapping[str, FeedbackCorrection]:
    """By model, from the stored feedback whose vectors are all known. factors: own tokens per cl100k token."""
    found, said = {}, [one for one in load_feedback().said if one.whole]
    for column, model in enumerate(prior.models):
        mine = tuple(one for one in said if one.model == model)[-_MOST:]
        if not mine:
            continue
        halves = np.array([one.vector for one in mine])
        # Rows of norm 1: they were stored at half precision.
        vectors = (halves / np.linalg.norm(halves, axis=1, keepdims=True)).astype(np.float32)
        states, tongues, features = (
            np.array([getattr(one, name) for one in mine]) for name in ("state", "multilingual", "features")
        )
        places = fitted.places_of(vectors, states.astype(np.float32), tongues.astype(np.float32), features)
        table = prior.table(places, np.ones(len(mine)))
        expected, tokens = table.p_correct[:, column], table.tokens[:, column]
        if np.isnan(expected).any():
            continue  # nothing is expected of a model without a fingerprint, so nothing can be corrected
        correct, lengths = (np.array([getattr(one, name) for one in mine]) for name in ("correct", "tokens"))
        surprise = np.log(lengths * factors[model]) - np.log(tokens)
        found[model] = fit_correction(mine, vectors, logit(expected), (correct, surprise))
    return found


def fit_correction(
    said: tuple[FeedbackRecord, ...], vectors: Vector, expected: Floats, outcomes: tuple[Floats, Floats]
) -> FeedbackCorrection:
    """Fit the correction of one model to its judged answers.

    vectors: (n, d), unit. expected: (n,) log-odds of being right. outcomes: (n,) correct, and how much longer than expected
    the log-length was, NaN = unknown.
    """
    near = np.exp(_SHARPNESS * (vectors @ vectors.T - 1.0)).astype(np.float64)
    correct, surprise = outcomes
    return FeedbackCorrection(said, vectors, _weights(near, expected, correct), _length_weights(near, surprise))


def corrected(estimates: Estimates, corrections: Mapping[str, FeedbackCorrection], vector: Vector) -> Estimates:
    """Return the estimates of one query with every model's correction applied."""
    moves = np.array(
        [corrections[model].at(vector) if model in corrections else (0.0, 0.0) for model in estimates.models]
    )
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
    """Return probabilities with this much added to their log-odds; unchanged to the bit where it is 0."""
    return np.where(odds == 0.0, p, sigmoid(logit(p) + odds))


def _weights(near: Floats, expected: Floats, correct: Floats) -> Floats:
    """Return K^-1 times the mode of the process: the outcomes' excess over expectation there.

    With a root of the covariance, K = L L', the process is L z under a standard Gaussian: a logistic fit of z.
    """
    identity = np.eye(len(near))
    root = np.asarray(np.linalg.cholesky(_VARIANCE * near + _JITTER * identity), np.float64)
    mode, _ = fit_logistic(root, correct, np.zeros(len(near)), identity, expected)
    return _VARIANCE * (correct - sigmoid(expected + root @ mode))


def _length_weights(near: Floats, surprise: Floats) -> Floats:
    """Return K^-1 times the mode of the process of log-lengths, given each one's surprise; NaN = unknown.

    The noise is Gaussian, so the mode has a closed form (Rasmussen and Williams 2006, 2.2).
    """
    weights, known = np.zeros(len(surprise)), np.isfinite(surprise)
    if known.any():
        covariance = _LENGTH_VARIANCE * near[np.ix_(known, known)] + _LENGTH_NOISE * np.eye(int(known.sum()))
        weights[known] = _LENGTH_VARIANCE * np.linalg.solve(covariance, surprise[known])
    return weights


def _joined(slice_: Slice, correction: FeedbackCorrection, vector: Vector) -> Slice:
    """Return a slice with judged answers among its anchors, the nearest of all."""
    rows = list(zip(slice_.neighbors, slice_.outcomes, strict=True))
    for one, similarity in zip(correction.said, (correction.vectors @ vector).tolist(), strict=True):
        neighbor = Neighbor(f"{FEEDBACK}/{one.id}", similarity, FEEDBACK)
        rows.append((neighbor, Outcome(one.correct, None if np.isnan(one.tokens) else one.tokens)))
    rows = sorted(rows, key=lambda row: (-row[0].similarity, row[0].anchor))[:SLICE]
    return Slice(slice_.model, tuple(row[0] for row in rows), tuple(row[1] for row in rows))
