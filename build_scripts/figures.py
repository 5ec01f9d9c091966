"""Put measured tables into a document, between its `<!-- figures -->` marks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def write_figures(path: Path, text: str) -> None:
    """Replace what stands between the marks of `path` by `text`."""
    document = path.read_text("utf-8")
    before, begun, rest = document.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        sys.exit(f"{path}: no {BEGIN} ... {END} to write between; add the two lines")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")
