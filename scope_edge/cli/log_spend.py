"""`scope-edge log spend`: what cloud models were paid today and this month, and what is left of the caps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli import words
from scope_edge.cli.output import one_line, out, out_json
from scope_edge.cli.words import Column

if TYPE_CHECKING:
    from scope_edge.ledger import Spending

_EPILOG = """\b
Examples:
  scope-edge log spend
  SCOPE_EDGE_MAX_USD_DAY=0.50 scope-edge log spend --json
"""
_NAMES = {"day": "today", "month": "this month"}


@click.command("spend", epilog=_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/json.md).")
def spend(as_json: bool) -> None:
    """Show what was spent in the cloud today and this month, and what the caps leave.

    The caps are the settings max_usd_day and max_usd_month. Reserved is what calls under way may cost at most; a call whose
    process died before it was settled stays reserved until its day, or month, is over.
    """
    from scope_edge.assemble import open_ledger
    from scope_edge.config import load_settings

    with open_ledger(load_settings()) as ledger:
        spans = ledger.spending()
    if as_json:
        out_json({span.span: _body(span) for span in spans})
        return
    columns = [
        Column("", [_NAMES[one.span] for one in spans]),
        Column("spent", [_usd(one.spent) for one in spans], right=True),
        Column("calls", [str(one.calls) for one in spans], right=True),
        Column("reserved", [_usd(one.reserved) for one in spans], right=True),
        Column("cap", ["none" if one.cap is None else _usd(one.cap) for one in spans], right=True),
        Column("left", ["" if one.left is None else _usd(one.left) for one in spans], right=True),
        Column("begins anew", [f"{one.resets} 0:00" for one in spans]),
    ]
    head, *lines = words.table(columns)
    out(click.style(head, dim=True))
    out("\n".join(lines))
    month = spans[1]
    if month.models:
        out("this month by model: " + ", ".join(f"{one_line(model)} {_usd(usd)}" for model, usd in month.models))
    if month.unpriced:
        out(f"{words.plural(month.unpriced, 'call')} of models whose price is not known: in no sum here")
    if all(one.cap is None for one in spans):
        out("nothing is capped; the settings max_usd_day and max_usd_month do")


def _usd(value: float) -> str:
    return "$0" if value == 0 else words.usd(value)


def _body(one: Spending) -> dict[str, Any]:
    return {
        "since": one.first.isoformat(),
        "resets": one.resets.isoformat(),
        "spent": one.spent,
        "reserved": one.reserved,
        "waiting": one.waiting,
        "cap": one.cap,
        "left": one.left,
        "calls": one.calls,
        "unpriced": one.unpriced,
        "models": dict(one.models),
    }
