"""Accuracy for cost: every router's curve, and every model of the pool alone. The terminal's version uses this too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from scope_edge.evaluation.plots import canvas
from scope_edge.evaluation.plots.canvas import INK, MUTED, OURS, PAPER, SOFT, Picture, line_of
from scope_edge.evaluation.plots.names import distinct, dollars, percent, plain
from scope_edge.evaluation.plots.portfolio import SMALL, ours
from scope_edge.evaluation.report import Curve, EvaluationReport, RoutingPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, TITLE = "accuracy-cost", "Accuracy for cost"
OTHER = "+"
_FOOT = 0.16
_MOST_TICKS = 7
_LETTERS = "abcdefghijklmnopqrst"
_SIGNS = {"oracle": "*", "random": "%"}


@dataclass(frozen=True, slots=True)
class CostScale:
    """Positions of costs on an axis from 0 to 1: logarithmic, with a linear foot for free and nearly free ones.

    Attributes:
        low, high: US dollars per 1,000 queries; logarithmic between them.
        foot: share of the axis below `low`; 0 if nothing is free, 1 if everything is.
    """

    low: float
    high: float
    foot: float

    @classmethod
    def of(cls, models: Sequence[float], others: Sequence[float] = ()) -> CostScale:
        """Return a scale for these costs. The models' costs set where it becomes logarithmic; mixtures may cost less."""
        paid = [usd for usd in (*models, *others) if usd > 0]
        if not paid:
            return cls(1.0, 2.0, 1.0)
        free = len(paid) < len(models) + len(others)
        least = min((usd for usd in models if usd > 0), default=min(paid)) if free else min(paid)
        high = 1.04 * max(paid)
        low = min(least * (0.7 if free else 0.9), high / 2)
        return cls(low, high, _FOOT if free else 0.0)

    def place(self, usd: float) -> float:
        """Return a cost's position, from 0 to 1."""
        if usd <= self.low:
            return self.foot * usd / self.low
        return self.foot + (1 - self.foot) * math.log(usd / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return positions and labels, "free" first."""
        if self.foot == 1:
            return [(0.0, "free")]
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for steps in ((1, 2, 5), (1, 3), (1,)):
            values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
            values = [usd for usd in values if self.low < usd <= self.high]
            if len(values) <= _MOST_TICKS:
                break
        values = values[:: -(-len(values) // _MOST_TICKS) or 1]
        free = [(0.0, "free")] if self.foot else []
        return free + [(self.place(usd), dollars(usd)) for usd in values]


@dataclass(frozen=True, slots=True)
class Spot:
    """A point with a cost: the single model there, if any, and the routers without alpha."""

    model: str | None
    routers: tuple[str, ...]
    usd: float
    accuracy: float


def accuracy_cost(report: EvaluationReport) -> Picture:
    """Return the picture of a report's curves."""
    rows = canvas.rows_of((*report.routing, *report.singles))
    priced = [one for one in (*report.routing, *report.singles) if one.usd_per_1k is not None]
    if not priced:
        why = (
            "No two models of the pool have a known cost on the same queries, so accuracy cannot be compared with cost."
        )
        return canvas.nothing(NAME, TITLE, why, rows)
    # The two keys beside the axes must have room.
    rows_beside = len(key_of(signs_of(report, spots(report))))
    height = max(5.6, 1.5 + 0.18 * rows_beside + 0.24 * len(swept(report)))
    draw = partial(_draw, report=report)
    return Picture(NAME, TITLE, headline(report), _caption(report), rows, (10.6, height), draw)


def swept(report: EvaluationReport) -> list[Curve]:
    """Return the curves of the routers that follow alpha, the one with the largest area first."""
    routers = {point.router for point in report.routing if point.alpha is not None}
    found = [curve for router, curve in report.curve.items() if router in routers and curve.usd_per_1k]
    return sorted(found, key=lambda curve: (curve.area is None, -(curve.area or 0.0), curve.router))


def spots(report: EvaluationReport) -> list[Spot]:
    """Return single models and routers without alpha whose cost is known; those on one point share a spot."""
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


def scale_of(report: EvaluationReport) -> CostScale:
    """Return the cost axis of a report's points."""
    singles = [one.usd_per_1k for one in report.singles if one.usd_per_1k is not None]
    return CostScale.of(singles, [one.usd_per_1k for one in report.routing if one.usd_per_1k is not None])


def headline(report: EvaluationReport) -> str:
    """Return the curve's finding, in a line or two."""
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


def _unbeaten(spot: Spot, points: Sequence[Spot]) -> bool:
    return not any(one.accuracy > spot.accuracy and one.usd <= spot.usd for one in points if one.model)


def signs_of(report: EvaluationReport, found: Sequence[Spot]) -> dict[Spot, str]:
    """Return the sign of every spot: a letter for each model by rising cost, "*" the oracle, "%" random, "@" another router.

    In a large pool only unbeaten models and those chosen often have letters; the rest share "+".
    """

    def share(spot: Spot) -> float:
        return max((point.portfolio.get(spot.model or "", 0.0) for point in ours(report)), default=0.0)

    models = [spot for spot in found if spot.model is not None]
    if len(models) > len(_LETTERS):
        models = [spot for spot in models if _unbeaten(spot, found) or share(spot) >= SMALL]
    chosen = sorted(models, key=lambda spot: (not _unbeaten(spot, found), -share(spot)))[: len(_LETTERS)]
    by_cost = sorted(chosen, key=lambda spot: (spot.usd, spot.model))
    signs = {spot: OTHER if spot.model else _SIGNS.get(spot.routers[0], "@") for spot in found}
    return signs | dict(zip(by_cost, _LETTERS, strict=False))


def key_of(signs: Mapping[Spot, str]) -> list[tuple[str, str, str, str]]:
    """Return (sign, accuracy, cost, names) of every spot with a sign of its own: models by cost, then the rest."""
    names = distinct([spot.model for spot in signs if spot.model is not None], 28)
    rows = []
    for spot in sorted(signs, key=lambda spot: (spot.model is None, spot.usd, spot.model or spot.routers[0])):
        routers = ", ".join(spot.routers)
        name = routers if spot.model is None else names[spot.model] + (f" ({routers})" if routers else "")
        if signs[spot] != OTHER:
            rows.append((signs[spot], percent(spot.accuracy), dollars(spot.usd), name))
    return rows


def _caption(report: EvaluationReport) -> str:
    unpriced = [point.router for point in report.singles if point.usd_per_1k is None]
    text = (
        f"Share of answers right against cost, on {report.common:,} queries of {plain(report.data)} that every model of the pool ran."
        " A letter is a model alone; the line of a router goes through its alphas that no cheaper one beats. The oracle knows"
        " the outcomes and is the ceiling. The figure next to a router is its mean accuracy along its curve, for spending from"
        " the cheapest model's to the best single one's."
    )
    if len(report.singles) > len(_LETTERS):
        text += " In a pool this large only models that no cheaper one beats, and those chosen often, have a letter."
    return text + (f" Without a price and so not drawn: {', '.join(map(plain, unpriced))}." if unpriced else "")


def _draw(figure: Figure, report: EvaluationReport) -> None:
    scale, lines, points = scale_of(report), swept(report), spots(report)
    ax = figure.add_subplot(xlim=(-0.03, 1.05), title="answers right", xlabel="US dollars per 1,000 queries")
    ax.margins(y=0.08)
    canvas.percent_axis(ax.yaxis)
    canvas.ticks(ax.xaxis, *zip(*scale.ticks(), strict=True))
    if 0 < scale.foot < 1:
        ax.axvspan(-0.03, scale.foot, color=SOFT, lw=0, zorder=0)
        ax.text(scale.foot / 2, 0.01, "linear", transform=ax.get_xaxis_transform(), ha="center", color=MUTED)
    for rank, curve in enumerate(lines):
        area = "?" if curve.area is None else percent(curve.area)
        order = 4 + (curve.router == OURS) - 0.01 * rank
        ax.plot(*path(curve, scale), label=f"{area}  {plain(curve.router)}", zorder=order, **line_of(curve.router))
        if curve.router == OURS or len(curve.usd_per_1k) == 1:
            x = [scale.place(usd) for usd in curve.usd_per_1k]
            dots = {"color": line_of(curve.router)["color"], "mec": PAPER, "mew": 0.6, "zorder": 6}
            ax.plot(x, curve.accuracy, "o", markersize=4, **dots)
    signs = signs_of(report, points)
    _spots(ax, signs, scale)
    if lines:
        ax.add_artist(canvas.legend(ax, "mean accuracy along the curve"))
    rows = "\n".join(f"{sign}  {name}  {right}, {usd}" for sign, right, usd, name in key_of(signs))
    ax.annotate(rows, (1.02, 0), xycoords="axes fraction", fontsize=8.5, linespacing=1.35)


def _spots(ax: Axes, signs: Mapping[Spot, str], scale: CostScale) -> None:
    """Draw each sign in a circle, and a small circle for a model without a letter."""
    for spot, sign in signs.items():
        place, size = scale.place(spot.usd), 5 if sign == OTHER else 12
        ax.plot(place, spot.accuracy, "o", ms=size, mfc=PAPER, mec=INK, mew=1.1, zorder=7, clip_on=False)
        if sign != OTHER:
            ax.text(place, spot.accuracy, sign, ha="center", va="center_baseline", fontsize=8.5, zorder=8)


def path(curve: Curve, scale: CostScale) -> tuple[list[float], list[float]]:
    """Return a curve's line: between two points a mix of them, which is not straight on this axis."""
    x, y = [scale.place(curve.usd_per_1k[0])], [curve.accuracy[0]]
    legs = list(zip(curve.usd_per_1k, curve.accuracy, strict=True))
    for (usd0, right0), (usd1, right1) in pairwise(legs):
        for step in range(1, 25):
            # Steps are finer at the cheap end, where a logarithmic axis bends the line most.
            share = (step / 24) ** 2
            x.append(scale.place(usd0 + share * (usd1 - usd0)))
            y.append(right0 + share * (right1 - right0))
    return x, y
