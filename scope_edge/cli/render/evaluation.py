"""The text that `scope-edge eval` prints of a report."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING

import click

from scope_edge.cli import format
from scope_edge.cli.format import grid
from scope_edge.cli.output import one_line
from scope_edge.evaluation.plots.text import ASCII, UNICODE, Marks, text_lines
from scope_edge.evaluation.report import ALL, UNSEEN

if TYPE_CHECKING:
    from scope_edge.evaluation.report import EvaluationReport, PairedDifference, Prediction, RoutingPoint

_OURS = "scope-edge"
_SHOWN_ALPHAS = 11
# Metrics of which less is better.
_LESS = ("brier", "logloss")
_METRICS = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "brier": "Brier",
    "logloss": "log-loss",
    "accuracy_at_equal_cost": "accuracy at equal cost",
}


def lines(report: EvaluationReport) -> Iterator[str]:
    """Give the report's lines, section by section."""
    yield click.style(one_line(report.data), bold=True)
    yield _about(report)
    yield report.split
    for warning in report.warnings:
        yield one_line(warning)
    yield from _section("Predictions" + _scope(report), _predictions(report))
    yield from _section("Ahead? (scope-edge minus the other, 95 % interval; *: it excludes 0)", _paired(report.paired))
    if report.routing:
        common = format.plural(report.common, "common query", "common queries")
        yield from _section(f"Choices ({format.plural(len(report.pool), 'model')}, {common})", _routing(report))
        yield from _section("Accuracy for cost", _curves(report))
        yield from _section("What `tune` forecast, and the result", _tuned(report))
    for model, why in report.left_out.items():
        yield f"not in the choices: {model} ({why})"
    yield from _section("Anchors of a new model", _adaptation(report))
    yield from _section("Evidence (+: more than if these p were true)", _evidence(report))
    yield from _section("", text_lines(report, min(max(format.screen_width(), 50), 100), _marks()))
    yield from _section("", _ends(report))


def _marks() -> Marks:
    """Return blocks and dots if the terminal can show them, else ASCII."""
    try:
        "".join(astuple(UNICODE)).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def _about(report: EvaluationReport) -> str:
    seen = sum(kind == "seen" for kind in report.models.values())
    unseen = len(report.models) - seen
    return (
        f"{report.queries:,} scored queries in {format.plural(len(report.seeds), 'split')}; the bank learned from {seen} models in"
        f" every split; {unseen} were held out of some, and are known there by at most {report.anchors} anchors"
    )


def _scope(report: EvaluationReport) -> str:
    unseen = UNSEEN in next(iter(report.prediction.values()))
    return " for models that the bank did not learn from" if unseen else ""


def _section(title: str, body: Iterable[str]) -> Iterator[str]:
    rows = list(body)
    if rows:
        yield ""
        if title:
            yield click.style(title, bold=True)
        yield from rows


def _predictions(report: EvaluationReport) -> Iterator[str]:
    rows = {router: by.get(UNSEEN) or by[ALL] for router, by in report.prediction.items()}
    cells = []
    for router, one in rows.items():
        scores = [_cell(value, "{:.4f}") for value in (one.mean_auc, one.accuracy, one.brier, one.logloss)]
        cells.append((router, *scores, f"{one.ece - one.ece_floor:.3f}"))
    yield from grid(("router", ">AUC", ">accuracy", ">Brier", ">log-loss", ">ECE above floor"), cells)
    yield from _length(rows[_OURS])


def _length(one: Prediction) -> Iterator[str]:
    if one.length_log_mae is not None and one.coverage is not None and one.width is not None:
        yield (
            f"length: off by a factor of {math.exp(one.length_log_mae):.2f} in the median;"
            f" {one.coverage:.1%} are below the upper bound, which is {one.width:.2f} times the expected length"
        )


def _paired(rows: Sequence[PairedDifference]) -> Iterator[str]:
    others = list(dict.fromkeys(row.against for row in rows))
    by = {(row.against, row.metric): row for row in rows}
    metrics = [metric for metric in _METRICS if any(row.metric == metric for row in rows)]
    titles = [_METRICS[metric] + (" (less is better)" if metric in _LESS else "") for metric in metrics]
    wide = grid(
        ("against", *titles), [(other, *(_difference(by.get((other, m))) for m in metrics)) for other in others]
    )
    if others and max(map(format.columns_of, wide)) <= format.screen_width():
        yield from wide
    elif others:
        cells = [(row.against, _METRICS[row.metric], _difference(row)) for row in rows]
        yield from grid(("against", "metric", "difference"), cells)


