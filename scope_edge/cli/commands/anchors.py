"""`scope-edge anchors`: the anchor sets, and taking away those of the user's and fingerprints on them."""

from __future__ import annotations

from dataclasses import asdict

import click
from click.shell_completion import CompletionItem

from scope_edge.cli import format
from scope_edge.cli.commands.models import confirmed, tell_gone
from scope_edge.cli.format import Column
from scope_edge.cli.options import complete_model
from scope_edge.cli.output import one_line, out, out_json
from scope_edge.cli.run import complain

_EPILOG = """\b
Examples:
  scope-edge anchors list
  scope-edge anchors remove support-mails
  scope-edge anchors forget our-finetune --on core-250

\b
Exit codes:
  0 ok   2 usage, or a bundled set   5 a file is damaged or cannot be removed
"""


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from scope_edge.errors import ScopeEdgeError
    from scope_edge.management.remove import list_sets

    try:
        return [CompletionItem(one.name) for one in list_sets() if one.name.startswith(incomplete)]
    except ScopeEdgeError:
        return []


@click.group("anchors", epilog=_EPILOG)
def command() -> None:
    """List the anchor sets; remove those of yours, and fingerprints of yours."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array (docs/json.md).")
def list_anchors(as_json: bool) -> None:
    """List the anchor sets, and which models you have measured or imported on each."""
    from scope_edge.management.remove import list_sets

    rows = list_sets()
    if as_json:
        out_json([asdict(one) for one in rows])
        return
    columns = [
        Column("anchor set", [one_line(one.name) for one in rows]),
        Column("anchors", ["" if one.anchors is None else str(one.anchors) for one in rows], right=True),
        Column("whose", ["yours" if one.own else "bundled" for one in rows]),
        Column("questions", ["with text" if one.with_text else "" for one in rows]),
        Column("measured by you", [format.clipped(one_line(", ".join(one.measured)), 60) for one in rows]),
    ]
    head, *lines = format.table(columns)
    out(click.style(head, dim=True))
    out("\n".join(lines))
    for one in rows:
        if one.problem is not None:
            complain(f"{one.name}: {one.problem}; `scope-edge anchors remove {one.name}` takes it away", 0)


@command.command("remove")
@click.argument("name", shell_complete=_complete)
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove_anchors(name: str, yes: bool) -> None:
    """Delete an anchor set of yours, with the fingerprints on it."""
    from scope_edge.management.remove import list_sets, remove_set

    known = next((one for one in list_sets() if one.name == name and one.own), None)
    on_it = (
        "" if known is None or not known.measured else f" and {format.plural(len(known.measured), 'fingerprint')} on it"
    )
    if known is not None and not confirmed(f"Delete {name}{on_it}", yes):
        out(f"{name} stays")
        return
    gone = remove_set(name)
    out(f"{one_line(name)} is removed")
    tell_gone(gone)


@command.command("forget")
@click.argument("model", shell_complete=complete_model)
@click.option("--on", "anchor_set", metavar="SET", shell_complete=_complete, help="On this anchor set.  [default: all]")
@click.option("--answers", is_flag=True, help="Delete its answers, too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget_model(model: str, anchor_set: str | None, answers: bool, yes: bool) -> None:
    """Delete fingerprints of yours of a model.

    Its answers stay unless --answers is given: `scope-edge fingerprint` makes the fingerprint again from them.
    """
    from scope_edge.management.remove import forget, own_sets_of

    where = "" if anchor_set is None else f" on {anchor_set}"
    if own_sets_of(model) and not confirmed(f"Delete what {model} was measured to do{where}", yes):
        out(f"{model} stays")
        return
    tell_gone(forget(model, anchor_set, answers=answers))
