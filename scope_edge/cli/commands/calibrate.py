"""`scope-edge calibrate`: learn from known outcomes how to correct the estimates of the prior, or of an installed GGUF."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli import format
from scope_edge.cli.options import Setting, count_option, json_option, pool_option
from scope_edge.cli.output import ProgressLine, out, out_json
from scope_edge.cli.run import complain
from scope_edge.errors import UsageError
from scope_edge.factory import open_catalog
from scope_edge.settings.config import load_settings

if TYPE_CHECKING:
    from scope_edge.estimator.calibrate import CalibrationOutcome
    from scope_edge.settings.config import Settings
    from scope_edge.tuning.calibrate import CalibrationResult, Figures, StoredCalibration

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
    help="Calibrate the estimates from fingerprints, or those of the installed GGUF.",
)
@pool_option("Use the outcomes of these models: a pool's name, or model ids joined by commas.")
@click.option("--dry-run", is_flag=True, help="prior: show what would change, store nothing.")
@click.option(
    "--anyway", is_flag=True, help="prior: store the correction even if it does not help in cross-validation."
)
@click.option("--forget", is_flag=True, help="prior: remove the stored calibration.")
@click.option(
    "--name", "estimator_name", metavar="NAME", type=Setting("estimator_name"), help="gguf: the name of the estimator."
)
@count_option("--limit", "gguf: run at most N prompts, the most informative anchors first.  [default: all]")
@click.option("--again", is_flag=True, help="gguf: discard the results of earlier runs.")
@json_option
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

    The prior is calibrated on the outcomes that you measured for the pool's models, each predicted without it; this takes
    seconds. The correction is stored only if it helps in cross-validation. It applies to those models until the data behind
    it changes.

    The GGUF is asked about anchors whose outcome is known, without being shown that outcome. This can take hours on a
    processor; the same command continues an interrupted run.
    """
    others = {"--name": estimator_name, "--limit": limit, "--again": again}
    if estimator == "gguf":
        others = {"--dry-run": dry_run, "--anyway": anyway, "--forget": forget}
    for option, value in others.items():
        if value:
            other = "prior" if estimator == "gguf" else "gguf"
            raise UsageError(f"{option} is for --estimator {other}; leave it out, or give --estimator {other}")
    if estimator == "gguf":
        _calibrate_gguf(load_settings({"estimator_name": estimator_name, "pool": pool}), limit, again, as_json)
    elif forget:
        if dry_run or anyway:
            raise UsageError(f"--forget only removes; leave {'--dry-run' if dry_run else '--anyway'} out")
        _forget(as_json)
    else:
        _calibrate_prior(load_settings({"pool": pool}), dry_run, anyway, as_json)


def _calibrate_prior(settings: Settings, dry_run: bool, anyway: bool, as_json: bool) -> None:
    from scope_edge.tuning.calibrate import calibrate_own

    pool = open_catalog(settings).pool()
    with ProgressLine() as progress:
        result = calibrate_own(pool, settings.coverage, dry_run=dry_run, anyway=anyway, progress=progress)
    if as_json:
        out_json(_prior_body(result))
    else:
        out("\n".join(_prior_lines(result, settings.coverage, dry_run)))


def _forget(as_json: bool) -> None:
    from scope_edge.estimation.user_calibration import file, forget_personal

    there = forget_personal()
    if as_json:
        out_json({"forgotten": there, "file": str(file())})
    else:
        out(f"removed {file()}; estimates are no longer corrected" if there else "no calibration is stored")


def _prior_body(result: StoredCalibration) -> dict[str, Any]:
    found = result.calibrated
    return {
        "models": list(found.full.models),
        "helps": list(found.helps),
        "fitted": {name: getattr(found.full, name) for name in ("slope", "intercept", "widening")},
        "before": {name: asdict(one) for name, one in found.before.items()},
        "after": {name: asdict(one) for name, one in found.after.items()},
        "stored": result.stored,
        "file": str(result.where),
    }


def _prior_lines(result: StoredCalibration, coverage: float, dry_run: bool) -> Iterator[str]:
    found = result.calibrated
    yield f"{found.before['all'].outcomes} outcomes that you measured, each predicted, and corrected, without it"
    yield ""
    names = [name for name in found.before if name != "all"] if len(found.before) > 2 else []
    titles = ("", "", ">outcomes", ">log loss", ">brier", ">ece above floor", ">covered %", ">upper / median")
    rows: list[tuple[str, ...]] = []
    for name in (*names, "all"):
        rows += [(name, "before", *_figures(found.before[name])), ("", "after", *_figures(found.after[name]))]
    yield from format.grid(titles, rows)
    yield ""
    full = found.full
    yield f"logit p = {full.intercept:+.2f} {full.slope:+.2f} logit(prior): {_verdict(found, 'probability')}"
    bound = f"upper bound on tokens, to cover {100 * coverage:g} %: {full.widening:.2f} times as far from the median"
    yield f"{bound}: {_verdict(found, 'length')}"
    if result.stored:
        yield f"stored in {result.where}; `scope-edge calibrate --forget` removes it"
    elif dry_run:
        yield "nothing was stored (--dry-run)"
    else:
        yield "no gain, so nothing was stored (--anyway stores it)"


def _verdict(found: CalibrationResult, part: str) -> str:
    return "helps" if part in found.helps else "no gain"


def _figures(one: Figures) -> tuple[str, ...]:
    scores = [f"{value:.3f}" for value in (one.logloss, one.brier, max(one.ece, 0))]
    covered = format.UNKNOWN if one.coverage is None else f"{100 * one.coverage:.1f}"
    return str(one.outcomes), *scores, covered, format.UNKNOWN if one.width is None else f"{one.width:.2f}"


def _calibrate_gguf(settings: Settings, limit: int | None, again: bool, as_json: bool) -> None:
    from scope_edge.estimator.calibrate import calibrate_estimator

    with ProgressLine(announce=True) as progress, _saved_on_interrupt():
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
        out("\n".join(_gguf_lines(outcome)))


@contextlib.contextmanager
def _saved_on_interrupt() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        complain("interrupted; the results so far are saved, and the same command continues", 0)
        raise


def _gguf_lines(outcome: CalibrationOutcome) -> Iterator[str]:
    from scope_edge.estimator.calibrate import LEAST_PROMPTS

    bad = f", {outcome.unusable} more without a usable answer" if outcome.unusable else ""
    yield f"{outcome.name}: {format.plural(outcome.prompts, 'prompt')} with a known outcome{bad}"
    rows = outcome.scores
    names = {"estimator": "estimator alone", "half-way": "both, half and half", "calibrated": "both, calibrated"}
    yield from format.grid(
        ("", ">log loss", ">brier", ">ece"),
        [
            (names.get(name, name), f"{one.log_loss:.3f}", f"{one.brier:.3f}", f"{one.ece:.3f}")
            for name, one in rows.items()
        ],
    )
    a0, a1, a2 = outcome.weights
    yield (
        f"logit p = {a0:.2f} {a1:+.2f} logit(estimator) {a2:+.2f} logit(prior), which changes the prior's by at most"
        f" {outcome.reach:.2f} in 95 % of cases"
    )
    if outcome.stored:
        yield f'stored in {outcome.where}; "calibrated" was scored on anchors it was not fitted on'
    elif outcome.prompts < LEAST_PROMPTS:
        yield "too few prompts to store it; raise --limit"
    else:
        yield "no gain over the prior on anchors it was not fitted on, so nothing is stored and it has no weight"
