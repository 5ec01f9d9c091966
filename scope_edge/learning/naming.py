"""What models are called across sets of labelled queries: a reviewed table of spellings, else the card that is spelled so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from scope_edge.importing.naming import Cards, check_model

if TYPE_CHECKING:
    from scope_edge.catalog import Catalog

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TABLE = Path(__file__).resolve().parent / "aliases.toml"


@cache
def _aliases() -> tuple[dict[str, str], frozenset[str]]:
    """("set:spelling" -> id, ids of base models), from aliases.toml."""
    table = tomllib.loads(_TABLE.read_text("utf-8"))["models"]
    spelled = {name: model for model, entry in table.items() for name in entry["names"]}
    return spelled, frozenset(model for model, entry in table.items() if entry.get("base"))


def is_base(model: str) -> bool:
    """Whether it is a base model: it teaches how hard queries are, and nobody would be sent there."""
    return model in _aliases()[1] or model.lower().endswith(("-base", "-base-3shot"))


def naming(set_name: str, catalog: Catalog) -> Callable[[str, str], str]:
    """(model as a set spells it, where) -> its id. Raises AssetError for a name that no card could have."""
    spelled, cards = _aliases()[0], Cards(catalog)

    def name_of(model: str, where: str) -> str:
        return check_model(spelled.get(f"{set_name}:{model}") or cards.known_as(model), where)

    return name_of
