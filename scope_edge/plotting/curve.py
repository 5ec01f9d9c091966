"""Accuracy for cost: every router's curve, and every model of the pool alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from scope_edge.evaluating.report import Curve, Report, RoutingPoint
from scope_edge.plotting.canvas import axes, name_points, percent_axis, ticks
from scope_edge.plotting.cost_scale import CostScale
from scope_edge.plotting.names import distinct, dollars, percent, plain
from scope_edge.plotting.palette import INK, MARKERS, MUTED, OURS, PAPER, SOFT, Line, line_of
from scope_edge.plotting.picture import Picture, nothing, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, TITLE = "accuracy-cost", "Accuracy for cost"
_SIZE = (9.6, 5.6)
# Labels beyond these would be a thicket; the data have every model.
_MOST_NAMED = 16


@dataclass(frozen=True, slots=True)
class Spot:
    """A point with a cost: the model that lies there alone, if one does, and the routers without alpha that do."""

    model: str | None
    routers: tuple[str, ...]
    usd: float
    accuracy: float


def accuracy_cost(report: Report) -> Picture:
    """The picture of a report's curves."""
    rows = rows_of((*report.routing, *report.singles))
    priced = [one for one in (*report.routing, *report.singles) if one.usd_per_1k is not None]
    if not priced:
        why = "No two models of the pool have a known cost on the same queries, so there is nothing to set accuracy against."
        return nothing(NAME, TITLE, why, rows)

    def draw(figure: Figure) -> None:
        _draw(figure, report)

    return Picture(NAME, TITLE, headline(report), _caption(report), rows, _SIZE, draw)


def swept(report: Report) -> list[Curve]:
    """The curves of the routers that follow alpha, the one with the largest area first."""
    routers = {point.router for point in report.routing if point.alpha is not None}
    found = [curve for router, curve in report.curve.items() if router in routers and curve.usd_per_1k]
    return sorted(found, key=lambda curve: (curve.area is None, -(curve.area or 0.0), curve.router))


def spots(report: Report) -> list[Spot]:
    """Models alone and routers without alpha, as far as their cost is known; what lies on one point is one spot."""
    priced = [point for point in report.singles if point.usd_per_1k is not None]
    found = [Spot(point.router, (), point.usd_per_1k or 0.0, point.accuracy) for point in priced]
    for point in report.routing:
        if point.alpha is not None or point.usd_per_1k is None:
            continue
        twin = next((i for i, spot in enumerate(found) if _alike(spot, point)), None)
        if twin is None:
            found.append(Spot(None, (point.router,), point.usd_per_1k, point.accuracy))
        else:
            found[twin] = replace(found[twin], routers=(*found[twin].routers, point.router))
    return found


def scale_of(report: Report) -> CostScale:
    """The cost axis of a report's points."""
    singles = [one.usd_per_1k for one in report.singles if one.usd_per_1k is not None]
    return CostScale.of(singles, [one.usd_per_1k for one in report.routing if one.usd_per_1k is not None])


def headline(report: Report) -> str:
    """What the curve says, in a line or two."""
    priced = [one for one in report.singles if one.usd_per_1k is not None]
    curve = report.curve.get(OURS)
    if curve is None or not curve.accuracy or not priced:
        return "Accuracy and cost of every router"
    best = max(priced, key=lambda one: one.accuracy)
    name = plain(best.router) if len(best.router) <= 40 else "the best single model"
    alone = f"{name} alone: {percent(best.accuracy)} for {dollars(best.usd_per_1k)}"
    near = curve.usd_near_best_single
    if near is None:
        top = f"{percent(curve.accuracy[-1])} for {dollars(curve.usd_per_1k[-1])}"
        return f"{OURS} reaches {top} per 1,000 queries; {alone}"
    return f"{OURS} comes within half a point of the best single model for {dollars(near)} per 1,000 queries; {alone}"


def _alike(spot: Spot, point: RoutingPoint) -> bool:
    usd = point.usd_per_1k or 0.0
    return abs(spot.accuracy - point.accuracy) < 1e-3 and abs(spot.usd - usd) <= 0.01 * max(spot.usd, usd)


def _caption(report: Report) -> str:
    unpriced = sorted({one.router for one in (*report.routing, *report.singles) if one.usd_per_1k is None})
    text = (
        f"Share of answers that are right against US dollars per 1,000 queries, on {report.common:,} queries that every"
        " model of the pool ran. A line is what a router reaches as alpha goes from 0 to 1, between two points a mix of"
        " them; a circle is one model for all queries. Up and to the left is better. The axis is logarithmic, except"
        " for the shaded part at its left, which begins with free. The oracle knows the outcome: nobody can build it."
        " The figure beside a router is its mean accuracy along its curve, for spending from the cheapest model's to the"
        " best single one's."
    )
    if len(report.singles) > _MOST_NAMED:
        text += " Of so many models only those are named that no cheaper one beats."
    return text + (f" Without a price and so not drawn: {', '.join(map(plain, unpriced))}." if unpriced else "")


