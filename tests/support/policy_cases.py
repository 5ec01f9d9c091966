"""Pools and estimates for the policy's tests: by hand, drawn by hypothesis, or from an item response curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from scope_edge.encoding.token_count import PromptTokens
from scope_edge.policy.utility import PolicyPool, policy_pool
from scope_edge.types import Estimates, ModelCard

PROMPT = PromptTokens(100.0, 150.0)
NAN = float("nan")


def card(name: str, price: float | None, **facts: object) -> ModelCard:
    """A model that costs `price` dollars per million tokens in and out; on the device when it is free."""
    where = "device" if price == 0 else "cloud"
    return ModelCard(**{"id": name, "where": where, "usd_in": price, "usd_out": price, **facts})  # type: ignore[arg-type]


def estimates(
    cards: Sequence[ModelCard], p: Sequence[float], tokens: float | Sequence[float] = 100.0, **changes: object
) -> Estimates:
    """One row a card; a NaN in p makes the model unmeasured. tokens_hi is twice tokens."""
    p_correct = np.array(p, np.float64)
    median = np.where(np.isnan(p_correct), np.nan, np.broadcast_to(np.asarray(tokens, np.float64), len(cards)))
    values: dict[str, object] = {
        "models": tuple(one.id for one in cards),
        "p_correct": p_correct,
        "p_low": p_correct - 0.1,
        "p_high": p_correct + 0.1,
        "tokens": median,
        "tokens_hi": median * 2,
        "evidence": tuple("none" if np.isnan(value) else "strong" for value in p_correct),
        "source": ("prior",) * len(cards),
    }
    return Estimates(**{**values, **changes})  # type: ignore[arg-type]


def pool_like(cards: Sequence[ModelCard], *rows: Estimates, value_of_time: float = 0.0) -> PolicyPool:
    """A pool whose reference anchors are the given queries."""
    p, tokens = np.array([row.p_correct for row in rows]).T, np.array([row.tokens for row in rows]).T
    return policy_pool(cards, p, tokens, np.full(len(rows), PROMPT.expected), value_of_time=value_of_time)


@dataclass(frozen=True)
class World:
    """Queries of varying difficulty on models of varying ability, price and length, and what really happens.

    p, tokens, correct: shape (models, queries); prompt_tokens: (queries,).
    """

    cards: tuple[ModelCard, ...]
    p: np.ndarray
    tokens: np.ndarray
    correct: np.ndarray
    prompt_tokens: np.ndarray

    def pool(self, anchors: slice) -> PolicyPool:
        return policy_pool(self.cards, self.p[:, anchors], self.tokens[:, anchors], self.prompt_tokens[anchors])


def world(prices: Sequence[float | None], abilities: Sequence[float], queries: int = 3000, seed: int = 0) -> World:
    """Draw a world. p is calibrated: what really happens is drawn from it."""
    rng = np.random.default_rng(seed)
    shape = len(prices), queries
    hard = rng.normal(0.0, 1.2, queries)
    p = 1 / (1 + np.exp(1.2 * (hard - np.array(abilities)[:, None] + rng.normal(0.0, 0.3, shape))))
    tokens = np.exp(rng.normal(5.5, 0.5, (len(prices), 1)) + 0.35 * hard + rng.normal(0.0, 0.3, shape))
    prompt_tokens = 200 * np.exp(rng.normal(0.0, 0.7, queries))
    cards = tuple(card(f"m{index}", price) for index, price in enumerate(prices))
    return World(cards, p, tokens, (rng.random(shape) < p).astype(float), prompt_tokens)


PRICES = st.sampled_from([0.0, 0.0, 0.1, 0.5, 3.0, 15.0, None])
CHANCES = st.one_of(st.floats(0.01, 0.99), st.sampled_from([0.5, 0.503, 0.505, 0.9, NAN]))
LENGTHS = st.one_of(st.floats(1.0, 4000.0), st.sampled_from([100.0, 500.0]))


@st.composite
def cases(draw: st.DrawFn, *, most: int = 6) -> tuple[tuple[ModelCard, ...], PolicyPool, Estimates]:
    """A small pool with its reference, and one query."""
    count = draw(st.integers(1, most))
    wheres = st.sampled_from(["device", "cloud"])
    cards = tuple(card(f"m{index}", draw(PRICES), where=draw(wheres)) for index in range(count))

    def query() -> Estimates:
        return estimates(cards, [draw(CHANCES) for _ in cards], [draw(LENGTHS) for _ in cards])

    anchors = [query() for _ in range(draw(st.integers(1, 5)))]
    return cards, pool_like(cards, *anchors), query()
