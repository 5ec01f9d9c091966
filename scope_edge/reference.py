"""The reference: a fair sample of the bank's queries, by their places on the map. What a pool is expected to do, it does here.

Core anchors will not do for that: they are chosen because they tell models apart, so they are no fair sample of queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.difficulty import Places
from scope_edge.errors import PackError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.records import Floats

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

    places: Places
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
        places = Places(**{name: body[name].astype(np.float64) for name in _PLACES})
        own = {name: body[f"own_{name}"].astype(np.float64) for name in _OWN}
        sets, prompt_tokens = body["sets"].astype(np.int64), body["prompt_tokens"].astype(np.float64)
    except (KeyError, AttributeError, ValueError) as error:
        raise PackError(f"{where}: not a usable reference ({error!r}); reinstall scope-edge") from error
    columns = (places.difficulty, places.log_length, places.domains, places.traits, sets, prompt_tokens, *own.values())
    if len({len(column) for column in columns}) != 1 or sets.max(initial=0) >= places.domains.shape[1]:
        raise PackError(f"{where}: the reference's columns do not fit together; reinstall scope-edge")
    return Reference(places, **own, sets=sets, prompt_tokens=prompt_tokens)