def _difference(row: PairedDifference | None) -> str:
    if row is None:
        return ""
    sure = "*" if row.low > 0 or row.high < 0 else " "
    return f"{row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}]{sure}"


def _routing(report: EvaluationReport) -> Iterator[str]:
    ours = [point for point in report.routing if point.router == _OURS]
    step = max(1, (len(ours) - 1) // (_SHOWN_ALPHAS - 1)) if len(ours) > 1 else 1
    fixed = [point for point in report.routing if point.alpha is None]
    yield from _points([*ours[::step], *fixed, *report.singles])


def _points(points: Sequence[RoutingPoint]) -> Iterator[str]:
    yield from grid(
        ("", ">accuracy", ">$ per 1,000", ">tokens", ">device", ">PGR", ">cheapest"),
        [
            (
                point.router if point.alpha is None else f"alpha {point.alpha:g}",
                f"{point.accuracy:.3f}",
                _cell(point.usd_per_1k, "{:.4f}"),
                format.count(point.tokens),
                f"{point.device_share:.0%}",
                _cell(point.pgr, "{:.3f}"),
                _cell(point.cheapest_correct, "{:.3f}"),
            )
            for point in points
        ],
    )


def _curves(report: EvaluationReport) -> Iterator[str]:
    swept = {one.router for one in report.routing if one.alpha is not None}
    rows = [curve for name, curve in report.curve.items() if name in swept]
    best = max(report.singles, key=lambda one: one.accuracy)
    yield (
        f"best single: {best.router}, {best.accuracy:.3f} for ${_cell(best.usd_per_1k, '{:.4f}')} per 1,000; area: mean"
        " accuracy over spending from the cheapest model's cost to that"
    )
    yield from grid(
        ("router", ">area", ">$ at best single", ">$ within 0.5", ">arena score"),
        [
            (
                one.router,
                _cell(one.area, "{:.4f}"),
                _cell(one.usd_at_best_single, "{:.4f}", "never"),
                _cell(one.usd_near_best_single, "{:.4f}", "never"),
                _cell(one.arena, "{:.4f}"),
            )
            for one in rows
        ],
    )


def _tuned(report: EvaluationReport) -> Iterator[str]:
    if not report.tuned:
        return
    cells = []
    for row in report.tuned:
        usd = [_cell(value, "{:.4f}") for value in (row.expected_usd_per_1k, row.usd_per_1k)]
        cells.append((f"{row.alpha:g}", f"{row.expected_accuracy:.3f}", f"{row.accuracy:.3f}", *usd))
    yield from grid((">alpha", ">right, forecast", ">result", ">$ per 1,000, forecast", ">result"), cells)


def _adaptation(report: EvaluationReport) -> Iterator[str]:
    cells = [
        (str(row.anchors), _cell(row.auc, "{:.4f}"), f"{row.accuracy:.4f}", f"{row.logloss:.4f}")
        for row in report.adaptation
    ]
    yield from grid((">anchors", ">AUC", ">accuracy", ">log-loss"), cells)


def _evidence(report: EvaluationReport) -> Iterator[str]:
    yield from grid(
        ("evidence", ">predictions", ">p - right", ">by category", ">log-loss +", ">Brier +"),
        [
            (
                row.evidence,
                f"{row.n:,}",
                f"{row.signed_error:+.3f}",
                f"{row.calibration_error:.3f}",
                f"{row.excess_logloss:+.3f}",
                f"{row.excess_brier:+.4f}",
            )
            for row in report.evidence
        ],
    )


def _ends(report: EvaluationReport) -> Iterator[str]:
    if report.scaling:
        last = report.scaling[-1]
        yield (
            f"tokens per query with {format.plural(last.models, 'model')}: {format.count(last.routed)} routed at alpha 1,"
            f" {format.count(last.every)} if every model runs"
        )
    if report.joining:
        ratio = sorted(one.everything / one.anchors for one in report.joining)[len(report.joining) // 2]
        yield f"adding a model by its anchors takes 1/{ratio:.1f} of the FLOPs of answering the training queries"
    for one in report.stability:
        yield f"{one.edit}: {one.same_choice:.0%} of decisions stay the same, p changes by {one.moved_p:.3f}"
    if report.latency_ms:
        yield (
            f"a decision takes {report.latency_ms['whole']:.1f} ms with its encoding, {report.latency_ms['decide']:.1f} ms"
            " without (median)"
        )
    yield f"replayed in {report.seconds:.1f} s, without encoding"


def _cell(value: float | None, form: str, unknown: str = format.UNKNOWN) -> str:
    return unknown if value is None else form.format(value)
