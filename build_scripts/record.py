"""Our own record: what `scope-edge eval` says on every set of routing data, put into docs/benchmarks.md.

    python build_scripts/record.py --data ROUTING_DATA --write docs/benchmarks.md

Evaluations with one bank learned from all sets together and five splits: a third of the models unseen and known by 250 anchors,
beside the routers that learn in seconds; the same by 25 anchors; the pool `open-2024` as models that just joined, whose choices are
replayed; and, on the first two splits, the routers that take minutes to learn. About an hour on two cores; --quick leaves out the last.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from figures import table, write_figures
from unseen import SEEDS

from scope_edge.evaluation.predict import LEARNED_NAMES
from scope_edge.evaluation.report import ALL, UNSEEN, EvaluationReport, PairedDifference, Prediction, RoutingPoint
from scope_edge.evaluation.run import CHEAP, EvaluationRequest, evaluate
from scope_edge.settings.config import Settings

Reports = Mapping[str, EvaluationReport]
OURS = "scope-edge"
# Alphas of the paper's Table 1, and what it reports of SCOPE there: PGR, accuracy, US dollars. Not the same data.
ALPHAS = (0.0, 0.6, 1.0)
PAPER = (
    ("paper, its test set, alpha 1", "84.33", "75.00", "0.63 in all"),
    ("paper, out of distribution, alpha 1", "59.32", "50.80", "3.08 in all"),
)
METRICS = ("auc", "accuracy", "brier", "logloss")
SLOW = tuple(name for name in LEARNED_NAMES if name not in CHEAP)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the routing data format")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--quick", action="store_true", help="only the routers that train in seconds")
    parser.add_argument("--json", type=Path, help="also write the three evaluations there")
    parser.add_argument(
        "--write", type=Path, help="put the tables between the <!-- figures: eval --> marks of this file"
    )
    parser.add_argument("--alpha", type=Path, help="and what alpha buys between the <!-- figures --> marks of this one")
    options = parser.parse_args()
    request = EvaluationRequest(data=tuple(options.data), seeds=tuple(options.seeds), baselines=CHEAP)
    runs = {
        "250": request,
        "25": replace(request, anchors=25, baselines=()),
        "pool": replace(request, unseen=("open-2024",), pool="open-2024"),
    }
    if not options.quick:
        runs["slow"] = replace(request, seeds=request.seeds[:2], baselines=SLOW)
    reports = {}
    for name, one in runs.items():
        reports[name] = evaluate(one, Settings())
        print(f"{name}: done", flush=True)
    if options.json:
        bodies = {run: {name: one.as_dict() for name, one in by.items()} for run, by in reports.items()}
        options.json.write_text(json.dumps(bodies), "utf-8")
    text = "\n\n".join(sections(reports["250"], reports["25"], reports["pool"], reports.get("slow", {})))
    print(text)
    if options.write:
        write_figures(options.write, text, "eval")
    if options.alpha:
        write_figures(options.alpha, "\n\n".join(_alphas(reports["pool"])))


def sections(full: Reports, few: Reports, pool: Reports, slow: Reports) -> Iterator[str]:
    """The tables, as markdown."""
    yield (
        "### Predictions\n\nModels the bank never saw, on queries it never saw; AUC is the mean over models.\n\n"
        + table(
            ["set", "router", "AUC", "accuracy", "Brier", "log-loss", "ECE above floor"], list(_predictions(full, few))
        )
    )
    yield "Models that taught the bank, on queries it never saw:\n\n" + table(
        ["set", "router", "AUC", "accuracy", "Brier", "log-loss", "ECE above floor"], list(_seen(full))
    )
    yield "scope-edge with 250 anchors minus the other, 95 % interval (bold: it does not hold 0):\n\n" + table(
        ["set", "against", "AUC", "accuracy", "Brier (less is better)", "log-loss (less is better)"],
        list(_paired(full)),
    )
    if slow:
        head = ["set", "router", "AUC", "accuracy", "Brier", "log-loss", "ECE above floor"]
        rows = [row for row in _predictions(slow, few) if "25 anchors" not in row[1]]
        yield "The routers that take minutes to learn, on the first two splits:\n\n" + table(head, rows)
        head = ["set", "against", "AUC", "accuracy", "Brier (less is better)", "log-loss (less is better)"]
        yield "scope-edge minus these, 95 % interval:\n\n" + table(head, list(_paired(slow)))
    yield (
        "### Lengths and calibration\n\nThe same models and queries, all sets together and each by itself.\n\n"
        + table(
            [
                "set",
                "anchors",
                "ECE above floor",
                "median abs log length error",
                "coverage (0.9 asked)",
                "tokens_hi / tokens",
            ],
            list(_calibration(full, few)),
        )
    )
    yield "Predictions by evidence word, over 10 to 250 anchors:\n\n" + table(
        ["set", "evidence", "predictions", "mean p - share right", "by category", "excess log-loss", "excess Brier"],
        list(_evidence(full)),
    )
    yield (
        "### Choices\n\nThe pool `open-2024` as models that just joined, laid out like Table 1 of the paper.\n\n"
        + table(
            ["set", "", "PGR %", "accuracy %", "$ per 1,000", "on the device", "cheapest right"], list(_choices(pool))
        )
    )
    yield "The curve of every router, and what `tune` foresaw:\n\n" + table(
        ["set", "router", "area", "$ at the best single's accuracy", "$ within 0.5 points", "arena score"],
        list(_curves(pool)),
    )
    yield "Accuracy at equal cost, scope-edge minus the other, 95 % interval:\n\n" + table(
        ["set", "against", "difference"], list(_equal_cost(pool))
    )
    yield table(["set", "alpha", "accuracy foreseen", "came", "$ per 1,000 foreseen", "came"], list(_tuned(pool)))
    yield "### As the pool grows, and as a model joins\n\n" + table(
        ["set", "models", "tokens a query, routed", "every model run"], list(_scaling(pool))
    )
    yield table(["set", "model", "FLOPs for its anchors", "for all training queries"], list(_joining(pool)))


def _rows(one: Prediction) -> list[str]:
    auc = "?" if one.mean_auc is None else f"{one.mean_auc:.4f}"
    return [auc, f"{one.accuracy:.4f}", f"{one.brier:.4f}", f"{one.logloss:.4f}", f"{one.ece - one.ece_floor:.3f}"]


def _predictions(full: Reports, few: Reports) -> Iterator[list[str]]:
    for name, report in full.items():
        yield [name, "scope-edge, 25 anchors", *_rows(few[name].prediction[OURS][UNSEEN])]
        for router, by in report.prediction.items():
            yield [name, "scope-edge, 250 anchors" if router == OURS else router, *_rows(by[UNSEEN])]


def _seen(full: Reports) -> Iterator[list[str]]:
    """Of pooled figures only those that can be told from all and unseen ones: sums over outcomes."""
    for name, report in full.items():
        for router, by in report.prediction.items():
            a, u = by[ALL], by[UNSEEN]
            n = a.n - u.n
            if n:
                means = [(getattr(a, m) * a.n - getattr(u, m) * u.n) / n for m in ("accuracy", "brier", "logloss")]
                yield [name, router, "", *(f"{value:.4f}" for value in means), ""]


def _interval(row: PairedDifference) -> str:
    text = f"{row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}]"
    return f"**{text}**" if row.low > 0 or row.high < 0 else text


def _paired(full: Reports) -> Iterator[list[str]]:
    for name, report in full.items():
        for other in dict.fromkeys(row.against for row in report.paired if row.metric == "auc"):
            found = {row.metric: row for row in report.paired if row.against == other}
            yield [name, other, *(_interval(found[metric]) for metric in METRICS)]


def _calibration(full: Reports, few: Reports) -> Iterator[list[str]]:
    for anchors, reports in (("25", few), ("250", full)):
        for name, report in reports.items():
            one = report.prediction[OURS][UNSEEN]
            lengths = [one.length_log_mae, one.coverage, one.width]
            yield [
                name,
                anchors,
                f"{one.ece - one.ece_floor:.3f}",
                *("?" if v is None else f"{v:.3f}" for v in lengths),
            ]


def _evidence(full: Reports) -> Iterator[list[str]]:
    for name, report in full.items():
        for one in report.evidence:
            figures = [f"{one.signed_error:+.3f}", f"{one.calibration_error:.3f}", f"{one.excess_logloss:+.3f}"]
            yield [name, one.evidence, f"{one.n:,}", *figures, f"{one.excess_brier:+.4f}"]


def _choices(pool: Reports) -> Iterator[list[str]]:
    for name, report in pool.items():
        for point in [*report.routing, *report.singles]:
            if point.router == OURS and point.alpha in ALPHAS:
                yield [name, f"scope-edge, alpha {point.alpha:g}", *_point(point)]
            elif point.router == "scope-paper" and point.alpha in ALPHAS:
                yield [name, f"the paper's formula, alpha {point.alpha:g}", *_point(point)]
            elif point.alpha is None:
                yield [name, point.router, *_point(point)]
    for title, pgr, accuracy, usd in PAPER:
        yield ["*not the same data*", title, pgr, accuracy, usd, "", ""]


def _alphas(pool: Reports) -> Iterator[str]:
    """What each step of alpha bought, set by set, for docs/alpha.md."""
    for name, report in pool.items():
        formula = {one.alpha: one for one in report.routing if one.router == "scope-paper"}
        rows = [
            [f"{one.alpha:g}", *_bought(one), *_bought(formula[one.alpha])[:2]]
            for one in report.routing
            if one.router == OURS and one.alpha is not None and round(one.alpha * 20) % 2 == 0
        ]
        rows += [[f"*always {one.router}*", *_bought(one), "", ""] for one in report.singles]
        rows += [
            [f"*{one.router}*", *_bought(one), "", ""] for one in report.routing if one.router in ("oracle", "random")
        ]
        head = ["alpha", "accuracy", "$ per 1,000", "on the device", "paper: accuracy", "paper: $"]
        if rows:
            yield f"### {name}: {report.common} scored queries in {len(report.seeds)} splits\n\n" + table(head, rows)


def _bought(point: RoutingPoint) -> list[str]:
    usd = "?" if point.usd_per_1k is None else f"{point.usd_per_1k:.4f}"
    return [f"{point.accuracy:.3f}", usd, f"{point.device_share:.0%}"]


def _point(point: RoutingPoint) -> list[str]:
    pgr = "?" if point.pgr is None else f"{100 * point.pgr:.2f}"
    usd = "?" if point.usd_per_1k is None else f"{point.usd_per_1k:.4f}"
    right = "?" if point.cheapest_correct is None else f"{point.cheapest_correct:.3f}"
    return [pgr, f"{100 * point.accuracy:.2f}", usd, f"{point.device_share:.0%}", right]


def _curves(pool: Reports) -> Iterator[list[str]]:
    for name, report in pool.items():
        best = max(report.singles, key=lambda one: one.accuracy) if report.singles else None
        if best is not None:
            yield [name, f"*always {best.router}*", "", _usd(best.usd_per_1k), "", ""]
        for router, curve in report.curve.items():
            if any(point.router == router and point.alpha is not None for point in report.routing):
                spent = [_usd(curve.usd_at_best_single), _usd(curve.usd_near_best_single)]
                area, arena = ("?" if v is None else f"{v:.4f}" for v in (curve.area, curve.arena))
                yield [name, router, area, *spent, arena]


def _usd(value: float | None) -> str:
    return "never" if value is None else f"{value:.4f}"


def _equal_cost(pool: Reports) -> Iterator[list[str]]:
    for name, report in pool.items():
        for row in report.paired:
            if row.metric == "accuracy_at_equal_cost":
                yield [name, row.against, _interval(row)]


def _tuned(pool: Reports) -> Iterator[list[str]]:
    for name, report in pool.items():
        for row in report.tuned:
            usd = [_usd(row.expected_usd_per_1k), _usd(row.usd_per_1k)]
            yield [name, f"{row.alpha:g}", f"{row.expected_accuracy:.3f}", f"{row.accuracy:.3f}", *usd]


def _scaling(pool: Reports) -> Iterator[list[str]]:
    for name, report in pool.items():
        for one in report.scaling:
            yield [name, str(one.models), f"{one.routed:,.0f}", f"{one.every:,.0f}"]


def _joining(pool: Reports) -> Iterator[list[str]]:
    for name, report in pool.items():
        rows = [one for one in report.joining if one.model in report.pool]
        if rows:
            for one in rows:
                yield [name, one.model, f"{one.anchors:.1e}", f"{one.everything:.1e}"]
            ratio = float(np.median([one.everything / one.anchors for one in rows]))
            yield [name, "*median ratio*", "1", f"{ratio:.1f}"]


if __name__ == "__main__":
    main()
