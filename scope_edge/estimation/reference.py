"""The reference: a fair sample of the bank's queries by their positions on the map, on which pools and models are compared.

Core anchors cannot serve: they are chosen because they tell models apart, so they are not a fair sample of queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.estimation.ability import query_row, query_variance, spread_along
from scope_edge.estimation.difficulty import MapPositions
from scope_edge.estimation.newton import sigmoid
from scope_edge.estimation.tasks import TASKS
from scope_edge.storage.packs import reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.ability import Population
    from scope_edge.types import Floats

# Queries in it: enough that shares are known to a point, few enough to be weighed in milliseconds at every start.
SIZE = 2_000
# Of one set, where every set has to be known as well as the others.
OF_A_SET = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """q queries of the bank.

    Attributes:
        places: on the map, with each query's family left out.
        difficulty, discrimination: (q,) each one's own, from every model's outcomes on it, or the map's where it was never graded.
        sets: (q,) the domain it is from.
        prompt_tokens: (q,), cl100k.
    """

    places: MapPositions
    difficulty: Floats
    discrimination: Floats
    sets: NDArray[np.int64]
    prompt_tokens: Floats

    def __len__(self) -> int:
        return len(self.places)


_PLACES = ("difficulty", "log_length", "domains", "traits", "level_variance", "foreign", "explained", "unknowable")
_OWN = ("difficulty", "discrimination")


def reference_body(reference: Reference) -> dict[str, Any]:
    """Return the reference as (part of) the body of a pack; at half precision, which moves no share by more than 0.001."""
    columns = {name: getattr(reference.places, name).astype(np.float16) for name in _PLACES}
    own = {f"own_{name}": getattr(reference, name).astype(np.float16) for name in _OWN}
    tokens = reference.prompt_tokens.astype(np.float32)
    return {**columns, **own, "sets": reference.sets.astype(np.uint8), "prompt_tokens": tokens}


def reference_from_body(body: Mapping[str, Any], where: str) -> Reference:
    """Read the reference from a pack's body. Raises PackError when a column is missing or of another length."""
    with reading(where, "reference"):
        columns = {name: body[name].astype(np.float64) for name in _PLACES}
        own = {name: body[f"own_{name}"].astype(np.float64) for name in _OWN}
        sets, prompt_tokens = body["sets"].astype(np.int64), body["prompt_tokens"].astype(np.float64)
        lengths = {len(column) for column in (*columns.values(), *own.values(), prompt_tokens)}
        if lengths != {len(sets)} or sets.max(initial=0) >= columns["domains"].shape[1]:
            raise ValueError("its columns do not fit together")
        places = MapPositions(**columns, tasks=np.zeros((len(sets), len(TASKS))))
        return Reference(places, **own, sets=sets, prompt_tokens=prompt_tokens)


# Linking: each model is made as accurate over the reference by the map's difficulties as by the queries' own.
#
# Ability is learned from anchors whose own difficulties are known. On the map a query's difficulty is blurred, in some
# regions by more than a Gaussian allows for (questions that hardly any model gets right, or nearly all do): read there, able
# models would seem too good and weak ones too bad. So each model gets a shift per domain, in log-odds, with which its mean
# P(correct) over the reference's queries of that domain agrees with their own difficulties.

_PROBIT = np.pi / 8
_STEPS = 12
_SETTLED = 1e-4
# No shift is larger: beyond it a mean share is as good as 0 or 1.
_MOST = 6.0
# Of a model's own differences between domains.
_KEPT_APART = 0.25


def linking_constants(reference: Reference, population: Population, mean: Floats, covariance: Floats) -> Floats:
    """Return the shifts (n, domains) to add to each model's log-odds; 0 for a domain without queries in the reference.

    What sets a domain apart is taken from the population's average model, and a quarter from the model itself: the rest of
    its own differences is mostly noise, which would reorder queries that are like several domains. mean: (n, d), covariance:
    (n, d, d), of the models' abilities; NaN gives NaN.
    """
    average = population.mean[None], np.zeros_like(population.covariance)[None]
    both = (np.concatenate(pair) for pair in zip((mean, covariance), average, strict=True))
    shifts = _shifts(reference, population, *both)
    level = shifts.mean(axis=1, keepdims=True)
    apart = shifts - level
    return np.asarray(level + apart[-1] + _KEPT_APART * (apart - apart[-1]))[:-1]


def _shifts(reference: Reference, population: Population, mean: Floats, covariance: Floats) -> Floats:
    """Return the shifts with which each model is as accurate over each domain as by the queries' own difficulties."""
    own, own_offsets = own_rows(reference)
    # Log-odds whose probability is about the mean over a Gaussian of this variance (MacKay 1992).
    true = (mean @ own.T + own_offsets) / np.sqrt(1 + _PROBIT * spread_along(own, covariance))
    places = reference.places
    rows, offsets = query_row(places.difficulty, places.domains, places.traits, population)
    blur = spread_along(rows, covariance) + query_variance(rows, places, population)
    scale = 1 / np.sqrt(1 + _PROBIT * blur)
    sets = np.eye(places.domains.shape[1])[reference.sets]
    # (q, sets): weighs a sum over queries into means over those of each set.
    share = sets / np.maximum(sets.sum(axis=0), 1.0)
    return _solved((mean @ rows.T + offsets) * scale, scale, places.domains, share, sigmoid(true) @ share)


def own_rows(reference: Reference) -> tuple[Floats, Floats]:
    """Return (h, offset), (q, d) and (q,), with logit = h . g + offset by each reference query's own difficulty."""
    a = reference.discrimination[:, None]
    domains = np.eye(reference.places.domains.shape[1])[reference.sets]
    return np.hstack([a, a * domains, reference.places.traits]), -a[:, 0] * reference.difficulty


def _solved(logits: Floats, scale: Floats, domains: Floats, share: Floats, wanted: Floats) -> Floats:
    """Solve for the shifts (n, sets) that make every set's mean of sigmoid(logits + scale shift) `wanted`: bounded Newton.

    logits, scale: (n, q). domains: (q, sets), how a query's shift is mixed. share: (q, sets). wanted: (n, sets).
    """
    shift = np.zeros_like(wanted)
    absent = np.diag((share.sum(axis=0) == 0).astype(np.float64))
    for _ in range(_STEPS):
        p = sigmoid(logits + scale * (shift @ domains.T))
        slope = p * (1 - p) * scale
        # (n, sets, sets): how each set's mean moves with each shift.
        moves = np.einsum("nq,qs,qt->nst", slope, share, domains, optimize=True) + absent + 1e-6 * np.eye(len(absent))
        step = np.linalg.solve(moves, (wanted - p @ share)[..., None])[..., 0]
        shift = np.clip(shift + np.clip(step, -1.0, 1.0), -_MOST, _MOST)
        if not np.nanmax(np.abs(step), initial=0.0) > _SETTLED:
            break
    return shift
