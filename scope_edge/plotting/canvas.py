"""The look of all pictures, and a picture as SVG and PNG: the same report gives the same bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from scope_edge.errors import MissingExtraError
from scope_edge.plotting.labels import Box, Named, placed
from scope_edge.plotting.palette import GRID, INK, MUTED, PAPER
from scope_edge.plotting.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: dict[Any, Any] = {
    # Names are untrusted: a $ in one is a dollar, not the beginning of a formula.
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 10.0,
    "axes.edgecolor": MUTED,
    "axes.facecolor": PAPER,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "figure.facecolor": PAPER,
    "figure.dpi": 100.0,
    "savefig.facecolor": PAPER,
    "lines.solid_capstyle": "round",
    "hatch.color": GRID,
    "hatch.linewidth": 0.8,
    "svg.fonttype": "path",
    "svg.hashsalt": "scope-edge",
}
_DPI = 160
_HEADLINE_INCHES = 0.55
# Points of print between the points that stand for a line.
_NEAR = 3.0


@dataclass(frozen=True, slots=True)
class Rendered:
    """A picture's files."""

    svg: bytes
    png: bytes


def check_matplotlib() -> None:
    """Raises MissingExtraError when matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            'pictures need matplotlib, which is not installed; pip install "scope-edge[plots]"'
        ) from error


def render(picture: Picture) -> Rendered:
    """Draw a picture. Raises MissingExtraError."""
    check_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Of a glyph that the font has not: a box is drawn, and the data have the name.
        warnings.simplefilter("ignore", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=picture.size)
        FigureCanvasAgg(figure)
        _headline(figure, picture.headline)
        picture.draw(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
        nobody = {"Creator": None, "Date": None, "Format": None, "Type": None}
        figure.savefig(svg, format="svg", metadata=nobody)
    return Rendered(svg.getvalue(), png.getvalue())


def _headline(figure: Figure, text: str) -> None:
    """The headline, broken where the figure ends."""
    width, height = figure.get_size_inches()
    lines = [""]
    shown = figure.text(0.14 / width, 1 - 0.1 / height, "", va="top", fontsize=11, fontweight="bold", linespacing=1.25)
    for word in text.split():
        shown.set_text(f"{lines[-1]} {word}".strip())
        if lines[-1] and shown.get_window_extent().width > (width - 0.3) * figure.dpi:
            lines.append(word)
        else:
            lines[-1] = shown.get_text()
    shown.set_text("\n".join(lines[:2]))


def axes(figure: Figure, left: float, right: float, bottom: float, top: float = 0.1) -> Axes:
    """Axes with these margins in inches, below the headline."""
    width, height = figure.get_size_inches()
    top += _HEADLINE_INCHES
    return figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))


def panels(figure: Figure, count: int, left: float, gap: float, bottom: float, top: float = 0.1) -> list[Axes]:
    """Axes of equal size side by side, margins in inches."""
    width = figure.get_size_inches()[0]
    each = (width - left - 0.25 - gap * (count - 1)) / count
    return [
        axes(figure, left + i * (each + gap), width - left - i * (each + gap) - each, bottom, top) for i in range(count)
    ]


def percent_axis(axis: Any, low: float = 0.0, high: float = 1.0) -> None:
    """Shares from `low` to `high`, labelled in percent at round steps."""
    step = next((s for s in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 6.5), 0.25)
    first = int(low / step - 1e-9) + (low > 1e-9)
    ticks = [i * step for i in range(first, int(high / step + 1e-9) + 1)]
    axis.set_ticks(ticks, [f"{100 * tick:.3g}%" for tick in ticks])


def ticks(axis: Any, values: Sequence[float], labels: Sequence[str]) -> None:
    """These ticks and no others, on any scale."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FixedFormatter(list(labels)))
    axis.set_minor_locator(NullLocator())


def name_points(
    ax: Axes,
    named: Sequence[tuple[float, float, str]],
    points: Sequence[tuple[float, float]],
    lines: Sequence[tuple[Sequence[float], ...]],
) -> None:
    """Write names beside points (x, y, name) so that they cover no point, line or name, with a thin line to far ones."""
    inch = 72 / ax.figure.dpi

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = ax.transData.transform((x, y))
        return float(across) * inch, float(up) * inch

    texts = [ax.text(0, 0, name, fontsize=9, linespacing=1.1, zorder=9) for _, _, name in named]
    extents = [text.get_window_extent() for text in texts]
    items = [
        Named(*at(x, y), extent.width * inch, extent.height * inch)
        for (x, y, _), extent in zip(named, extents, strict=True)
    ]
    frame = ax.get_window_extent()
    boxes = placed(
        items,
        [Box(x - 7, y - 7, x + 7, y + 7) for x, y in (at(*point) for point in points)],
        sorted(set().union(*(_dense([at(*point) for point in zip(*line, strict=True)]) for line in lines))),
        Box(frame.x0 * inch + 2, frame.y0 * inch + 2, frame.x1 * inch + 6, frame.y1 * inch + 4),
    )
    back = ax.transData.inverted()
    for text, item, box in zip(texts, items, boxes, strict=True):
        text.set_position(tuple(back.transform((box.x0 / inch, box.y0 / inch))))
        text.set_verticalalignment("bottom")
        near = (min(max(item.x, box.x0), box.x1), min(max(item.y, box.y0), box.y1))
        if (near[0] - item.x) ** 2 + (near[1] - item.y) ** 2 > 9.5**2:
            ends = back.transform([(item.x / inch, item.y / inch), (near[0] / inch, near[1] / inch)])
            ax.plot(ends[:, 0], ends[:, 1], color=MUTED, lw=0.7, zorder=3)


def _dense(line: Sequence[tuple[float, float]]) -> set[tuple[float, float]]:
    """A line as points no further than a few points of print from each other, and no nearer."""
    found = set()
    for (x0, y0), (x1, y1) in pairwise(line):
        steps = max(1, int(max(abs(x1 - x0), abs(y1 - y0)) / _NEAR))
        for step in range(steps + 1):
            x, y = x0 + step / steps * (x1 - x0), y0 + step / steps * (y1 - y0)
            found.add((round(x / _NEAR) * _NEAR, round(y / _NEAR) * _NEAR))
    return found
