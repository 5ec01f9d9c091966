"""The joint fit: the difficulty of queries and the ability of models, from all outcomes at once (two-parameter IRT).

    logit P(model m right on query i) = a_i (theta_m + delta_{m,domain} - b_i)

b has a mean per set and a Gaussian prior around it, or around what an expert expects of the query; log a, theta and delta have
Gaussian priors: the mode of the posterior, by L-BFGS. theta's prior has a mean for each set, of the models that were measured
there above all: today's models and those of three years ago are not drawn from one population, and sets that few models share
would be pulled together. A model measured on several sets has one theta, which ties the sets' scales; delta lets it be better
at the sets of one domain. Outcomes may be fractional, such as a share of a judge's scale, whose level is the set's mean of b;
missing ones are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.types import Floats

    Ints = NDArray[np.int64]

SD_B, SD_LOG_A, SD_DELTA, SD_THETA, SD_COHORT = 2.0, 0.3, 0.4, 1.5, 2.0
# Of what an expert expects: difficulty, and log-length.
SD_EXPECTED, SD_EXPECTED_LENGTH = 1.0, 0.5
# Log-lengths: of a model's level, its level in a domain, a query in its set, and the rest.
_SD_MODEL, _SD_DOMAIN, _SD_QUERY, _SD_REST = 0.6, 0.5, 1.2, 0.5
# An answer this near to a model's longest ones in a set was cut off there, if at least so large a share of them is.
_NEAR_CUT, _SHARE_CUT = 0.97, 0.04


@dataclass(frozen=True, slots=True, eq=False)
class JointFit:
    """theta: (models,), delta: (models, domains); b, a: (queries,); error: (queries,) standard error of b, infinite where
    neither an outcome nor an expert tells it.
    """

    theta: Floats
    delta: Floats
    b: Floats
    a: Floats
    error: Floats


def fit_joint(
    correct: Floats, sets: Ints, domains: Ints, expected: Floats | None = None, iterations: int = 400
) -> JointFit:
    """Fit outcomes of shape (models, queries), NaN = missing.

    sets, domains: (queries,) number each query's set and domain from 0. expected: (queries,) difficulty that an expert
    expects, NaN = unset.
    """
    from scipy.optimize import minimize  # an extra: `eval` says so before it fits

    models, queries = correct.shape
    count, areas = int(sets.max()) + 1, int(domains.max()) + 1
    m, q = np.nonzero(np.isfinite(correct))
    y, md = correct[m, q], m * areas + domains[q]
    cuts = np.cumsum([models, models * areas, count, queries, queries])
    home = _home(correct, sets, count)
    told = np.zeros(queries, bool) if expected is None else np.isfinite(expected)
    guess = np.where(told, expected, 0.0) if expected is not None else np.zeros(queries)
    # Queries that an expert judged are not tied to the mean of their set.
    free, precision = np.where(told, 0.0, 1.0), np.where(told, 1 / SD_EXPECTED**2, 1 / SD_B**2)

    def loss(v: Floats) -> tuple[float, Floats]:
        apart, delta, mu, b, log_a, cohort = np.split(v, cuts)
        theta, a = cohort[home] + apart, np.exp(log_a)[q]
        away = (np.repeat(theta, areas) + delta)[md] - (free * mu[sets] + guess + b)[q]
        z = a * away
        e = np.exp(-np.abs(z))
        value = (np.maximum(z, 0) + np.log1p(e) - y * z).sum()
        value += precision @ b**2 / 2 + (log_a @ log_a) / SD_LOG_A**2 / 2
        value += (delta @ delta) / SD_DELTA**2 / 2 + (apart @ apart) / SD_THETA**2 / 2
        value += (cohort @ cohort) / SD_COHORT**2 / 2
        error = np.where(z >= 0, 1, e) / (1 + e) - y
        g_able, g_b = np.bincount(md, error * a, models * areas), np.bincount(q, error * a, queries)
        g_theta = g_able.reshape(models, areas).sum(1)
        gradient = (
            g_theta + apart / SD_THETA**2,
            g_able + delta / SD_DELTA**2,
            -np.bincount(sets, g_b * free, count),
            -g_b + b * precision,
            np.bincount(q, error * z, queries) + log_a / SD_LOG_A**2,
            cohort / SD_COHORT**2 + np.bincount(home, g_theta, count),
        )
        return float(value), np.concatenate(gradient)

    start = np.zeros(cuts[-1] + count)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "maxcor": 20}).x
    apart, delta, mu, b, log_a, cohort = np.split(found, cuts)
    theta = cohort[home] + apart
    a, b = np.exp(log_a), free * mu[sets] + guess + b
    p = 1 / (1 + np.exp(-a[q] * ((np.repeat(theta, areas) + delta)[md] - b[q])))
    information = np.bincount(q, p * (1 - p) * a[q] ** 2, queries) + precision
    known = told | (np.bincount(q, minlength=queries) > 0)
    return JointFit(theta, delta.reshape(models, areas), b, a, np.where(known, 1 / np.sqrt(information), np.inf))


def _home(correct: Floats, sets: Ints, count: int) -> Ints:
    """Return the set on which each model has most outcomes, (models,)."""
    known = np.isfinite(correct)
    return np.asarray(np.argmax([known[:, sets == s].sum(axis=1) for s in range(count)], axis=0))


@dataclass(frozen=True, slots=True, eq=False)
class LengthFit:
    """log_length: (queries,) of a typical model's answer, cl100k; 0 without any tokens. count: (queries,) answers it rests on."""

    log_length: Floats
    count: Floats


