"""Prices and places of models from a file, laid over the cards for one evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scope_edge.config import read_file
from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from scope_edge.config import Settings


def with_prices(settings: Settings, path: Path) -> Settings:
    """The settings with the cards of a TOML file laid over: `[models."id"]` with `usd_in` and `usd_out`, as in the settings.

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
    known = load_catalog(settings).by_id
    cards: dict[str, dict[str, Any]] = {id: dict(card) for id, card in settings.models.items()}
    for id, card in table.items():
        cards[id] = {**({} if id in known else {"where": "cloud"}), **cards.get(id, {}), **card}
    return replace(settings, models=cards, file=path)
