"""`scope-edge calibrate`: what estimates are worth, learned from outcomes that are known; the prior's, or an installed GGUF's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from scope_edge.cli import words
from scope_edge.cli.options import Setting, complete_selection
from scope_edge.cli.output import out, out_json
from scope_edge.cli.progress import Progress
from scope_edge.cli.words import Column
from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from scope_edge.estimator.calibrate import Outcome

_EPILOG = """\b
Examples:
  scope-edge calibrate --dry-run
  scope-edge calibrate
  scope-edge calibrate --forget
  scope-edge calibrate --estimator gguf --limit 200
"""


@click.command("calibrate", epilog=_EPILOG)
@click.option(
    "--estimator",
    type=click.Choice(["prior", "gguf"]),
    default="prior",
    show_default=True,
    help="What to calibrate: estimates from fingerprints alone, or the installed GGUF's.",
)
@click.option(
    "--pool",
    metavar="POOL",
    type=Setting("pool"),
    shell_complete=complete_selection,
    help="Whose outcomes: a pool's name, or model ids joined by commas.",
)
@click.option("--dry-run", is_flag=True, help="prior: show what would change, keep nothing.")
@click.option("--anyway", is_flag=True, help="prior: keep it even where it did not help in cross-validation.")
@click.option("--forget", is_flag=True, help="prior: remove the calibration there is.")
@click.option(
    "--name", "estimator_name", metavar="NAME", type=Setting("estimator_name"), help="gguf: which installed one."
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="gguf: prompts in all, the most informative anchors first; none = every outcome.",
)
@click.option("--again", is_flag=True, help="gguf: forget what earlier runs found out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/json.md).")
def command(
    estimator: str,
    pool: str | None,
    dry_run: bool,
    anyway: bool,
    forget: bool,
    estimator_name: str | None,
    limit: int | None,
    again: bool,
    as_json: bool,
) -> None:
    """Learn from known outcomes how far estimates can be trusted, and correct them.

    The prior: from what you measured of the pool's models, each outcome predicted without it; seconds. The correction is
    kept only if it helps in cross-validation, and holds for those models until something it rests on changes.

    The GGUF: asked about anchors whose outcome is known, each left out of what it is shown. That can take hours on a
    processor; an interrupted run is taken up again by the same command.
    """
    others = {"--name": estimator_name, "--limit": limit, "--again": again}
    if estimator == "gguf":
        others = {"--dry-run": dry_run, "--anyway": anyway, "--forget": forget}
    for option, value in others.items():
        if value:
            other = "prior" if estimator == "gguf" else "gguf"
            raise UsageError(f"{option} is for --estimator {other}; leave it out, or say --estimator {other}")
    if estimator == "gguf":
        _gguf(estimator_name, pool, limit, again, as_json)
        return
    from scope_edge.cli.calibrate_prior import run

    run(pool, dry_run=dry_run, anyway=anyway, forget=forget, as_json=as_json)


def _gguf(estimator_name: str | None, pool: str | None, limit: int | None, again: bool, as_json: bool) -> None:
    from scope_edge.assemble import open_catalog
    from scope_edge.config import load_settings
    from scope_edge.estimator.calibrate import calibrate_estimator

    settings = load_settings({"estimator_name": estimator_name, "pool": pool})
    with Progress() as progress:
        outcome = calibrate_estimator(
            open_catalog(settings).pool(),
            settings.estimator_name,
            threads=settings.threads,
            limit=limit,
            again=again,
            progress=lambda step: progress.count(step.done, step.total, "prompt", step.seconds_left),
        )
    if as_json:
        out_json(asdict(outcome))
    else:
        out("\n".join(_lines(outcome)))


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
