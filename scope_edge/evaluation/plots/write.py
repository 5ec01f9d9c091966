"""The files of an evaluation: every picture as SVG, PNG and JSON, and a page that shows them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

from scope_edge.evaluation.plots.canvas import Picture, check_matplotlib, render
from scope_edge.evaluation.plots.curve import accuracy_cost
from scope_edge.evaluation.plots.names import plain
from scope_edge.evaluation.plots.portfolio import portfolio
from scope_edge.evaluation.plots.predictions import adaptation, reliability
from scope_edge.evaluation.report import EvaluationReport
from scope_edge.fingerprinting.answer_log import file_name
from scope_edge.storage.files import write_atomically

# In the order of the page.
PICTURES: tuple[Callable[[EvaluationReport], Picture], ...] = (accuracy_cost, portfolio, reliability, adaptation)
_HEAD = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>scope-edge eval</title><style>'
    "body { max-width: 62rem; margin: auto; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif } img { max-width: 100% }"
    "</style></head><body>"
)


def write_pictures(reports: Mapping[str, EvaluationReport], folder: Path) -> tuple[Path, ...]:
    """Write every picture of every set (name -> report) to `folder`; return the paths, index.html first.

    Each set has its own subfolder. Every file is replaced in one step, the page last.
    Raises MissingExtraError without matplotlib, before anything is written; AssetError if a file cannot be written.
    """
    check_matplotlib()
    written: list[Path] = []
    page = [_HEAD]
    for name, report in reports.items():
        page.append(f"<h1>{escape(plain(name))}</h1>")
        for picture in (make(report) for make in PICTURES):
            svg, png = render(picture)
            base = f"{file_name(name)}/{picture.name}"
            for kind, blob in (("svg", svg), ("png", png), ("json", _numbers(name, picture))):
                written.append(folder / f"{base}.{kind}")
                write_atomically(written[-1], blob)
            page.append(f"<h2>{escape(picture.title)}</h2>")
            image = f'<img src="{escape(base)}.svg" alt="{escape(picture.headline)}">'
            page.append(f"{image}<p>{escape(picture.caption)}</p>")
    index = folder / "index.html"
    write_atomically(index, "\n".join([*page, "</body></html>\n"]).encode("utf-8"))
    return (index, *written)


def _numbers(name: str, picture: Picture) -> bytes:
    words = {"set": name, "picture": picture.name, "headline": picture.headline, "caption": picture.caption}
    body = {**words, "rows": picture.rows}
    return (json.dumps(body, indent=1, allow_nan=False) + "\n").encode("ascii")
