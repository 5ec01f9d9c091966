"""`scope-edge models test`: does a model answer?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from scope_edge.cli import words
from scope_edge.cli.imports import print_facts
from scope_edge.cli.options import complete_model
from scope_edge.cli.output import one_line, out, out_json
from scope_edge.cli.progress import Progress
from scope_edge.cli.run import complain

if TYPE_CHECKING:
    from scope_edge.managing.trying import Trial

# Characters of an answer that are shown.
_SHOWN = 200
_EPILOG = """\b
Examples:
  scope-edge models test our-finetune
  scope-edge models test vendor-model --timeout 20 --json

\b
Exit codes:
  0 it answers   1 the GGUF's worker failed   2 usage, or no key   5 nobody answers, or a missing or damaged file
"""


@click.command("test", epilog=_EPILOG)
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
    from scope_edge.assemble import open_catalog
    from scope_edge.config import load_settings
    from scope_edge.managing.trying import try_model

    settings = load_settings()
    card = open_catalog(settings).card(model)
    with Progress() as progress:
        trial = try_model(card, timeout, progress, threads=settings.threads, offline=settings.offline)
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
