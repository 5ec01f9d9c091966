"""The reference: a fair sample of the bank's queries, by their places on the map. What a pool is expected to do, it does here.

Core anchors will not do for that: they are chosen because they tell models apart, so they are no fair sample of queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.errors import PackError
from scope_edge.estimation.ability import query_row, query_variance, spread_along
from scope_edge.estimation.difficulty import MapPositions
from scope_edge.estimation.newton import sigmoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.ability import Population
    from scope_edge.types import Floats

# Queries in it: enough that shares are known to a point, few enough to be weighed in milliseconds at every start.
SIZE = 2_000
# Of one set, where every set is to be known as well as the others.
OF_A_SET = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """q queries of the bank.

    Attributes:
        places: as the map has them, with each query's family left out.
        difficulty, discrimination: (q,) each one's own, from every model's outcomes on it. sets: (q,) which set it is of.
        prompt_tokens: (q,), cl100k.
    """

    places: MapPositions
    difficulty: Floats
    discrimination: Floats
    sets: NDArray[np.int64]
    prompt_tokens: Floats

    def __len__(self) -> int:
        return len(self.places)


_PLACES = ("difficulty", "log_length", "domains", "traits")
_OWN = ("difficulty", "discrimination")


def reference_body(reference: Reference) -> dict[str, Any]:
    """The reference as (part of) the body of a pack; at half precision, which moves no share by more than 0.001."""
    columns = {name: getattr(reference.places, name).astype(np.float16) for name in _PLACES}
    own = {f"own_{name}": getattr(reference, name).astype(np.float16) for name in _OWN}
    return {
        **columns,
        **own,
        "sets": reference.sets.astype(np.uint8),
        "prompt_tokens": reference.prompt_tokens.astype(np.float32),
    }


def reference_from_body(body: Mapping[str, Any], where: str) -> Reference:
    """The reference out of a pack's body. Raises PackError when a column is missing or of another length."""
    try:
        places = MapPositions(**{name: body[name].astype(np.float64) for name in _PLACES})
        own = {name: body[f"own_{name}"].astype(np.float64) for name in _OWN}
        sets, prompt_tokens = body["sets"].astype(np.int64), body["prompt_tokens"].astype(np.float64)
    except (KeyError, AttributeError, ValueError) as error:
        raise PackError(f"{where}: not a usable reference ({error!r}); reinstall scope-edge") from error
    columns = (places.difficulty, places.log_length, places.domains, places.traits, sets, prompt_tokens, *own.values())
    if len({len(column) for column in columns}) != 1 or sets.max(initial=0) >= places.domains.shape[1]:
        raise PackError(f"{where}: the reference's columns do not fit together; reinstall scope-edge")
    return Reference(places, **own, sets=sets, prompt_tokens=prompt_tokens)


# A model carried from the anchors' own difficulties to the map's: as accurate over the reference by the one as by the other.
#
# Ability is told by anchors whose own difficulties are known. On the map a query's difficulty is blurred, by more at some
# places than a Gaussian allows for (questions that hardly anybody gets right, or nearly everybody): read there, able models
# would seem too good and weak ones too bad. So each model gets a shift a set, in log-odds, with which its mean P(correct)
# over the reference's queries of that set is what their own difficulties say.

_PROBIT = np.pi / 8
_STEPS = 12
_SETTLED = 1e-4
# No shift is larger: beyond it a mean share is as good as 0 or 1.
_MOST = 6.0


def linking_constants(reference: Reference, population: Population, mean: Floats, covariance: Floats) -> Floats:
    """(n, sets) what is added to each model's log-odds; 0 for a set the reference has nothing of.

    mean: (n, d), covariance: (n, d, d), of the models' abilities; NaN gives NaN.
    """
    own, own_offsets = own_rows(reference)
    true = _softened(mean @ own.T + own_offsets, spread_along(own, covariance))
    places = reference.places
    rows, offsets = query_row(places.difficulty, places.domains, places.traits, population)
    blur = spread_along(rows, covariance) + query_variance(rows, places.domains, population)
    scale = 1 / np.sqrt(1 + _PROBIT * blur)
    sets = np.eye(places.domains.shape[1])[reference.sets]
    # (q, sets): weighs a sum over queries into means over those of each set.
    share = sets / np.maximum(sets.sum(axis=0), 1.0)
    return _solved((mean @ rows.T + offsets) * scale, scale, places.domains, share, sigmoid(true) @ share)


def own_rows(reference: Reference) -> tuple[Floats, Floats]:
    """(h, offset), (q, d) and (q,), with logit = h . g + offset by each reference query's own difficulty."""
    a = reference.discrimination[:, None]
    domains = np.eye(reference.places.domains.shape[1])[reference.sets]
    return np.hstack([a, a * domains, reference.places.traits]), -a[:, 0] * reference.difficulty


def _softened(logits: Floats, variance: Floats) -> Floats:
    """Log-odds whose probability is about the mean over a Gaussian of this variance (MacKay 1992)."""
    return logits / np.sqrt(1 + _PROBIT * variance)


def _solved(logits: Floats, scale: Floats, domains: Floats, share: Floats, wanted: Floats) -> Floats:
    """(n, sets) the shifts with which every set's mean of sigmoid(logits + scale shift) is `wanted`: Newton, kept in bounds.

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
