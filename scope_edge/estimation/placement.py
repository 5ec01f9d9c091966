"""Questions put on the map: an anchor set whose difficulty no model has told yet, only the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.encoding.encoder import Encoder
from scope_edge.encoding.token_count import estimate_prompt_tokens
from scope_edge.estimation.ability import softening
from scope_edge.estimation.anchors import AnchorSet
from scope_edge.estimation.irt import load_irt_model
from scope_edge.types import Query

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class PlacedQuestion:
    """A question to be placed: its id and category within the set, and its text."""

    id: str
    category: str
    text: str


def place(
    name: str,
    questions: Sequence[PlacedQuestion],
    progress: Callable[[str, int, int], None] | None = None,
    *,
    own: bool,
) -> AnchorSet:
    """The questions as an anchor set called `name`, in their order, with the map's word for their difficulty.

    Raises AssetError when the encoder or the map is missing or damaged.
    """
    basis = load_irt_model()
    encoder = Encoder.load()
    vectors, places = [], []
    for done, encoded in enumerate(encoder.encode_many(Query(one.text) for one in questions), 1):
        vectors.append(encoded.vector)
        places.append(basis.map.place(encoded))
        if progress is not None:
            progress("placing anchors", done, len(questions))
    domains = np.array([place.domains for place in places])
    difficulty = np.array([place.difficulty for place in places])
    population = basis.population
    slope = domains @ population.discrimination
    # The map does not know an anchor's own difficulty exactly: what it misses is averaged over, until models are measured.
    factor = softening(slope, domains @ population.unexplained)
    return AnchorSet(
        name=name,
        ids=tuple(f"{name}/{one.id}" for one in questions),
        categories=tuple(f"{name}/{one.category}" for one in questions),
        vectors=np.array(vectors),
        prompt_tokens=np.array([estimate_prompt_tokens(one.text).expected for one in questions]),
        difficulty=difficulty,
        discrimination=slope * factor,
        log_length=np.array([place.log_length for place in places]),
        map_difficulty=difficulty,
        domains=domains,
        traits=np.array([place.traits for place in places]) * factor[:, None],
        linked=False,
        texts=tuple(one.text for one in questions),
        own=own,
    )
