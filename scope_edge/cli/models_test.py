"""`scope-edge models test` and `remove`: does a model of the user's answer; and its card taken away."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from scope_edge.cli import words
from scope_edge.cli.imports import print_facts
from scope_edge.cli.options import complete_model
from scope_edge.cli.output import one_line, out, out_json
from scope_edge.cli.progress import Progress
from scope_edge.cli.run import complain
from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from scope_edge.managing.removing import Gone
    from scope_edge.managing.trying import Trial

# Characters of an answer that are shown.
_SHOWN = 200
_TEST_EPILOG = """\b
Examples:
  scope-edge models test our-finetune
  scope-edge models test vendor-model --timeout 20 --json

\b
Exit codes:
  0 it answers   1 the GGUF's worker failed   2 usage, or no key   5 nobody answers, or a missing or damaged file
"""
_REMOVE_EPILOG = """\b
Examples:
  scope-edge models remove our-finetune
  scope-edge models remove our-finetune --fingerprints --yes

\b
Exit codes:
  0 ok   2 usage, or a bundled card   5 a file that cannot be removed
"""


@click.command("test", epilog=_TEST_EPILOG)
@click.argument("model", shell_complete=complete_model)
@click.option(
    "--timeout",
    metavar="S",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    help="Seconds the answer may take, loading aside.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/json.md).")
@click.pass_context
def test_model(context: click.Context, /, model: str, timeout: float, as_json: bool) -> None:
    """Ask a model one tiny question, as its card says it is called.

    Says what answered, in how many seconds and tokens, or what is wrong. The exit code says whether it works.
    """
    from scope_edge.config import load_settings
    from scope_edge.managing.trying import try_model

    with Progress() as progress:
        trial = try_model(load_settings(), model, timeout, progress)
    if as_json:
        out_json({name: value for name, value in asdict(trial).items() if name != "exit_code"})
    elif trial.problem is not None:
        complain(f"{model} does not work: {trial.problem}", trial.exit_code)
    else:
        out(f"{click.style(model, bold=True)} answers")
        print_facts(_facts(trial))
    context.exit(trial.exit_code)


def _facts(trial: Trial) -> dict[str, str]:
    tokens = f"{words.count(trial.prompt_tokens)} in, {words.count(trial.completion_tokens)} out"
    if trial.prompt_tokens is None and trial.completion_tokens is None:
        tokens = "the server does not count them"
    loaded = "" if trial.load_seconds is None else f", after {words.seconds(trial.load_seconds)} s of loading"
    text = words.clipped(one_line(trial.text or ""), _SHOWN)
    return {
        "called": trial.how,
        "answer": (text or "empty") + (" (cut off, which is no matter here)" if trial.cut else ""),
        "seconds": words.seconds(trial.seconds) + loaded,
        "tokens": tokens,
    }


@click.command("remove", epilog=_REMOVE_EPILOG)
@click.argument("model", shell_complete=complete_model)
@click.option("--fingerprints", is_flag=True, help="Delete what it was measured on, too, its answers included.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove_model(model: str, fingerprints: bool, yes: bool) -> None:
    """Remove a card of yours, and the model from your pools.

    What the model was measured on stays, unless --fingerprints is given: added again under its id, it need not be asked
    again. The GGUF itself is never touched.
    """
    from scope_edge.catalog import load_catalog
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
    after = load_catalog(load_settings())
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
