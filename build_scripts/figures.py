"""Measured tables as markdown, put into a document between its `<!-- figures -->` marks (`<!-- figures: NAME -->`, one of several)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

END = "<!-- /figures -->"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def write_figures(path: Path, text: str, name: str | None = None) -> None:
    """Replace what stands between the marks of `path` (those of that name) by `text`."""
    begin = f"<!-- figures: {name} -->" if name else "<!-- figures -->"
    document = path.read_text("utf-8")
    before, begun, rest = document.partition(begin)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        sys.exit(f"{path}: no {begin} ... {END} to write between; add the two lines")
    path.write_text(f"{before}{begin}\n{text}\n{END}{after}", "utf-8")