def fit_lengths(
    tokens: Floats, sets: Ints, domains: Ints, expected: Floats | None = None, rounds: int = 30
) -> LengthFit:
    """Fit the log-length of a typical model's answer to each query from tokens (models, queries), NaN = missing.

    A mixed model: the query, shrunk towards its set's mean; the model; and the model in the query's domain; by alternating
    least squares. An answer that was cut off counts as the length that it is expected to have had (Tobin 1958). expected:
    (queries,) log-length that an expert expects, NaN = unset; it counts like one answer.
    """
    models, queries = tokens.shape
    count, areas = int(sets.max()) + 1, int(domains.max()) + 1
    m, q = np.nonzero(tokens > 0)
    told = np.zeros(queries, bool) if expected is None else np.isfinite(expected)
    answers = np.bincount(q, minlength=queries).astype(np.float64) + told
    if not len(q):
        return LengthFit(np.where(told, expected, 0.0) if expected is not None else np.zeros(queries), answers)
    y, md, noise = np.log(tokens[m, q]), m * areas + domains[q], _SD_REST**2
    cut = _cut_off(y, m * count + sets[q])
    n_m, n_md, n_q = (
        np.bincount(one, minlength=size) for one, size in ((m, models), (md, models * areas), (q, queries))
    )
    mean = np.bincount(sets[q], y, count) / np.maximum(np.bincount(sets[q], minlength=count), 1)
    of_model, of_domain, length, seen = np.zeros(models), np.zeros(models * areas), mean[sets].copy(), y.copy()
    for _ in range(rounds):
        of_model = np.bincount(m, seen - length[q] - of_domain[md], models) / (n_m + noise / _SD_MODEL**2)
        of_model -= (of_model * n_m).sum() / n_m.sum()
        of_domain = np.bincount(md, seen - length[q] - of_model[m], models * areas) / (n_md + noise / _SD_DOMAIN**2)
        level = of_model[m] + of_domain[md]
        sums = np.bincount(q, seen - level, queries) + mean[sets] * noise / _SD_QUERY**2
        length = sums / (n_q + noise / _SD_QUERY**2)
        answered = np.bincount(sets, n_q > 0, count)
        mean = np.where(answered > 0, np.bincount(sets, length * (n_q > 0), count) / np.maximum(answered, 1), mean)
        seen = np.where(cut, _longer_than(y, length[q] + level), y)
    if expected is not None:
        pull, rest = noise / SD_EXPECTED_LENGTH**2, n_q + noise / _SD_QUERY**2 * (n_q > 0)
        length = np.where(told, (length * rest + np.nan_to_num(expected) * pull) / (rest + pull), length)
    return LengthFit(length, answers)


def _cut_off(y: Floats, group: Ints) -> NDArray[np.bool_]:
    """Return which log-lengths are of answers that were cut off, given the model and set of each by number."""
    longest = np.full(int(group.max()) + 1, -np.inf)
    np.maximum.at(longest, group, y)
    near = y >= longest[group] + np.log(_NEAR_CUT)
    size = np.bincount(group)
    often = np.bincount(group, near, len(size)) >= np.maximum(_SHARE_CUT * size, 3)
    return np.asarray(near & often[group])


def _longer_than(y: Floats, expected: Floats) -> Floats:
    """Return the mean of a Gaussian around `expected` above y, by the inverse Mills ratio."""
    from scipy.special import log_ndtr

    z = (y - expected) / _SD_REST
    return np.asarray(expected + _SD_REST * np.exp(-(z**2) / 2 - np.log(2 * np.pi) / 2 - log_ndtr(-z)))
