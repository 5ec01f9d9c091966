"""The portfolio: each model's share of the queries as alpha goes from the cheapest to the most accurate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from scope_edge.evaluation.plots.canvas import OURS, PAPER, Picture, legend, nothing, percent_axis, ticks
from scope_edge.evaluation.plots.names import distinct, dollars, percent
from scope_edge.evaluation.report import EvaluationReport, RoutingPoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME, TITLE = "portfolio", "Which model is chosen at which alpha"
# A model that never gets this share is shown among the others.
SMALL = 0.02
_BANDS = 12


@dataclass(frozen=True, slots=True)
class Band:
    """One model, or the others together: name as shown, its share at every alpha, its cost alone."""

    label: str
    shares: tuple[float, ...]
    usd: float | None


def ours(report: EvaluationReport) -> list[RoutingPoint]:
    """Return the choices of scope-edge, by rising alpha."""
    return sorted((one for one in report.routing if one.router == OURS and one.alpha is not None), key=_alpha)


def bands(report: EvaluationReport) -> list[Band]:
    """Return the portfolio from the cheapest model to the dearest, then models of unknown cost, then the small ones together."""
    points = ours(report)
    costs = {one.router: one.usd_per_1k for one in report.singles}
    models = list(dict.fromkeys(model for point in points for model in point.portfolio))
    shares = {model: tuple(point.portfolio.get(model, 0.0) for point in points) for model in models}
    by_size = sorted(models, key=lambda model: (-max(shares[model]), model))
    kept = sum(max(shares[model]) >= SMALL for model in by_size[:_BANDS])
    large = by_size if kept >= len(by_size) - 1 else by_size[:kept]
    large.sort(key=lambda model: (costs.get(model) is None, costs.get(model) or 0.0, model))
    names = distinct(large, 26)
    found = [Band(names[model], shares[model], costs.get(model)) for model in large]
    rest = [shares[model] for model in models if model not in names]
    if rest:
        found.append(Band(f"{len(rest)} others", tuple(map(sum, zip(*rest, strict=True))), None))
    return found


def portfolio(report: EvaluationReport) -> Picture:
    """Return the picture of the choices of scope-edge."""
    points = ours(report)
    rows = tuple(
        {"alpha": p.alpha, "model": model, "share": share} for p in points for model, share in p.portfolio.items()
    )
    if len(points) < 2 or not rows:
        return nothing(NAME, TITLE, f"Choices of {OURS} were replayed at fewer than two alphas.", rows)
    found, alphas = bands(report), [_alpha(point) for point in points]
    caption = (
        f"Share of queries that {OURS} sends to each model, cheapest at the bottom, dearest on top; after its name the"
        f" cost of 1,000 queries with that model alone. Alpha 0 is the cheapest choice, 1 the most accurate. {report.common:,}"
        f" queries. Models that never get {SMALL:.0%} of the queries are together."
    )
    draw = partial(_draw, alphas=alphas, found=found)
    return Picture(NAME, TITLE, _headline(points), caption, rows, (9.6, 4.9), draw)


def _alpha(point: RoutingPoint) -> float:
    return point.alpha or 0.0


def _headline(points: Sequence[RoutingPoint]) -> str:
    parts = [
        f"alpha {_alpha(one):g}: {percent(one.accuracy)} right for {dollars(one.usd_per_1k)}, {one.device_share:.0%} on the device"
        for one in (points[0], points[-1])
    ]
    return f"At {parts[0]}; at {parts[1]}"


def _draw(figure: Figure, alphas: Sequence[float], found: Sequence[Band]) -> None:
    ax = figure.add_subplot(xlim=(alphas[0], alphas[-1]), ylim=(0, 1), title="share of queries")
    ax.set_xlabel("alpha: 0 = cheapest, 1 = most accurate")
    ax.grid(visible=False)
    percent_axis(ax.yaxis)
    marked = alphas[:: max(1, len(alphas) // 10)]
    ticks(ax.xaxis, marked, [f"{alpha:g}" for alpha in marked])
    labels = [band.label + (f"  {dollars(band.usd)}" if band.usd is not None else "") for band in found]
    shares = [band.shares for band in found]
    ax.stackplot(alphas, *shares, labels=labels, colors=_colours(found), edgecolor=PAPER, linewidth=1.0)
    legend(ax, "$ per 1,000 queries alone", reverse=True)


def _colours(found: Sequence[Band]) -> list[str]:
    """Return colours from dark and cheap to light and dear; models of unknown cost are grey."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    priced = sum(band.usd is not None for band in found)
    shades = [to_hex(colormaps["viridis"](0.95 * i / max(priced - 1, 1))) for i in range(priced)]
    greys = ["#909090", "#a6a6a6", "#bababa", "#cccccc"]
    return shades + [greys[i % len(greys)] for i in range(len(found) - priced)]
