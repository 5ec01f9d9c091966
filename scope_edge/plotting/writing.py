"""All pictures of an evaluation as files: SVG, PNG and numbers, and one page with everything."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from scope_edge.evaluating.report import Report
from scope_edge.files import write_atomically
from scope_edge.fingerprinting.journal import file_name
from scope_edge.plotting.adaptation import adaptation
from scope_edge.plotting.canvas import check_matplotlib, render
from scope_edge.plotting.curve import accuracy_cost
from scope_edge.plotting.evidence import evidence
from scope_edge.plotting.fields import fields
from scope_edge.plotting.lengths import lengths
from scope_edge.plotting.page import page
from scope_edge.plotting.picture import Picture
from scope_edge.plotting.portfolio import portfolio
from scope_edge.plotting.reliability import reliability
from scope_edge.plotting.tuned import tuned

# In the order of the page.
PICTURES: tuple[Callable[[Report], Picture], ...] = (
    accuracy_cost,
    portfolio,
    tuned,
    reliability,
    evidence,
    lengths,
    fields,
    adaptation,
)


def write_pictures(reports: Mapping[str, Report], folder: Path) -> tuple[Path, ...]:
    """Write every picture of every set (name -> report) to `folder`; index.html comes first in what is returned.

    Each set has a folder of its own in it. Every file is replaced in one step, the page last.

    Raises MissingExtraError without matplotlib, before anything is written; AssetError where a file cannot be written.
    """
    check_matplotlib()
    written: list[Path] = []
    shown = {}
    for name, report in reports.items():
        place = file_name(name)
        drawn = []
        for make in PICTURES:
            picture = make(report)
            files = render(picture)
            for kind, blob in (("svg", files.svg), ("png", files.png), ("json", _numbers(name, picture))):
                path = folder / place / f"{picture.name}.{kind}"
                write_atomically(path, blob)
                written.append(path)
            drawn.append((picture, files.svg.decode("utf-8")))
        shown[name] = (report, place, drawn)
    index = folder / "index.html"
    write_atomically(index, page(shown).encode("utf-8"))
    return (index, *written)


def _numbers(name: str, picture: Picture) -> bytes:
    body = {
        "set": name,
        "picture": picture.name,
        "headline": picture.headline,
        "caption": picture.caption,
        "rows": picture.rows,
    }
    return (json.dumps(body, indent=1, allow_nan=False) + "\n").encode("ascii")
