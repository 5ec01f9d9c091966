"""What a picture is: what it says, the numbers it shows, and how it is drawn. Making one needs no matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from scope_edge.plotting.palette import MUTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a report.

    Attributes:
        name: of its files. title: what it is. headline: what is to be seen, drawn above it. caption: how to read it, and
            its caveats.
        rows: the numbers, unrounded, as the report has them. size: inches. draw: onto an empty figure of that size.
    """

    name: str
    title: str
    headline: str
    caption: str
    rows: tuple[Row, ...]
    size: tuple[float, float]
    draw: Callable[[Figure], None]


def rows_of(records: Iterable[Any]) -> tuple[Row, ...]:
    """Dataclasses of a report as rows."""
    return tuple(asdict(one) for one in records)


def nothing(name: str, title: str, reason: str, rows: tuple[Row, ...] = ()) -> Picture:
    """The picture of what is not there: it says why."""

    def draw(figure: Figure) -> None:
        figure.text(0.5, 0.42, reason, ha="center", va="center", color=MUTED, wrap=True)

    return Picture(name, title, "Nothing to show", reason, rows, (7.6, 1.7), draw)
