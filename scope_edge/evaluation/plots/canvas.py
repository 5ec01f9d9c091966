"""Pictures and their look: colours, a router's line, SVG and PNG. The same report gives the same bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from scope_edge.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS = "scope-edge"
INK, MUTED, GRID, PAPER, SOFT = "#1c1d22", "#62656e", "#dfe1e6", "#fefefe", "#eef0f4"
# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, VERMILLION, GREEN, SKY, PURPLE, ORANGE = "#0072b2", "#d55e00", "#009e73", "#56b4e9", "#cc79a7", "#e69f00"
# Router -> colour, width in points, line style; the same in every picture.
_LINES: Mapping[str, tuple[str, float, Any]] = {
    OURS: (BLUE, 2.8, "-"),
    "scope-paper": (VERMILLION, 1.8, "-"),
    "knn": (GREEN, 1.5, "-"),
    "knn5": (GREEN, 1.5, ":"),
    "logreg": (PURPLE, 1.5, "-"),
    "svm": (PURPLE, 1.5, "--"),
    "mlp": (ORANGE, 1.5, "-"),
    "gboost": (ORANGE, 1.5, "--"),
}
_STYLE: dict[Any, Any] = {
    # A $ in an untrusted name is a dollar, not the beginning of a formula.
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.0,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": PAPER,
    "figure.titlesize": 11.0,
    "figure.titleweight": "bold",
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "scope-edge",
}
_DPI = 160


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a report. Making one needs no matplotlib.

    Attributes:
        name: of its files. headline: its finding, drawn above it. caption: how to read it, and its caveats.
        rows: the numbers, unrounded, as in the report. size: inches. draw: draws onto an empty figure of that size.
    """

    name: str
    title: str
    headline: str
    caption: str
    rows: tuple[Mapping[str, Any], ...]
    size: tuple[float, float]
    draw: Callable[[Figure], None]


def rows_of(records: Iterable[Any]) -> tuple[Mapping[str, Any], ...]:
    """Return dataclasses of a report as rows."""
    return tuple(asdict(one) for one in records)


def nothing(name: str, title: str, reason: str, rows: tuple[Mapping[str, Any], ...] = ()) -> Picture:
    """Return a picture that says why there is nothing to see."""

    def draw(figure: Figure) -> None:
        figure.text(0.5, 0.42, reason, ha="center", va="center", color=MUTED, wrap=True)

    return Picture(name, title, "Nothing to show", reason, rows, (7.6, 1.7), draw)


def check_matplotlib() -> None:
    """Raise MissingExtraError if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError('pictures need matplotlib, which is not installed; pip install "scope-edge[plots]"')


def render(picture: Picture) -> tuple[bytes, bytes]:
    """Draw a picture; return it as SVG and as PNG. Raises MissingExtraError."""
    check_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(), warnings.catch_warnings():
        # For a glyph that the font lacks, a box is drawn; the JSON has the name.
        warnings.simplefilter("ignore", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=picture.size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
        FigureCanvasAgg(figure)
        figure.suptitle(picture.headline, x=0.012, ha="left", wrap=True)
        picture.draw(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
        anonymous = {"Creator": None, "Date": None, "Format": None, "Type": None}
        figure.savefig(svg, format="svg", metadata=anonymous)
    return svg.getvalue(), png.getvalue()


def line_of(router: str) -> dict[str, Any]:
    """Return a router's line as arguments of `Axes.plot`; an unknown router always gets the same line."""
    unknown = (SKY, 1.5, ("-", "--", ":")[sum(router.encode("utf-8", "replace")) % 3])
    colour, width, style = _LINES.get(router, unknown)
    return {"color": colour, "linewidth": width, "linestyle": style}


def legend(ax: Axes, title: str, top: float = 1.0, **options: Any) -> Any:
    """Write a legend to the right of the axes, with our own router in bold. top: its upper edge, as a share of the axes."""
    made = ax.legend(
        title=title, loc="upper left", bbox_to_anchor=(1.01, top), alignment="left", borderaxespad=0.0, **options
    )
    made.get_title().set_color(MUTED)
    for text in made.get_texts():
        if OURS in text.get_text().split():
            text.set_fontweight("bold")
    return made


def percent_axis(axis: Any) -> None:
    """Label shares in percent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=None))


def ticks(axis: Any, values: Sequence[float], labels: Sequence[str]) -> None:
    """Set these ticks and no others."""
    axis.set_ticks(values, labels)
    axis.set_ticks([], minor=True)
