"""The look of all pictures, and a picture as SVG and PNG: the same report gives the same bytes."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scope_edge.errors import MissingExtraError
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
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(text, int(width * 12.2))[:2]
    figure.text(
        0.14 / width,
        1 - 0.1 / height,
        "\n".join(lines),
        va="top",
        ha="left",
        fontsize=11,
        fontweight="bold",
        linespacing=1.25,
    )


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
    step = next((s for s in (0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 6.5), 0.25)
    first = int(low / step - 1e-9) + (low > 1e-9)
    ticks = [i * step for i in range(first, int(high / step + 1e-9) + 1)]
    axis.set_ticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks])


def ticks(axis: Any, values: Sequence[float], labels: Sequence[str]) -> None:
    """These ticks and no others, on any scale."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FixedFormatter(list(labels)))
    axis.set_minor_locator(NullLocator())
