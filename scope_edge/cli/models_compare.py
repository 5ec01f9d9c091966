"""`scope-edge models compare`: where one model is better than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from scope_edge.cli import words
from scope_edge.cli.options import complete_model
from scope_edge.cli.output import one_line, out, out_json
from scope_edge.cli.run import complain
from scope_edge.cli.words import Column

if TYPE_CHECKING:
    from scope_edge.managing.comparing import Difference

_EPILOG = """\b
Examples:
  scope-edge models compare our-finetune gemma-2-2b-it
  scope-edge models compare our-finetune gemma-2-2b-it --json

\b
Exit codes:
  0 ok   2 usage, or a model without a fingerprint   5 a missing or damaged file
"""


@click.command("compare", epilog=_EPILOG)
@click.argument("a", shell_complete=complete_model)
@click.argument("b", shell_complete=complete_model)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/json.md).")
def compare_models(a: str, b: str, as_json: bool) -> None:
    """Show where one model is better than another, by category, with how sure that is.

    First on anchors both were measured on, pair by pair. Then what their abilities let expect on a fair sample of the bundled
    sets' questions. Intervals hold in 95 of 100 cases, for one row at a time: of 20 rows one may be off by chance.
    """
    from scope_edge.assemble import open_catalog
    from scope_edge.config import load_settings
    from scope_edge.managing.comparing import compare

    found = compare(open_catalog(load_settings()), a, b)
    if as_json:
        out_json(asdict(found))
        return
    if found.shared:
        _print(f"measured on the same anchors, correct %, {a} - {b}", a, b, found.shared)
        out("")
    _print(f"expected on a fair sample of each set's questions, correct %, {a} - {b}", a, b, found.expected)
    for note in found.notes:
        complain(note, 0)


def _print(title: str, a: str, b: str, rows: Sequence[Difference]) -> None:
    out(click.style(one_line(title), bold=True))
    names = [one.anchor_set if one.category is None else f"  {one.category}" for one in rows]
    columns = [
        Column(
            "anchors",
            [words.clipped(one_line(name) if name[0] != " " else "  " + one_line(name), 40) for name in names],
        ),
        Column("n", [str(one.anchors) for one in rows], right=True),
        Column(words.clipped(a, 24), [f"{100 * one.a:.1f}" for one in rows], right=True),
        Column(words.clipped(b, 24), [f"{100 * one.b:.1f}" for one in rows], right=True),
        Column("difference", [f"{100 * one.difference:+.1f}" for one in rows], right=True),
        Column("95% interval", [f"{100 * one.low:+.1f} to {100 * one.high:+.1f}" for one in rows], right=True),
        Column("better", [one.better or "not shown" for one in rows]),
    ]
    head, *lines = words.table(columns)
    out(click.style(head, dim=True))
    for row, line in zip(rows, lines, strict=True):
        out(click.style(line, bold=True) if row.category is None else line)
