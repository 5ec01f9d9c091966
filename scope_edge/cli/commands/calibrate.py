"""`scope-edge calibrate`: what estimates are worth, learned from outcomes that are known; the prior's, or an installed GGUF's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli import format
from scope_edge.cli.format import Column
from scope_edge.cli.options import Setting, complete_selection
from scope_edge.cli.output import ProgressLine, out, out_json
from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from scope_edge.estimator.calibrate import CalibrationOutcome
    from scope_edge.tuning.calibrate import CalibrationResult, Figures, StoredCalibration

# `scope-edge calibrate --estimator prior`: the correction of what fingerprints alone say, before and after.


def run(pool: str | None, *, dry_run: bool, anyway: bool, forget: bool, as_json: bool) -> None:
    """Calibrate, or forget a calibration, and print what came of it."""
    if forget:
        if dry_run or anyway:
            raise UsageError(f"--forget only removes; leave {'--dry-run' if dry_run else '--anyway'} out")
        _forget(as_json)
        return
    from scope_edge.factory import open_catalog
    from scope_edge.settings.config import load_settings
    from scope_edge.tuning.calibrate import calibrate_own

    settings = load_settings({"pool": pool})
    with ProgressLine() as progress:
        kept = calibrate_own(
            open_catalog(settings).pool(), settings.coverage, dry_run=dry_run, anyway=anyway, progress=progress
        )
    if as_json:
        out_json(_body(kept))
    else:
        out("\n".join(_prior_lines(kept, settings.coverage, dry_run)))


def _forget(as_json: bool) -> None:
    from scope_edge.estimation.user_calibration import file, forget_personal

    there = forget_personal()
    if as_json:
        out_json({"forgotten": there, "file": str(file())})
    else:
        out(f"removed {file()}; estimates are as they come" if there else "there is no calibration to forget")


def _body(kept: StoredCalibration) -> dict[str, Any]:
    found = kept.calibrated
    return {
        "models": list(found.full.models),
        "helps": list(found.helps),
        "fitted": {name: getattr(found.full, name) for name in ("slope", "intercept", "widening")},
        "before": {name: asdict(one) for name, one in found.before.items()},
        "after": {name: asdict(one) for name, one in found.after.items()},
        "stored": kept.stored,
        "file": str(kept.where),
    }


def _prior_lines(kept: StoredCalibration, coverage: float, dry_run: bool) -> Iterator[str]:
    found = kept.calibrated
    number = found.before["all"].outcomes
    yield f"{number} outcomes that you measured, each predicted without it; after: by a correction that does not know it either"
    yield ""
    names = [name for name in found.before if name != "all"] if len(found.before) > 2 else []
    rows = [
        (name, when, one)
        for name in (*names, "all")
        for when, one in (("before", found.before[name]), ("after", found.after[name]))
    ]
    yield from format.table(_columns(rows))
    yield ""
    full = found.full
    yield f"logit p = {full.intercept:+.2f} {full.slope:+.2f} logit(prior): {_verdict(found, 'probability')}"
    bound = f"upper bound on tokens, to cover {100 * coverage:g} %: {full.widening:.2f} times as far from the median"
    yield f"{bound}: {_verdict(found, 'length')}"
    if kept.stored:
        yield f"stored in {kept.where}; `scope-edge calibrate --forget` removes it"
    elif dry_run:
        yield "nothing was stored (--dry-run)"
    else:
        yield "no gain, so nothing was stored (--anyway would)"


def _verdict(found: CalibrationResult, part: str) -> str:
    return "helps" if part in found.helps else "no gain"


def _columns(rows: list[tuple[str, str, Figures]]) -> list[Column]:
    def numbers(title: str, cells: Iterator[str]) -> Column:
        return Column(title, list(cells), right=True)

    figures = [one for _, _, one in rows]
    return [
        Column("", [name if when == "before" else "" for name, when, _ in rows]),
        Column("", [when for _, when, _ in rows]),
        numbers("outcomes", (str(one.outcomes) for one in figures)),
        numbers("log loss", (f"{one.logloss:.3f}" for one in figures)),
        numbers("brier", (f"{one.brier:.3f}" for one in figures)),
        numbers("ece above floor", (f"{max(one.ece, 0):.3f}" for one in figures)),
        numbers(
            "covered %", (format.UNKNOWN if one.coverage is None else f"{100 * one.coverage:.1f}" for one in figures)
        ),
        numbers("upper / median", (format.UNKNOWN if one.width is None else f"{one.width:.2f}" for one in figures)),
    ]


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

    run(pool, dry_run=dry_run, anyway=anyway, forget=forget, as_json=as_json)


def _gguf(estimator_name: str | None, pool: str | None, limit: int | None, again: bool, as_json: bool) -> None:
    from scope_edge.estimator.calibrate import calibrate_estimator
    from scope_edge.factory import open_catalog
    from scope_edge.settings.config import load_settings

    settings = load_settings({"estimator_name": estimator_name, "pool": pool})
    with ProgressLine() as progress:
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


def _lines(outcome: CalibrationOutcome) -> Iterator[str]:
    bad = f", {outcome.unusable} more without a usable answer" if outcome.unusable else ""
    yield f"{outcome.name}: {format.plural(outcome.prompts, 'prompt')} whose outcome is known{bad}"
    rows = outcome.scores
    names = {"estimator": "estimator alone", "half-way": "both, half and half", "calibrated": "both, calibrated"}
    columns = [Column("", [names.get(name, name) for name in rows])]
    for title in ("log_loss", "brier", "ece"):
        columns.append(
            Column(title.replace("_", " "), [f"{getattr(one, title):.3f}" for one in rows.values()], right=True)
        )
    yield from format.table(columns)
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
