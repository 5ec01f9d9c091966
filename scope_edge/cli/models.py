"""`scope-edge models`: the model cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli import words
from scope_edge.cli.imports import print_facts
from scope_edge.cli.models_add import add
from scope_edge.cli.models_compare import compare_models
from scope_edge.cli.models_remove import remove_model
from scope_edge.cli.models_test import test_model
from scope_edge.cli.options import complete_model
from scope_edge.cli.output import out, out_json
from scope_edge.cli.words import Column
from scope_edge.errors import AssetError

if TYPE_CHECKING:
    from scope_edge.catalog import Catalog
    from scope_edge.records import ModelCard

_EPILOG = """\b
Examples:
  scope-edge models list
  scope-edge models list --json
  scope-edge models show llama-3.1-70b-instruct
  scope-edge models add ./our-finetune-q4_k_m.gguf
  scope-edge models test our-finetune
  scope-edge models compare our-finetune gemma-2-2b-it
"""


@click.group("models", epilog=_EPILOG)
def command() -> None:
    """Show the models, add and remove yours, test and compare them."""


for _command in (add, remove_model, test_model, compare_models):
    command.add_command(_command)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def list_models(as_json: bool) -> None:
    """List every model card, yours included.

    Prices are US dollars per million tokens, prompt and completion. A price that is not known shows as "?". Retired
    models can no longer be called and stay for reference.
    """
    catalog, fingerprints = _loaded()
    if as_json:
        out_json([_body(card, catalog, fingerprints) for card in catalog.cards])
        return
    cards, width = catalog.cards, words.screen_width()
    for level in range(4):
        columns = _columns(cards, fingerprints, level)
        if words.table_width(columns) <= width:
            break
    head, *lines = words.table(columns)
    out(click.style(head, dim=True))
    for card, line in zip(cards, lines, strict=True):
        out(click.style(line, dim=True) if _retired(card) else line)


@command.command("show")
@click.argument("model", shell_complete=complete_model)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show_model(model: str, as_json: bool) -> None:
    """Show one model's card, with where its price comes from."""
    catalog, fingerprints = _loaded()
    body = _body(catalog.card(model), catalog, fingerprints)
    if as_json:
        out_json(body)
        return
    out(click.style(body["id"], bold=True))
    print_facts(_facts(catalog.card(model), body))


def _loaded() -> tuple[Catalog, Mapping[str, tuple[str, ...]] | None]:
    """The catalog, and the anchor sets each model was measured on; None when those files are damaged."""
    from scope_edge.assemble import open_catalog
    from scope_edge.config import load_settings
    from scope_edge.fingerprints import fingerprint_names

    catalog = open_catalog(load_settings())
    try:
        return catalog, fingerprint_names()
    except AssetError as error:
        from scope_edge.cli.run import complain

        complain(f"{error}; which models have a fingerprint is not known", 0)
        return catalog, None


def _retired(card: ModelCard) -> bool:
    from scope_edge.catalog import is_retired

    return is_retired(card)


def _body(card: ModelCard, catalog: Catalog, fingerprints: Mapping[str, tuple[str, ...]] | None) -> dict[str, Any]:
    return {
        **asdict(card),
        "retired": _retired(card),
        "own": card.id in catalog.own_cards,
        "fingerprints": None if fingerprints is None else list(fingerprints.get(card.id, ())),
        "pools": [name for name, ids in catalog.pools.items() if card.id in ids],
        "cannot_load": _cannot_load(card),
    }


def _cannot_load(card: ModelCard) -> str | None:
    if card.gguf is None:
        return None
    from scope_edge.managing.loadable import why_not

    return why_not(card)


def _columns(
    cards: tuple[ModelCard, ...], fingerprints: Mapping[str, tuple[str, ...]] | None, level: int
) -> list[Column]:
    """The list's columns; each level shows less than the one before."""
    known = fingerprints or {}
    sets = [known.get(card.id, ()) for card in cards]
    named = [", ".join(names) if level < 1 else str(len(names)) for names in sets]
    columns = [
        Column("model", [words.clipped(card.id, 40 if level < 3 else 28) for card in cards]),
        Column("where", [card.where for card in cards]),
        Column("$ in", [price(card.usd_in) for card in cards], right=True),
        Column("$ out", [price(card.usd_out) for card in cards], right=True),
        Column("as of", [card.price_as_of or "" for card in cards]),
        Column("status", [_status(card) for card in cards]),
    ]
    if fingerprints is not None and level < 2:
        columns.append(Column("fingerprints", [name if name != "0" else "" for name in named]))
    return columns


def price(value: float | None) -> str:
    """US dollars per million tokens, as the card writes them."""
    return words.UNKNOWN if value is None else f"{value:.10g}"


def prices(card: ModelCard) -> str:
    """What a card says of prices, in words."""
    if card.usd_in is None:
        return "unknown (never taken as free)"
    return f"${price(card.usd_in)} in, ${price(card.usd_out)} out, per million tokens"


def called(card: ModelCard) -> str:
    """How a model is called; nothing when its card does not say."""
    return card.gguf or ("" if card.endpoint is None else f"{card.served_as or card.id} at {card.endpoint}")


def _status(card: ModelCard) -> str:
    if _retired(card):
        return "retired"
    return f"until {card.retires}" if card.retires else card.status


def _facts(card: ModelCard, body: Mapping[str, Any]) -> dict[str, str]:
    """What the card says, for people; what is not known is said to be."""
    sets = body["fingerprints"]
    return {
        "name": card.name,
        "where": card.where,
        "called": called(card),
        "cannot load": body["cannot_load"] or "",
        "price": prices(card),
        "price as of": card.price_as_of or "",
        "price from": card.price_source or "",
        "token factor": f"{card.token_factor:g} own tokens per cl100k token",
        "supports": ", ".join(card.supports),
        "context": _known(card.context_tokens, "tokens"),
        "parameters": _known(card.parameters_b, "billion"),
        "size": _known(card.size_gb, "GB quantized") if card.where == "device" else "",
        "speed": _known(card.tokens_per_second, "tokens a second"),
        "prompt speed": _known(card.prompt_tokens_per_second, "tokens a second"),
        "load time": _known(card.load_seconds, "seconds") if card.where == "device" else "",
        "status": "retired" if body["retired"] else card.status,
        "retires": card.retires or "",
        "licence": card.licence or "",
        "fingerprints": words.UNKNOWN if sets is None else ", ".join(sets) or "none: nothing is predicted for it",
        "pools": ", ".join(body["pools"]),
        "card": "yours" if body["own"] else "bundled",
        "note": card.note,
    }


def _known(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:,.10g} {unit}"
