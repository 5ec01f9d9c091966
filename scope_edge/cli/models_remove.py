"""`scope-edge models remove`: a card of the user's taken away, with what hangs on it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from scope_edge.cli import words
from scope_edge.cli.options import complete_model
from scope_edge.cli.output import one_line, out
from scope_edge.cli.run import complain
from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from scope_edge.managing.removing import Gone

_EPILOG = """\b
Examples:
  scope-edge models remove our-finetune
  scope-edge models remove our-finetune --fingerprints --yes

\b
Exit codes:
  0 ok   2 usage, or a bundled card   5 a file that cannot be removed
"""


@click.command("remove", epilog=_EPILOG)
@click.argument("model", shell_complete=complete_model)
@click.option("--fingerprints", is_flag=True, help="Delete what it was measured on, too, its answers included.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove_model(model: str, fingerprints: bool, yes: bool) -> None:
    """Remove a card of yours, and the model from your pools.

    What the model was measured on stays, unless --fingerprints is given: added again under its id, it need not be asked
    again. The GGUF itself is never touched.
    """
    from scope_edge.assemble import open_catalog
    from scope_edge.config import load_settings
    from scope_edge.managing.removing import forget, journals_of, own_sets_of
    from scope_edge.pools import remove_card

    settings = load_settings()
    what = f"the card of {model}" + (" and its fingerprints" if fingerprints else "")
    if model in settings.models and not confirmed(f"Remove {what}", yes):
        out(f"{model} stays")
        return
    removed = remove_card(model)
    out(f"the card of {model} is removed" + ("; the bundled one holds again" if removed.bundled else ""))
    if removed.pools:
        out(f"taken out of pool {', '.join(removed.pools)}")
    sets = own_sets_of(model)
    if fingerprints and (sets or journals_of(model)):
        tell_gone(forget(model, answers=True))
    elif sets:
        out(f"its fingerprint on {', '.join(sets)} is kept; `scope-edge anchors forget {model}` deletes it")
    after = open_catalog(load_settings())
    empty = next((name for name in removed.pools if not after.pools.get(name)), None)
    if empty is not None and empty == after.active_pool:
        complain(f"pool {empty} is active and empty now; `scope-edge pool use default` goes back to the bundled one", 0)


def confirmed(question: str, yes: bool) -> bool:
    """Whether to do it. Raises UsageError where nobody can be asked and --yes is not given."""
    if yes:
        return True
    if not words.is_terminal(sys.stdin):
        raise UsageError(f"{question}? That cannot be asked here; give --yes")
    return click.confirm(f"{question}?", err=True)


def tell_gone(gone: Gone) -> None:
    """What was deleted, and what stays."""
    if gone.fingerprints:
        models = words.plural(len({model for model, _ in gone.fingerprints}), "model")
        sets = ", ".join(dict.fromkeys(name for _, name in gone.fingerprints))
        out(f"{words.plural(len(gone.fingerprints), 'fingerprint')} of {models} deleted, on {one_line(sets)}")
    out(words.plural(len(gone.files), "file") + " deleted or written anew")
    if gone.left:
        files = ", ".join(map(str, gone.left))
        out(f"the answers stay, so that `scope-edge fingerprint` asks nothing again; --answers deletes them: {files}")
