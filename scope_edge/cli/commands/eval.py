"""`scope-edge eval`: measure the router on labelled queries, beside other routers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli import format
from scope_edge.cli.options import complete_selection, count_option, read_alphas, setting_option
from scope_edge.cli.output import ProgressLine, out, out_json
from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from scope_edge.evaluation.report import EvaluationReport
    from scope_edge.evaluation.run import EvaluationRequest

_EPILOG = """\b
Examples:
  scope-edge eval --data routing_data/zeroeval
  scope-edge eval --data routing_data/zeroeval --unseen-models default --baselines all --plots out/
  scope-edge eval --data mine --test held_back --json > report.json
"""
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("eval", epilog=_EPILOG)
@click.option(
    "--data",
    metavar="DIR",
    type=_FOLDER,
    multiple=True,
    required=True,
    help="Labelled queries: a set, or a folder of sets. May be repeated; the bank is learned from all of them.",
)
@click.option(
    "--test",
    metavar="DIR",
    type=_FOLDER,
    multiple=True,
    help="Score these queries instead of --data; new models are fingerprinted on queries of --data.",
)
@click.option(
    "--unseen-models",
    metavar="A,B",
    shell_complete=complete_selection,
    help="Models, or pools of them, that the bank does not learn from. Default: a third, by hash, for each seed.",
)
@count_option("--anchors", "Number of anchors in a new model's fingerprint.", 5, 250, 250)
@click.option(
    "--pool",
    metavar="POOL",
    shell_complete=complete_selection,
    help="The models to choose from: a pool, or models joined by commas. Default: the active pool.",
)
@click.option(
    "--alphas",
    metavar="FROM:TO:STEP",
    default="0:1:0.05",
    show_default=True,
    help="Alphas, or numbers joined by commas.",
)
@click.option(
    "--policy",
    type=click.Choice(["all", "scope-edge", "paper"]),
    default="all",
    show_default=True,
    help="Policies to replay.",
)
@click.option(
    "--baselines",
    metavar="NAMES",
    default="knn5,knn,logreg",
    show_default=True,
    help="Learned routers to compare with: all, none, or some of knn5,knn,logreg,svm,mlp,gboost.",
)
@click.option(
    "--seeds", metavar="N", help="Number of splits, or seeds joined by commas.  [default: 5; one split with --test]"
)
@click.option(
    "--prices",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='TOML: tables [models."id"] with usd_in and usd_out, which replace the cards\' prices.',
)
@click.option(
    "--bank",
    type=click.Choice(["refit", "bundled"]),
    default="refit",
    show_default=True,
    help="Learn a bank from the training part of the data, or score the bundled one and your fingerprints.",
)
@click.option(
    "--estimator",
    type=click.Choice(["prior", "gguf"]),
    default="prior",
    show_default=True,
    help="Score the estimates of the prior, or of the installed language model for every query and model.",
)
@count_option("--limit", "Score at most N queries of each split.")
@setting_option("coverage", "SHARE", "Coverage of the upper bound on tokens.")
@click.option("--no-cache", is_flag=True, help="Do not store the queries' vectors for the next run.")
@click.option(
    "--plots",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write pictures, and a page that shows them, to this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/evaluation.md).")
def command(coverage: float | None, plots: Path | None, as_json: bool, **options: Any) -> None:
    """Replay labelled queries: how often routing is right, what it costs, and how good the predictions are.

    For each seed, half of the queries and a third of the models are held out; bank, calibration and fingerprints are learned
    from the rest, so that nothing is scored on the data it was fitted on. No model runs.
    """
    from scope_edge.evaluation.run import evaluate
    from scope_edge.settings.config import load_settings

    settings, request = load_settings({"coverage": coverage}), _request(**options)
    if plots is not None:
        from scope_edge.evaluation.plots.canvas import check_matplotlib

        check_matplotlib()
    with ProgressLine() as progress:
        reports = evaluate(request, settings, progress)
    written: tuple[Path, ...] = ()
    if plots is not None:
        from scope_edge.evaluation.plots.write import write_pictures

        written = write_pictures(reports, plots)
    if as_json:
        out_json(_body(reports))
        return
    from scope_edge.cli.render.evaluation import lines

    for report in reports.values():
        out(format.folded(lines(report)))
    if written:
        out(f"{len(written)} files in {plots}; open {plots / 'index.html'}" if plots else "")


def _request(
    *, unseen_models: str | None, alphas: str, baselines: str, seeds: str | None, no_cache: bool, **given: Any
) -> EvaluationRequest:
    """Return the request; `given` are the options that are passed on unchanged. Raises UsageError."""
    from scope_edge.evaluation.run import EvaluationRequest

    if seeds is not None and given["test"]:
        raise UsageError("--test says itself what is scored, so there is one split; leave --seeds out")
    return EvaluationRequest(
        unseen=None if unseen_models is None else _unseen(unseen_models),
        alphas=read_alphas(alphas),
        baselines=_baselines(baselines),
        seeds=_seeds("5" if seeds is None else seeds),
        cache=not no_cache,
        **given,
    )


def _body(reports: Mapping[str, EvaluationReport]) -> dict[str, object]:
    """Return the report of one set, or the reports of several by name."""
    bodies = {name: report.as_dict() for name, report in reports.items()}
    if len(bodies) == 1:
        return next(iter(bodies.values()))
    return {"sets": bodies}


def _split(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _unseen(text: str) -> tuple[str, ...]:
    names = _split(text)
    if not names:
        raise UsageError("--unseen-models names no model; give ids joined by commas")
    return names


def _baselines(text: str) -> tuple[str, ...]:
    from scope_edge.evaluation.predict import LEARNED_NAMES

    if text in ("all", "none"):
        return LEARNED_NAMES if text == "all" else ()
    names = _split(text)
    unknown = next((name for name in names if name not in LEARNED_NAMES), None)
    if unknown is not None:
        raise UsageError(f"--baselines: no router {unknown!r}; they are {', '.join(LEARNED_NAMES)}, all or none")
    return names


def _seeds(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--seeds must be a number of splits, or numbers joined by commas, not {text!r}") from error
    if len(numbers) == 1 and "," not in text:
        if not 1 <= numbers[0] <= 100:
            raise UsageError(f"--seeds must be from 1 to 100, not {numbers[0]}")
        return tuple(range(numbers[0]))
    if len(set(numbers)) != len(numbers) or min(numbers) < 0:
        raise UsageError(f"--seeds must be different numbers of at least 0, not {text!r}")
    return numbers
