"""`scope-edge anchors`: list the anchor sets; remove the user's own, and fingerprints on them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from scope_edge.cli import format
from scope_edge.cli.inputs import confirmed
from scope_edge.cli.options import complete_model, json_array_option, yes_option
from scope_edge.cli.output import one_line, out, out_json, print_table
from scope_edge.cli.run import complain

if TYPE_CHECKING:
    from scope_edge.management.remove import RemovalSummary

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
    """List the anchor sets; remove your own sets and fingerprints."""


@command.command("list")
@json_array_option
def list_anchors(as_json: bool) -> None:
    """List the anchor sets.

    For each, the models that you measured or imported are listed.
    """
    from scope_edge.management.remove import list_sets

    rows = list_sets()
    if as_json:
        out_json([asdict(one) for one in rows])
        return
    print_table(
        ("anchor set", ">anchors", "whose", "questions", "measured by you"),
        [
            (
                one_line(one.name),
                "" if one.anchors is None else str(one.anchors),
                "yours" if one.own else "bundled",
                "with text" if one.with_text else "",
                format.clipped(one_line(", ".join(one.measured)), 60),
            )
            for one in rows
        ],
    )
    for one in rows:
        if one.problem is not None:
            complain(f"{one.name}: {one.problem}; `scope-edge anchors remove {one.name}` removes it", 0)


@command.command("remove")
@click.argument("name", shell_complete=_complete)
@yes_option
def remove_anchors(name: str, yes: bool) -> None:
    """Delete one of your anchor sets, and the fingerprints on it."""
    from scope_edge.management.remove import list_sets, remove_set

    own = next((one for one in list_sets() if one.name == name and one.own), None)
    number = 0 if own is None else len(own.measured)
    on_it = f" and {format.plural(number, 'fingerprint')} on it" if number else ""
    if own is not None and not confirmed(f"Delete {name}{on_it}", yes):
        out(f"{name} was not deleted")
        return
    gone = remove_set(name)
    out(f"{one_line(name)} was deleted")
    print_removed(gone)


@command.command("forget")
@click.argument("model", shell_complete=complete_model)
@click.option(
    "--on", "anchor_set", metavar="SET", shell_complete=_complete, help="Only on this anchor set.  [default: all]"
)
@click.option("--answers", is_flag=True, help="Delete its answers as well.")
@yes_option
def forget_model(model: str, anchor_set: str | None, answers: bool, yes: bool) -> None:
    """Delete your fingerprints of a model.

    The model's answers stay unless --answers is given: `scope-edge fingerprint` can make the fingerprint again from them.
    """
    from scope_edge.management.remove import forget, own_sets_of

    where = "" if anchor_set is None else f" on {anchor_set}"
    if own_sets_of(model) and not confirmed(f"Delete your fingerprints of {model}{where}", yes):
        out(f"the fingerprints of {model} were not deleted")
        return
    print_removed(forget(model, anchor_set, answers=answers))


def print_removed(gone: RemovalSummary) -> None:
    """Print what was deleted, and what was kept."""
    if gone.fingerprints:
        models = format.plural(len({model for model, _ in gone.fingerprints}), "model")
        sets = ", ".join(dict.fromkeys(name for _, name in gone.fingerprints))
        out(f"{format.plural(len(gone.fingerprints), 'fingerprint')} of {models} deleted, on {one_line(sets)}")
    out(format.plural(len(gone.files), "file") + " deleted or rewritten")
    if gone.left:
        files = ", ".join(map(str, gone.left))
        out(
            f"the answers are kept, so that `scope-edge fingerprint` can use them again; --answers deletes them: {files}"
        )
