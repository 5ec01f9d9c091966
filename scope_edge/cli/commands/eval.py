"""`scope-edge eval`: what the router is worth on labelled queries, beside other routers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli import format
from scope_edge.cli.options import Setting, complete_selection, read_alphas
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
    help="Labelled queries: a set, or a folder of sets. May be given several times; all of them teach the bank.",
)
@click.option(
    "--test",
    metavar="DIR",
    type=_FOLDER,
    multiple=True,
    help="Score what stands here and not in --data; outcomes on queries of --data are what new models are known by.",
)
@click.option(
    "--unseen-models",
    metavar="A,B",
    shell_complete=complete_selection,
    help="Models, or pools of them, that teach the bank nothing. Default: a third, by hash, for each seed.",
)
@click.option(
    "--anchors", metavar="N", type=click.IntRange(5, 250), default=250, show_default=True, help="Known by so many."
)
@click.option(
    "--pool",
    metavar="POOL",
    shell_complete=complete_selection,
    help="Whose choices are replayed: a pool, or models joined by commas. Default: the active pool.",
)
@click.option(
    "--alphas", metavar="FROM:TO:STEP", default="0:1:0.05", show_default=True, help="Or numbers joined by commas."
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
    help="Learned routers beside ours: all, none, or some of knn5,knn,logreg,svm,mlp,gboost.",
)
@click.option(
    "--seeds", metavar="N", default="5", show_default=True, help="So many splits, or their numbers joined by commas."
)
@click.option(
    "--prices",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='TOML: [models."id"] with usd_in and usd_out, laid over the cards.',
)
@click.option(
    "--bank",
    type=click.Choice(["refit", "bundled"]),
    default="refit",
    show_default=True,
    help="Learn a bank from the data's training part, or score the one that comes along and your fingerprints.",
)
@click.option(
    "--estimator",
    type=click.Choice(["prior", "gguf"]),
    default="prior",
    show_default=True,
    help="Whose word is scored as ours: the prior's, or that of the installed language model, for every query and model.",
)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Score at most N queries of each split.")
@click.option("--coverage", metavar="SHARE", type=Setting("coverage"), help="Of the upper bound on tokens.")
@click.option("--no-cache", is_flag=True, help="Keep no vectors of the queries for the next time.")
@click.option(
    "--plots",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write pictures, and a page of them, there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/evaluation.md).")
def command(coverage: float | None, plots: Path | None, as_json: bool, **wishes: Any) -> None:
    """Replay labelled queries: what routing would have got right and cost, and how good the predictions were.

    Half of the queries and a third of the models are held out for each seed; bank, calibration and fingerprints are
    learned anew from the rest, so that nothing is scored with what was fitted on it. No model runs.
    """
    from scope_edge.evaluation.run import evaluate
    from scope_edge.settings.config import load_settings

    settings, request = load_settings({"coverage": coverage}), _request(**wishes)
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
    *, unseen_models: str | None, alphas: str, baselines: str, seeds: str, no_cache: bool, **given: Any
) -> EvaluationRequest:
    """What the options ask for; `given` are those that need no reading. Raises UsageError."""
    from scope_edge.evaluation.run import EvaluationRequest

    return EvaluationRequest(
        unseen=None if unseen_models is None else _names(unseen_models),
        alphas=read_alphas(alphas),
        baselines=_baselines(baselines),
        seeds=_seeds(seeds),
        cache=not no_cache,
        **given,
    )


def _body(reports: Mapping[str, EvaluationReport]) -> dict[str, object]:
    """One set's report as it is; several by name."""
    bodies = {name: report.as_dict() for name, report in reports.items()}
    if len(bodies) == 1:
        return next(iter(bodies.values()))
    return {"sets": bodies}


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError("--unseen-models names no model; give ids joined by commas")
    return names


def _baselines(text: str) -> tuple[str, ...]:
    from scope_edge.evaluation.predict import LEARNED_NAMES

    if text in ("all", "none"):
        return LEARNED_NAMES if text == "all" else ()
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    stranger = next((name for name in names if name not in LEARNED_NAMES), None)
    if stranger is not None:
        raise UsageError(f"--baselines: no router {stranger!r}; they are {', '.join(LEARNED_NAMES)}, all or none")
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
