"""""" """"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scope_edge.cli import format

if TYPE_CHECKING:
    from scope_edge.types import ModelCard


def price(value: float | None) -> str:
    """US dollars per million tokens, as the card writes them."""
    return format.UNKNOWN if value is None else f"{value:.10g}"


def prices(card: ModelCard) -> str:
    """What a card says of prices, in words."""
    if card.usd_in is None:
        return "unknown (never taken as free)"
    return f"${price(card.usd_in)} in, ${price(card.usd_out)} out, per million tokens"


def called(card: ModelCard) -> str:
    """How a model is called; nothing when its card does not say."""
    return card.gguf or ("" if card.endpoint is None else f"{card.served_as or card.id} at {card.endpoint}")
