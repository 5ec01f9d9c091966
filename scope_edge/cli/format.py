"""Numbers and tables for people. An unknown value is shown as "?", never as 0."""

from __future__ import annotations

import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from scope_edge.policy.infeasible import plainly

UNKNOWN = "?"
# Output that does not go to a terminal need not leave anything out for its width.
_UNLIMITED = 160
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column: its title, one cell for each row, and whether the cells are aligned on the right."""

    title: str
    cells: Sequence[str]
    right: bool = False

    @property
    def width(self) -> int:
        return max(map(columns_of, (self.title, *self.cells)))


def table(columns: Sequence[Column]) -> list[str]:
    """Return the lines of a table, its head first. Columns with neither a title nor a cell are left out."""
    shown = [column for column in columns if column.width]
    rows = zip(*((column.title, *column.cells) for column in shown), strict=True)
    return [_GAP.join(map(_padded, row, shown)).rstrip() for row in rows]


def grid(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table given by rows. A title that begins with ">" belongs to a column aligned on the right."""
    cells = list(zip(*rows, strict=True)) or [()] * len(titles)
    return table(
        [Column(t.removeprefix(">"), column, t.startswith(">")) for t, column in zip(titles, cells, strict=True)]
    )


def facts(values: Mapping[str, str]) -> list[str]:
    """Return names and values below each other, without those that have no value."""
    return grid(("", ""), [(f"  {name}", value) for name, value in values.items() if value])[1:]


def table_width(columns: Sequence[Column]) -> int:
    """Return the width of a table in columns of the screen."""
    widths = [column.width for column in columns if column.width]
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def screen_width() -> int:
    """Return the width of the terminal (or the variable COLUMNS); a large width if the output is not a terminal."""
    import shutil  # it takes 2 ms, and most commands print no table

    return shutil.get_terminal_size((_UNLIMITED if not is_terminal(sys.stdout) else 80, 24)).columns


def is_terminal(stream: object) -> bool:
    """Return whether the stream is a terminal."""
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty())


def columns_of(text: str) -> int:
    """Return the width of a text in columns of the screen: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def wrapped(line: str, width: int) -> list[str]:
    """Fold prose to the width; rows of a table already fit and stay as they are."""
    if columns_of(line) <= width or _GAP in line or "\x1b" in line:
        return [line]
    return textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def folded(lines: Iterable[str]) -> str:
    """Join lines into one text, its prose folded to the screen's width."""
    width = screen_width()
    return "\n".join(piece for line in lines for piece in wrapped(line, width))


def clipped(text: str, width: int) -> str:
    """Return the text, cut to `width` characters."""
    return text if len(text) <= width else text[: width - 3] + "..."


def percent(p: float | None) -> str:
    """Format a probability in percent, to the tenth; never as 0 or 100, since no estimate is certain."""
    if p is None:
        return UNKNOWN
    text = f"{100 * p:.1f}"
    return {"0.0": "<0.1", "100.0": ">99.9"}.get(text, text)


def count(value: float | None) -> str:
    """Format a number of tokens: 0 to 9999 as they are, then 12.3k, 4.56M."""
    if value is None:
        return UNKNOWN
    if value < 9999.5:
        return f"{value:.0f}"
    for size, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if value < 999.5 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.1e}"


def usd(value: float | None) -> str:
    """Format US dollars to two digits, $0.000084 or $12.30; 0 is "free"."""
    if not value:
        return UNKNOWN if value is None else "free"
    if value >= 0.995:
        return f"${value:,.2f}" if value < 1e9 else f"${value:.1e}"
    return "$" + (plainly(Decimal(f"{value:.2g}")) if value >= 1e-9 else f"{value:.1e}")


def seconds(value: float | None) -> str:
    """Format seconds to two digits, without a fraction from 10 on."""
    if value is None:
        return UNKNOWN
    if value >= 1e6:
        return f"{value:.1e}"
    return f"{value:.0f}" if value >= 10 else plainly(Decimal(f"{value:.2g}"))


def duration(value: float) -> str:
    """Format a time to wait in words: "40 seconds", "12 minutes", "2.5 hours"."""
    if value >= 5400:
        return f"{value / 3600:.1f} hours"
    return f"{value / 60:.0f} minutes" if value >= 90 else f"{value:.0f} seconds"


def plural(number: float, word: str, several: str | None = None) -> str:
    """Return "1 model" or "2 models"; `several` is the plural of a word that does not take an s."""
    return f"{number:g} {word}" if number == 1 else f"{number:g} {several or word + 's'}"


def _padded(cell: str, column: Column) -> str:
    fill = " " * (column.width - columns_of(cell))
    return fill + cell if column.right else cell + fill
