"""Numbers, tables and colours for people. What is not known is shown as "?", never as 0."""

from __future__ import annotations

import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from scope_edge.policy.infeasible import plainly

UNKNOWN = "?"
# Where output does not go to a terminal nothing has to be dropped for its width.
_UNLIMITED = 160
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column: its title, one cell a row, and whether they line up on the right, as numbers do."""

    title: str
    cells: Sequence[str]
    right: bool = False

    @property
    def width(self) -> int:
        return max(map(columns_of, (self.title, *self.cells)))


def table(columns: Sequence[Column]) -> list[str]:
    """The lines of a table, its head first. Columns without a title and a cell are left out."""
    shown = [column for column in columns if column.width]
    rows = zip(*((column.title, *column.cells) for column in shown), strict=True)
    return [_GAP.join(map(_padded, row, shown)).rstrip() for row in rows]


def table_width(columns: Sequence[Column]) -> int:
    """Columns of the screen a table takes."""
    widths = [column.width for column in columns if column.width]
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def screen_width() -> int:
    """Columns of the terminal (or of the variable COLUMNS); plenty when the output is no terminal."""
    return shutil.get_terminal_size((_UNLIMITED if not is_terminal(sys.stdout) else 80, 24)).columns


def is_terminal(stream: object) -> bool:
    """Whether a person looks at it."""
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty())


def columns_of(text: str) -> int:
    """Columns of the screen the text takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def wrapped(line: str, width: int) -> list[str]:
    """Prose folded to the width; rows of a table are fitted before and stay as they are."""
    if columns_of(line) <= width or _GAP in line or "\x1b" in line:
        return [line]
    return textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def folded(lines: Iterable[str]) -> str:
    """Lines as one text, its prose folded to the screen's width."""
    width = screen_width()
    return "\n".join(piece for line in lines for piece in wrapped(line, width))


def clipped(text: str, width: int) -> str:
    """The text, its end cut off where it is longer than `width` characters."""
    return text if len(text) <= width else text[: width - 3] + "..."


def percent(p: float | None) -> str:
    """A probability in percent, to the tenth; never 0 or 100, which no estimate is."""
    if p is None:
        return UNKNOWN
    text = f"{100 * p:.1f}"
    return {"0.0": "<0.1", "100.0": ">99.9"}.get(text, text)


def count(value: float | None) -> str:
    """Tokens: 0 to 9999 as they are, then 12.3k, 4.56M."""
    if value is None:
        return UNKNOWN
    if value < 9999.5:
        return f"{value:.0f}"
    for size, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if value < 999.5 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.1e}"


def usd(value: float | None) -> str:
    """US dollars to two digits, $0.000084 or $12.30; "free" for what costs nothing."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "free"
    if value >= 0.995:
        return f"${value:,.2f}" if value < 1e9 else f"${value:.1e}"
    return "$" + (plainly(Decimal(f"{value:.2g}")) if value >= 1e-9 else f"{value:.1e}")


def seconds(value: float | None) -> str:
    """Seconds to two digits, from 100 on whole."""
    if value is None:
        return UNKNOWN
    if value >= 1e6:
        return f"{value:.1e}"
    return f"{value:.0f}" if value >= 10 else plainly(Decimal(f"{value:.2g}"))


def duration(value: float) -> str:
    """A time to wait, in words: "40 seconds", "12 minutes", "2.5 hours"."""
    if value >= 5400:
        return f"{value / 3600:.1f} hours"
    return f"{value / 60:.0f} minutes" if value >= 90 else f"{value:.0f} seconds"


def plural(number: float, word: str, several: str | None = None) -> str:
    """ "1 model", "2 models"; `several` is for words that take no s."""
    return f"{number:g} {word}" if number == 1 else f"{number:g} {several or word + 's'}"


def _padded(cell: str, column: Column) -> str:
    fill = " " * (column.width - columns_of(cell))
    return fill + cell if column.right else cell + fill
