"""The cost curve in plain characters, for a terminal. Needs no matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from scope_edge.evaluation.plots.canvas import OURS
from scope_edge.evaluation.plots.curve import OTHER, CostScale, headline, key_of, path, scale_of, signs_of, spots, swept
from scope_edge.evaluation.plots.names import percent, plain
from scope_edge.evaluation.report import EvaluationReport

_NARROWEST = 50
_ROWS, _MARGIN = 15, 7


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters of a drawing."""

    point: str
    line: str
    across: str
    up: str
    corner: str


UNICODE = Marks("\u25cf", "\u00b7", "\u2500", "\u2502", "\u2514")
ASCII = Marks("#", ".", "-", "|", "+")


def text_lines(report: EvaluationReport, width: int = 80, marks: Marks = UNICODE) -> list[str]:
    """Return the curve of scope-edge with the models as letters; below it, a key and the other routers' accuracy.

    Lines are at most `width` columns wide (at least 50). marks: UNICODE or ASCII.
    """
    width = max(width, _NARROWEST)
    found, curves = spots(report), swept(report)
    if not found and not curves:
        return _folded("Accuracy for cost: not known, as choices were not replayed or no model has a price.", width)
    signs, scale = signs_of(report, found), scale_of(report)
    heights = [spot.accuracy for spot in found] + [right for curve in curves for right in curve.accuracy]
    sheet = _Sheet.of(width - _MARGIN - 1, min(heights), max(heights))
    own = next((curve for curve in curves if curve.router == OURS), None)
    if own is not None:
        sheet.line(list(zip(*path(own, scale), strict=True)), marks.line)
        for usd, right in zip(own.usd_per_1k, own.accuracy, strict=True):
            sheet.put(scale.place(usd), right, marks.point)
    for spot in sorted(found, key=lambda spot: spot.accuracy):
        sheet.put(scale.place(spot.usd), spot.accuracy, signs[spot])
    ours = f"{marks.point} {OURS} as alpha goes from 0 to 1" if own is not None else ""
    worth = ", ".join(f"{plain(curve.router)} {percent(curve.area)}" for curve in curves if curve.area is not None)
    others = list(signs.values()).count(OTHER)
    return [
        *_folded(headline(report), width),
        "",
        f"{'right':>{_MARGIN - 1}}  {ours}".rstrip(),
        *sheet.lines(marks),
        *_cost_axis(scale, sheet.width),
        *(f"{sign} {right:>6} {usd:>8}  {name}"[:width] for sign, right, usd, name in key_of(signs)),
        *([f"{OTHER} {others} others"] if others else []),
        *(_folded(f"mean accuracy along the curve: {worth}", width) if worth else []),
    ]


def _folded(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


@dataclass(frozen=True, slots=True)
class _Sheet:
    """Characters in rows, from the top; horizontal positions go from 0 to 1, heights from low to high."""

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
        """Put a sign in every column from point to point."""
        for (x0, y0), (x1, y1) in pairwise(points):
            steps = 1 + int(abs(x1 - x0) * self.width)
            for step in range(steps + 1):
                self.put(x0 + step / steps * (x1 - x0), y0 + step / steps * (y1 - y0), sign)

    def lines(self, marks: Marks) -> list[str]:
        """Return the rows, every seventh with its accuracy, and the axis below."""
        found = []
        for i, row in enumerate(self.cells):
            height = self.high - i / (_ROWS - 1) * (self.high - self.low)
            label = percent(height) if i % 7 == 0 else ""
            found.append(f"{label:>{_MARGIN - 1}} {marks.up}{''.join(row)}".rstrip())
        return [*found, " " * _MARGIN + marks.corner + marks.across * self.width]


def _cost_axis(scale: CostScale, width: int) -> list[str]:
    """Return the lines below the axis: the ticks that fit, and the unit."""
    line = ""
    for place, text in scale.ticks():
        start = max(0, min(round(place * (width - 1)) - len(text) // 2, width - len(text)))
        if start >= len(line) + 2 or not line:
            line = line.ljust(start) + text
    return [" " * (_MARGIN + 1) + line, " " * (_MARGIN + 1) + "US dollars per 1,000 queries"]
