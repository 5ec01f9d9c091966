"""An evaluation for people: what `scope-edge eval` prints of one report."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING

import click

from scope_edge.cli import format
from scope_edge.cli.format import Column
from scope_edge.cli.output import one_line
from scope_edge.evaluation.plots.text import ASCII, UNICODE, Marks, text_lines
from scope_edge.evaluation.report import ALL, UNSEEN

if TYPE_CHECKING:
    from scope_edge.evaluation.report import EvaluationReport, PairedDifference, Prediction, RoutingPoint

_OURS = "scope-edge"
_SHOWN_ALPHAS = 11
# Metrics where less is better.
_LESS = ("brier", "logloss")
_METRICS = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "brier": "Brier",
    "logloss": "log-loss",
    "accuracy_at_equal_cost": "accuracy at equal cost",
}


def lines(report: EvaluationReport) -> Iterator[str]:
    """The report, section by section."""
    yield click.style(one_line(report.data), bold=True)
    yield _about(report)
    yield report.split
    for warning in report.warnings:
        yield one_line(warning)
    yield from _section("Predictions" + _whom(report), _predictions(report))
    yield from _section(
        "Ahead? (scope-edge minus the other, 95 % interval; *: it does not hold 0)", _paired(report.paired)
    )
    if report.routing:
        common = format.plural(report.common, "common query", "common queries")
        yield from _section(f"Choices ({format.plural(len(report.pool), 'model')}, {common})", _routing(report))
        yield from _section("Accuracy for cost", _curves(report))
        yield from _section("What `tune` foresaw, and what came", _tuned(report))
    for model, why in report.left_out.items():
        yield f"not in the choices: {model} ({why})"
    yield from _section("Anchors a new model answered", _adaptation(report))
    yield from _section("Evidence (+: beyond what these p would give if they were true)", _evidence(report))
    yield from _section("", text_lines(report, min(max(format.screen_width(), 50), 100), _marks()))
    yield from _section("", _ends(report))


def _marks() -> Marks:
    """Blocks and dots where the terminal can show them."""
    try:
        "".join(astuple(UNICODE)).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def _about(report: EvaluationReport) -> str:
    seen = sum(kind == "seen" for kind in report.models.values())
    unseen = len(report.models) - seen
    return (
        f"{report.queries:,} scored queries in {format.plural(len(report.seeds), 'split')}; {seen} models taught the bank in"
        f" every split, {unseen} did not in some and are known there by at most {report.anchors} anchors"
    )


def _whom(report: EvaluationReport) -> str:
    unseen = UNSEEN in next(iter(report.prediction.values()))
    return " for models that taught the bank nothing" if unseen else ""


def _section(title: str, body: Iterable[str]) -> Iterator[str]:
    rows = list(body)
    if rows:
        yield ""
        if title:
            yield click.style(title, bold=True)
        yield from rows


def _predictions(report: EvaluationReport) -> Iterator[str]:
    rows = {router: by.get(UNSEEN) or by[ALL] for router, by in report.prediction.items()}

    def cells(form: str, name: str) -> list[str]:
        return [_cell(getattr(one, name), form) for one in rows.values()]

    above = [f"{one.ece - one.ece_floor:.3f}" for one in rows.values()]
    yield from format.table(
        [
            Column("router", list(rows)),
            Column("AUC", cells("{:.4f}", "mean_auc"), right=True),
            Column("accuracy", cells("{:.4f}", "accuracy"), right=True),
            Column("Brier", cells("{:.4f}", "brier"), right=True),
            Column("log-loss", cells("{:.4f}", "logloss"), right=True),
            Column("ECE above floor", above, right=True),
        ]
    )
    yield from _length(rows[_OURS])


def _length(one: Prediction) -> Iterator[str]:
    if one.length_log_mae is not None and one.coverage is not None and one.width is not None:
        yield (
            f"length: off by a factor of {math.exp(one.length_log_mae):.2f} in the median;"
            f" {one.coverage:.1%} stay below the upper bound, which is {one.width:.2f} times what is expected"
        )


def _paired(rows: Sequence[PairedDifference]) -> Iterator[str]:
    others = list(dict.fromkeys(row.against for row in rows))
    columns = [Column("against", others)]
    for metric, title in _METRICS.items():
        by = {row.against: row for row in rows if row.metric == metric}
        if by:
            note = " (less is better)" if metric in _LESS else ""
            columns.append(Column(title + note, [_difference(by.get(other)) for other in others]))
    if others and format.table_width(columns) <= format.screen_width():
        yield from format.table(columns)
    elif others:
        yield from format.table(
            [
                Column("against", [row.against for row in rows]),
                Column("metric", [_METRICS[row.metric] for row in rows]),
                Column("difference", [_difference(row) for row in rows]),
            ]
        )


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
    names = [f"alpha {point.alpha:g}" if point.alpha is not None else point.router for point in points]
    yield from format.table(
        [
            Column("", names),
            Column("accuracy", [f"{point.accuracy:.3f}" for point in points], right=True),
            Column("$ per 1,000", [_cell(point.usd_per_1k, "{:.4f}") for point in points], right=True),
            Column("tokens", [format.count(point.tokens) for point in points], right=True),
            Column("device", [f"{point.device_share:.0%}" for point in points], right=True),
            Column("PGR", [_cell(point.pgr, "{:.3f}") for point in points], right=True),
            Column("cheapest", [_cell(point.cheapest_correct, "{:.3f}") for point in points], right=True),
        ]
    )


def _curves(report: EvaluationReport) -> Iterator[str]:
    swept = {one.router for one in report.routing if one.alpha is not None}
    rows = [curve for name, curve in report.curve.items() if name in swept]
    best = max(report.singles, key=lambda one: one.accuracy)
    yield (
        f"best single: {best.router}, {best.accuracy:.3f} for ${_cell(best.usd_per_1k, '{:.4f}')} per 1,000; area: mean"
        " accuracy for spending from the cheapest model's up to that"
    )
    yield from format.table(
        [
            Column("router", [one.router for one in rows]),
            Column("area", [_cell(one.area, "{:.4f}") for one in rows], right=True),
            Column("$ at best single", [_cell(one.usd_at_best_single, "{:.4f}", "never") for one in rows], right=True),
            Column("$ within 0.5", [_cell(one.usd_near_best_single, "{:.4f}", "never") for one in rows], right=True),
            Column("arena score", [_cell(one.arena, "{:.4f}") for one in rows], right=True),
        ]
    )


def _tuned(report: EvaluationReport) -> Iterator[str]:
    rows = report.tuned
    if rows:
        yield from format.table(
            [
                Column("alpha", [f"{row.alpha:g}" for row in rows], right=True),
                Column("right foreseen", [f"{row.expected_accuracy:.3f}" for row in rows], right=True),
                Column("came", [f"{row.accuracy:.3f}" for row in rows], right=True),
                Column("$ per 1,000 foreseen", [_cell(row.expected_usd_per_1k, "{:.4f}") for row in rows], right=True),
                Column("came", [_cell(row.usd_per_1k, "{:.4f}") for row in rows], right=True),
            ]
        )


def _adaptation(report: EvaluationReport) -> Iterator[str]:
    rows = report.adaptation
    yield from format.table(
        [
            Column("anchors", [str(row.anchors) for row in rows], right=True),
            Column("AUC", [_cell(row.auc, "{:.4f}") for row in rows], right=True),
            Column("accuracy", [f"{row.accuracy:.4f}" for row in rows], right=True),
            Column("log-loss", [f"{row.logloss:.4f}" for row in rows], right=True),
        ]
    )


def _evidence(report: EvaluationReport) -> Iterator[str]:
    rows = report.evidence
    yield from format.table(
        [
            Column("evidence", [row.evidence for row in rows]),
            Column("predictions", [f"{row.n:,}" for row in rows], right=True),
            Column("p - right", [f"{row.signed_error:+.3f}" for row in rows], right=True),
            Column("by category", [f"{row.calibration_error:.3f}" for row in rows], right=True),
            Column("log-loss +", [f"{row.excess_logloss:+.3f}" for row in rows], right=True),
            Column("Brier +", [f"{row.excess_brier:+.4f}" for row in rows], right=True),
        ]
    )


def _ends(report: EvaluationReport) -> Iterator[str]:
    if report.scaling:
        last = report.scaling[-1]
        yield (
            f"tokens a query with {format.plural(last.models, 'model')}: {format.count(last.routed)} routed at alpha 1,"
            f" {format.count(last.every)} when every model runs"
        )
    if report.joining:
        ratio = sorted(one.everything / one.anchors for one in report.joining)[len(report.joining) // 2]
        yield f"a model that joins by its anchors runs for 1/{ratio:.1f} of the FLOPs of answering the training queries"
    for one in report.stability:
        yield f"{one.edit}: {one.same_choice:.0%} of decisions stay, p moves by {one.moved_p:.3f}"
    if report.latency_ms:
        yield (
            f"a decision takes {report.latency_ms['whole']:.1f} ms with its encoding, {report.latency_ms['decide']:.1f} ms"
            " without (median)"
        )
    yield f"replayed in {report.seconds:.1f} s, encoding aside"


def _cell(value: float | None, form: str, unknown: str = format.UNKNOWN) -> str:
    return unknown if value is None else form.format(value)
