"""`scope-edge calibrate`: what an installed estimator's word is worth, learned from outcomes that are known."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from scope_edge.cli import words
from scope_edge.cli.options import Setting, complete_selection
from scope_edge.cli.output import out, out_json
from scope_edge.cli.words import Column

if TYPE_CHECKING:
    from scope_edge.estimator.calibrate import Outcome, Step

_EPILOG = """\b
Examples:
  scope-edge calibrate --estimator gguf --limit 200
  scope-edge calibrate --estimator gguf --json
"""


@click.command("calibrate", epilog=_EPILOG)
@click.option(
    "--estimator",
    type=click.Choice(["gguf"]),
    default="gguf",
    show_default=True,
    help="What to calibrate: the installed GGUF.",
)
@click.option("--name", "estimator_name", metavar="NAME", type=Setting("estimator_name"), help="Which installed one.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="Prompts in all, the most informative anchors first; none = every outcome.",
)
@click.option(
    "--pool",
    metavar="POOL",
    type=Setting("pool"),
    shell_complete=complete_selection,
    help="Whose outcomes: a pool's name, or model ids joined by commas.",
)
@click.option("--again", is_flag=True, help="Forget what earlier runs found out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/json.md).")
def command(
    estimator: str, estimator_name: str | None, limit: int | None, pool: str | None, again: bool, as_json: bool
) -> None:
    """Learn how far to trust the installed estimator, beside the prior, for p and for length.

    It is asked about anchors whose outcome is known, each left out of what it is shown. That can take hours on a
    processor; an interrupted run is taken up again by the same command.
    """
    from scope_edge.config import load_settings
    from scope_edge.estimator.calibrate import calibrate_estimator

    settings = load_settings({"estimator_name": estimator_name, "pool": pool})
    shown = words.is_terminal(sys.stderr)
    try:
        outcome = calibrate_estimator(settings, limit=limit, again=again, progress=_show if shown else None)
    finally:
        if shown:
            click.echo("\r\x1b[K", err=True, nl=False)
    if as_json:
        out_json(asdict(outcome))
    else:
        out("\n".join(_lines(outcome)))


def _show(step: Step) -> None:
    left = "" if step.seconds_left is None else f", about {_duration(step.seconds_left)} left"
    click.echo(f"\r\x1b[K{step.done} of {words.plural(step.total, 'prompt')}{left}", err=True, nl=False)


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def _lines(outcome: Outcome) -> Iterator[str]:
    bad = f", {outcome.unusable} more without a usable answer" if outcome.unusable else ""
    yield f"{outcome.name}: {words.plural(outcome.prompts, 'prompt')} whose outcome is known{bad}"
    rows = outcome.scores
    names = {"estimator": "estimator alone", "half-way": "both, half and half", "calibrated": "both, calibrated"}
    columns = [Column("", [names.get(name, name) for name in rows])]
    for title in ("log_loss", "brier", "ece"):
        columns.append(
            Column(title.replace("_", " "), [f"{getattr(one, title):.3f}" for one in rows.values()], right=True)
        )
    yield from words.table(columns)
    a0, a1, a2 = outcome.weights
    yield (
        f"logit p = {a0:.2f} {a1:+.2f} logit(estimator) {a2:+.2f} logit(prior), which moves the prior's by at most"
        f" {outcome.reach:.2f} in 95 % of cases"
    )
    yield (
        f"stored in {outcome.where}; calibrated was scored on anchors it was not fitted on"
        if outcome.stored
        else "too few to be stored; raise --limit"
    )
