"""Prices and places of models from a file, laid over the cards for one evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scope_edge import assets
from scope_edge.config import read_file
from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


def with_prices(own: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, dict[str, Any]]:
    """Lay the cards of a TOML file over the user's own: `[models."id"]` with `usd_in` and `usd_out`, as in the settings.

    A model without a card runs in the cloud unless `where` says otherwise. Raises UsageError, ConfigError.
    """
    from scope_edge.catalog import load_catalog

    if not path.is_file():
        raise UsageError(f"{path}: no such file of prices")
    table = read_file(path).get("models", {})
    if not isinstance(table, dict) or not table or not all(isinstance(card, dict) for card in table.values()):
        raise UsageError(
            f'{path}: no prices there; write [models."the-id"] with usd_in and usd_out, per million tokens'
        )
    known = load_catalog(own, file=assets.user_config_file()).by_id
    cards: dict[str, dict[str, Any]] = {id: dict(card) for id, card in own.items()}
    for id, card in table.items():
        cards[id] = {**({} if id in known else {"where": "cloud"}), **cards.get(id, {}), **card}
    return cards
