"""Accuracy for cost in plain characters."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from scope_edge.evaluating.report import Report, RoutingPoint
from scope_edge.plotting.cost_scale import CostScale
from scope_edge.plotting.curve import Spot, headline, path, scale_of, spots, swept
from scope_edge.plotting.names import distinct, dollars, percent, plain
from scope_edge.plotting.palette import OURS
from scope_edge.plotting.portfolio import ours

NARROWEST = 50
OTHER = "+"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MOST, _NAME = 20, 28
_ROWS, _MARGIN = 15, 7


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters that are drawn with."""

    point: str
    line: str
    across: str
    up: str
    corner: str
    bar: str
    said: str


UNICODE = Marks("\u25cf", "\u00b7", "\u2500", "\u2502", "\u2514", "\u2588", "\u25c6")
ASCII = Marks("#", ".", "-", "|", "+", "=", "|")


def folded(text: str, width: int) -> list[str]:
    """Prose in lines of the width."""
    return textwrap.wrap(text, max(width, NARROWEST), break_on_hyphens=False)


def letters(points: Sequence[RoutingPoint], costs: Mapping[str, float | None]) -> dict[str, str]:
    """A letter for each model, by what it costs alone; in a large pool for those only that are chosen most, "+" for the rest.

    Args: points: of the router whose choices count. costs: model -> US dollars per 1,000 queries with it alone, if known.
    """
    share = {model: max((point.portfolio.get(model, 0.0) for point in points), default=0.0) for model in costs}

    def dear(model: str) -> tuple[bool, float, str]:
        return costs[model] is None, costs[model] or 0.0, model

    chosen = sorted(costs, key=lambda model: (-share[model], dear(model)))[:_MOST]
    return dict.fromkeys(costs, OTHER) | dict(zip(sorted(chosen, key=dear), _LETTERS, strict=False))


def curve_lines(report: Report, width: int = 80, marks: Marks = UNICODE) -> list[str]:
    """scope-edge's curve and the models as letters; what they are, and what the other routers are worth, below."""
    found, curves = spots(report), swept(report)
    if not found and not curves:
        return folded("Accuracy for cost: not known, as choices were not replayed, or nothing has a price.", width)
    signs = letters(ours(report), {point.router: point.usd_per_1k for point in report.singles})
    scale = scale_of(report)
    heights = [spot.accuracy for spot in found] + [right for curve in curves for right in curve.accuracy]
    sheet = _Sheet.of(max(width, NARROWEST) - _MARGIN - 1, min(heights), max(heights))
    own = next((curve for curve in curves if curve.router == OURS), None)
    if own is not None:
        sheet.line(list(zip(*path(own, scale), strict=True)), marks.line)
        for usd, right in zip(own.usd_per_1k, own.accuracy, strict=True):
            sheet.put(scale.place(usd), right, marks.point)
    for spot in sorted(found, key=lambda spot: spot.accuracy):
        sheet.put(scale.place(spot.usd), spot.accuracy, _sign(spot, signs))
    told = f"{marks.point} {OURS} as alpha goes from 0 to 1" if own is not None else ""
    worth = ", ".join(f"{plain(curve.router)} {percent(curve.area)}" for curve in curves if curve.area is not None)
    return [
        *folded(headline(report), width),
        "",
        f"{'right':>{_MARGIN - 1}}  {told}".rstrip(),
        *sheet.lines(marks),
        *_cost_axis(scale, sheet.width),
        *_key(found, signs, width),
        *(folded(f"mean accuracy along the curve: {worth}", width) if worth else []),
    ]


@dataclass(frozen=True, slots=True)
class _Sheet:
    """Characters in rows, the uppermost first; places go from 0 to 1, heights from low to high."""

    cells: list[list[str]]
    low: float
    high: float

    @classmethod
    def of(cls, width: int, low: float, high: float) -> _Sheet:
        if high - low < 0.01:
            low, high = low - 0.005, high + 0.005
        return cls([[" "] * width for _ in range(_ROWS)], low, high)

    @property
    def width(self) -> int:
        return len(self.cells[0])

    def put(self, place: float, height: float, sign: str) -> None:
        row = round((self.high - height) / (self.high - self.low) * (_ROWS - 1))
        self.cells[row][round(place * (self.width - 1))] = sign

    def line(self, points: Sequence[tuple[float, float]], sign: str) -> None:
        """A sign in every column from point to point."""
        for (x0, y0), (x1, y1) in pairwise(points):
            steps = 1 + int(abs(x1 - x0) * self.width)
            for step in range(steps + 1):
                self.put(x0 + step / steps * (x1 - x0), y0 + step / steps * (y1 - y0), sign)

    def lines(self, marks: Marks) -> list[str]:
        """The rows with an accuracy at every fourth or so, and the axis below."""
        found = []
        for i, row in enumerate(self.cells):
            height = self.high - i / (_ROWS - 1) * (self.high - self.low)
            label = percent(height) if i % 7 == 0 else ""
            found.append(f"{label:>{_MARGIN - 1}} {marks.up}{''.join(row)}".rstrip())
        return [*found, " " * _MARGIN + marks.corner + marks.across * self.width]


def _cost_axis(scale: CostScale, width: int) -> list[str]:
    """What is written below the axis: the ticks that have room, and the unit."""
    line = ""
    for place, text in scale.ticks():
        start = max(0, min(round(place * (width - 1)) - len(text) // 2, width - len(text)))
        if start >= len(line) + 2 or not line:
            line = line.ljust(start) + text
    return [" " * (_MARGIN + 1) + line, " " * (_MARGIN + 1) + "US dollars per 1,000 queries"]


def _sign(spot: Spot, signs: Mapping[str, str]) -> str:
    if spot.model is not None:
        return signs[spot.model]
    return {"oracle": "*", "random": "%"}.get(spot.routers[0], "@")


def _key(found: Sequence[Spot], signs: Mapping[str, str], width: int) -> list[str]:
    """One line a spot: sign, accuracy, cost, names; models by cost, then the rest. Those without a letter are counted."""
    names = distinct([spot.model for spot in found if spot.model is not None], _NAME)
    order = sorted(found, key=lambda spot: (spot.model is None, spot.usd, spot.model or spot.routers[0]))
    lines = []
    for spot in order:
        sign, routers = _sign(spot, signs), ", ".join(spot.routers)
        if sign != OTHER:
            name = routers if spot.model is None else names[spot.model] + (f" ({routers})" if routers else "")
            lines.append(f"{sign} {percent(spot.accuracy):>6} {dollars(spot.usd):>8}  {name}"[: max(width, NARROWEST)])
    left = sum(_sign(spot, signs) == OTHER for spot in found)
    return [*lines, f"{OTHER} {left} others"] if left else lines