def _draw(figure: Figure, report: Report) -> None:
    scale, lines, points = scale_of(report), swept(report), spots(report)
    ax = axes(figure, 0.65, 2.45 if lines else 0.3, 0.62, 0.3)
    heights = [value for curve in lines for value in curve.accuracy] + [spot.accuracy for spot in points]
    pad = max(0.05 * (max(heights) - min(heights)), 0.01)
    ax.set_xlim(-0.03, 1.05)
    ax.set_ylim(min(heights) - pad, max(heights) + 1.6 * pad)
    percent_axis(ax.yaxis, max(ax.get_ylim()[0], 0.0), min(ax.get_ylim()[1], 1.0))
    ax.set_title("answers right", loc="left", fontsize=10)
    ax.set_xlabel("US dollars per 1,000 queries")
    marks = scale.ticks()
    ticks(ax.xaxis, [place for place, _ in marks], [text for _, text in marks])
    if 0 < scale.foot < 1:
        ax.axvspan(-0.03, scale.foot, color=SOFT, lw=0, zorder=0)
        below: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "top", "fontsize": 9}
        ax.annotate(
            "linear", (0.53 * scale.foot, ax.get_ylim()[0]), (0, -7), color=MUTED, annotation_clip=False, **below
        )
    paths = [path(curve, scale) for curve in lines]
    for rank, (curve, (x, y)) in enumerate(zip(lines, paths, strict=True)):
        look = line_of(curve.router)
        ax.plot(x, y, zorder=4 + (curve.router == OURS) - 0.01 * rank, **_stroke(look))
    _dots(ax, lines, scale)
    _spots(ax, points, scale, paths)
    if lines:
        _key(figure, lines)


def path(curve: Curve, scale: CostScale) -> tuple[list[float], list[float]]:
    """A curve's line: between two points a mix of them, which on this axis is no straight one."""
    x, y = [scale.place(curve.usd_per_1k[0])], [curve.accuracy[0]]
    legs = list(zip(curve.usd_per_1k, curve.accuracy, strict=True))
    for (usd0, right0), (usd1, right1) in pairwise(legs):
        for step in range(1, 25):
            # Finer at the dear end of a leg in the linear foot than a straight division would be.
            share = (step / 24) ** 2
            x.append(scale.place(usd0 + share * (usd1 - usd0)))
            y.append(right0 + share * (right1 - right0))
    return x, y


def _stroke(look: Line) -> dict[str, Any]:
    style: Any = (0, look.dashes) if look.dashes else "-"
    return {"color": look.colour, "linewidth": look.width, "linestyle": style}


def _dots(ax: Axes, lines: Sequence[Curve], scale: CostScale) -> None:
    """Our own alphas, which the other lines have no room for."""
    for curve in lines:
        if curve.router == OURS or len(curve.usd_per_1k) == 1:
            x = [scale.place(usd) for usd in curve.usd_per_1k]
            ax.plot(x, curve.accuracy, "o", ms=4, color=line_of(curve.router).colour, mec=PAPER, mew=0.6, zorder=6)


def _spots(
    ax: Axes, points: Sequence[Spot], scale: CostScale, paths: Sequence[tuple[list[float], list[float]]]
) -> None:
    for spot in points:
        place = scale.place(spot.usd)
        if spot.model is not None:
            ax.plot(place, spot.accuracy, "o", ms=6, mfc=PAPER, mec=INK, mew=1.2, zorder=7)
        for router in spot.routers:
            marker = MARKERS.get(router, "P")
            size = 13 if marker == "*" else 10
            ax.plot(place, spot.accuracy, marker, ms=size, mfc="none", mec=INK, mew=1.1, zorder=8, clip_on=False)
    names = distinct([spot.model for spot in points if spot.model is not None], 26)
    chosen = sorted(points, key=lambda spot: (not spot.routers, not _unbeaten(spot, points), -spot.accuracy))
    if len(points) > _MOST_NAMED:
        chosen = [spot for spot in chosen if spot.routers or _unbeaten(spot, points)]
    named = [
        (scale.place(spot.usd), spot.accuracy, "\n".join([*([names[spot.model]] if spot.model else []), *spot.routers]))
        for spot in chosen[:_MOST_NAMED]
    ]
    name_points(ax, named, [(scale.place(spot.usd), spot.accuracy) for spot in points], paths)


def _unbeaten(spot: Spot, points: Sequence[Spot]) -> bool:
    return not any(one.accuracy > spot.accuracy and one.usd <= spot.usd for one in points if one.model)


def _key(figure: Figure, lines: Sequence[Curve]) -> None:
    """The routers beside the axes, best first, each with its line and its area."""
    width, height = figure.get_size_inches()
    left, top = width - 2.25, height - 1.0
    figure.text((width - 0.2) / width, top / height, "mean accuracy", ha="right", color=MUTED, fontsize=9)
    for rank, curve in enumerate(lines):
        y = top - 0.28 - 0.26 * rank
        look = line_of(curve.router)
        bar = figure.add_artist(_segment(left / width, (left + 0.32) / width, y / height, look))
        bar.set_transform(figure.transFigure)
        weight = "bold" if curve.router == OURS else "normal"
        how: dict[str, Any] = {"va": "center", "fontsize": 9.5, "fontweight": weight}
        figure.text((left + 0.42) / width, y / height, plain(curve.router), **how)
        area = "?" if curve.area is None else percent(curve.area)
        figure.text((width - 0.2) / width, y / height, area, ha="right", **how)


def _segment(x0: float, x1: float, y: float, look: Line) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([x0, x1], [y, y], **_stroke(look))
