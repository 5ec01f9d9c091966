"""`scope-edge pool`: the lists of models that a decision chooses from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from scope_edge.cli.format import facts, plural
from scope_edge.cli.options import complete_model, complete_pool, json_option
from scope_edge.cli.output import out, out_json
from scope_edge.cli.run import complain

if TYPE_CHECKING:
    from scope_edge.catalog.cards import Catalog

_EPILOG = """\b
Examples:
  scope-edge pool list
  scope-edge pool add llama-3.1-70b-instruct --pool work
  scope-edge pool use work
  scope-edge pool remove llama-3.1-70b-instruct --pool work
"""


@click.group("pool", epilog=_EPILOG)
def command() -> None:
    """Show and change the pools, from which decisions choose a model.

    Changes are written to your settings file. The first change of a bundled pool copies it there.
    """


@command.command("list")
@json_option
def list_pools(as_json: bool) -> None:
    """List the pools and their models; the active one is marked."""
    from scope_edge.factory import open_catalog
    from scope_edge.settings.config import load_settings

    catalog = open_catalog(load_settings())
    if as_json:
        pools = [
            {"name": name, "active": name == catalog.active_pool, "own": name in catalog.own_pools, "models": list(ids)}
            for name, ids in catalog.pools.items()
        ]
        out_json({"active": catalog.active_pool, "pools": pools})
        return
    for name, ids in catalog.pools.items():
        marks = [plural(len(ids), "model")]
        marks += ["active"] * (name == catalog.active_pool) + ["yours"] * (name in catalog.own_pools)
        out(
            "\n".join(
                [
                    click.style(name, bold=True) + f"  ({', '.join(marks)})",
                    *facts({id: _remark(catalog, id) for id in ids}),
                ]
            )
        )
    if catalog.active_pool not in catalog.pools:
        out(f"active: {catalog.active_pool}")


@command.command("use")
@click.argument("name", shell_complete=complete_pool)
def use(name: str) -> None:
    """Make a pool the active one."""
    from scope_edge.catalog.edit import use_pool
    from scope_edge.settings.config import load_settings

    ids = use_pool(name)
    out(f"pool {name} is active: {', '.join(ids)}")
    settings = load_settings()
    origin = settings.origin.get("pool", "")
    if origin and origin != str(settings.file):
        complain(f"{origin} sets a pool as well and wins over `pool` in the settings file", 0)


@command.command("add")
@click.argument("model", shell_complete=complete_model)
@click.option("--pool", metavar="NAME", shell_complete=complete_pool, help="Default: the active pool. Made if missing.")
def add(model: str, pool: str | None) -> None:
    """Add a model to the end of a pool."""
    from scope_edge.catalog.edit import add_to_pool

    name = pool if pool is not None else active_pool()
    _print_pool(name, add_to_pool(model, name))


@command.command("remove")
@click.argument("model", shell_complete=complete_model)
@click.option("--pool", metavar="NAME", shell_complete=complete_pool, help="Default: the active pool.")
def remove(model: str, pool: str | None) -> None:
    """Remove a model from a pool."""
    from scope_edge.catalog.edit import remove_from_pool

    name = pool if pool is not None else active_pool()
    _print_pool(name, remove_from_pool(model, name))


def _remark(catalog: Catalog, id: str) -> str:
    from scope_edge.catalog.cards import is_retired

    card = catalog.by_id.get(id)
    if card is None:
        return "no card"
    return f"{card.where}{', retired' if is_retired(card) else ''}"


def active_pool() -> str:
    """Return the active pool's name. Raises UsageError if the setting lists models instead."""
    from scope_edge.errors import UsageError
    from scope_edge.factory import open_catalog
    from scope_edge.settings.config import load_settings

    catalog = open_catalog(load_settings())
    if catalog.active_pool in catalog.pools:
        return catalog.active_pool
    raise UsageError(f"the active pool is a list of models ({catalog.active_pool}); name a pool with --pool NAME")


def _print_pool(name: str, ids: tuple[str, ...]) -> None:
    out(f"pool {name}: {', '.join(ids) or 'empty'}")
