"""The queries of a forecast: a random sample of the bank, or the user's own, which need no labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.encoding.token_count import CHAT_WRAPPING, query_prompt_tokens
from scope_edge.errors import UsageError
from scope_edge.estimation.difficulty import MapPositions
from scope_edge.estimation.irt import NEAR

if TYPE_CHECKING:
    from scope_edge.estimation.difficulty import DifficultyMap
    from scope_edge.estimation.reference import Reference
    from scope_edge.settings.schema import Provider
    from scope_edge.types import Floats, Query

# Enough for shares to half a point; more only take longer.
MOST_QUERIES = 5_000


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """q queries by their positions on the map.

    Attributes:
        prompt_tokens, prompt_tokens_hi: (q,) as prompts, cl100k: expected, and an upper bound.
        near: share of queries similar to a measured one; None for the bank's own.
        own: whether they are the user's. more: whether some queries were left unread.
    """

    positions: MapPositions
    prompt_tokens: Floats
    prompt_tokens_hi: Floats
    near: float | None
    own: bool
    more: bool = False

    def __len__(self) -> int:
        return len(self.positions)


def bank_traffic(reference: Reference) -> Traffic:
    """Return the bank's reference queries."""
    prompts = reference.prompt_tokens + CHAT_WRAPPING.expected
    return Traffic(reference.places, prompts, reference.prompt_tokens + CHAT_WRAPPING.high, near=None, own=False)


def own_traffic(
    queries: Iterable[Query],
    fitted: DifficultyMap,
    progress: Callable[[str, int, int], None] | None = None,
    *,
    provider: Provider = "cpu",
    threads: int | None = None,
) -> Traffic:
    """Encode the user's queries, the first `MOST_QUERIES` of them, and place them on the map.

    Raises UsageError without any query, AssetError if a bundled file is damaged, and the errors of `queries`.
    """
    from scope_edge.encoding.encoder import Encoder
    from scope_edge.estimation.anchors import load_bank

    encoder = Encoder.load(provider=provider, threads=threads)
    bank = load_bank("exact")
    rest = iter(queries)
    positions, prompts, similar = [], [], []
    for encoded in encoder.encode_many(islice(rest, MOST_QUERIES)):
        positions.append(fitted.place(encoded))
        tokens = query_prompt_tokens(encoded.query)
        prompts.append((tokens.expected, tokens.high))
        nearest = bank.nearest(encoded.vector, 1)
        similar.append(bool(nearest) and nearest[0].similarity >= NEAR)
        if progress is not None:
            progress("placing queries", len(positions), 0)
    if not positions:
        raise UsageError("no query was read; give a file with one query per line")
    columns = {
        name: np.array([getattr(place, name) for place in positions]) for name in MapPositions.__dataclass_fields__
    }
    expected, high = np.array(prompts, np.float64).T
    more = len(positions) == MOST_QUERIES and next(rest, None) is not None
    return Traffic(MapPositions(**columns), expected, high, near=float(np.mean(similar)), own=True, more=more)
