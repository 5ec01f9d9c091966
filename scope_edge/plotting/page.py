"""index.html: all pictures of an evaluation on one page that needs nothing else, in the reader's light or dark."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

from scope_edge.evaluating.report import Report
from scope_edge.plotting.names import plain
from scope_edge.plotting.palette import BLUE, GRID, INK, MUTED, PAPER, SOFT
from scope_edge.plotting.picture import Picture, Row

# Longer tables are in the files only.
_MOST_ROWS = 250
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper", SOFT: "--soft", BLUE: "--blue"}
_CSS = """
:root { color-scheme: light dark; --ink: #1c1d22; --muted: #62656e; --grid: #dfe1e6; --paper: #fefefe; --soft: #eef0f4; --link: #00598c;
  --blue: #0072b2 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e9ed; --muted: #a2a6b1; --grid: #363a44; --paper: #16181d; --soft: #23262e; --link: #7cc4f2;
    --blue: #3d9ddb }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.7rem; margin: 0 0 .25rem } h2 { font-size: 1.35rem; margin: 3rem 0 .5rem; padding-top: 1rem;
  border-top: 2px solid var(--grid) }
h3 { font-size: 1.1rem; margin: 2.2rem 0 .6rem }
a { color: var(--link) } nav a { display: inline-block; margin-right: 1rem; padding: .2rem 0 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .6rem 0; font-size: .93rem }
dt { color: var(--muted) } dd { margin: 0 }
figure { margin: 0 } figure svg { display: block; width: 100%; height: auto; max-width: var(--wide);
  min-width: min(var(--wide), 38rem) }
.scroll { overflow-x: auto } figcaption, details { color: var(--muted); font-size: .93rem; margin-top: .5rem }
figcaption { max-width: 50rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .1rem .7rem .1rem 0; text-align: left; white-space: nowrap }
th { border-bottom: 1px solid var(--grid) }
"""


def page(reports: Mapping[str, tuple[Report, str, Sequence[tuple[Picture, str]]]]) -> str:
    """The page of these sets: name -> its report, its folder beside the page, and its pictures with their SVG."""
    parts = ["<h1>What routing is worth</h1>", "<p>Replayed on labelled queries that nothing was fitted on.</p>"]
    if len(reports) > 1:
        links = (f'<a href="#s{i}">{_text(name)}</a>' for i, name in enumerate(reports))
        parts.append(f'<nav aria-label="sets">{" ".join(links)}</nav>')
    for i, (name, (report, folder, drawn)) in enumerate(reports.items()):
        parts += [f'<section id="s{i}"><h2>{_text(name)}</h2>', _about(report)]
        parts += [_figure(f"s{i}-{picture.name}", folder, picture, svg) for picture, svg in drawn]
        parts.append("</section>")
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        "<title>scope-edge eval</title>"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_CSS}</style></head><body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _about(report: Report) -> str:
    """What was measured, and what was not."""
    seen = sum(kind == "seen" for kind in report.models.values())
    facts = {
        "data": report.data + (f", scored on {report.test}" if report.test else ""),
        "split": report.split,
        "seeds": ", ".join(map(str, report.seeds)),
        "scored": f"{report.queries:,} queries over all seeds; {report.common:,} that every model of the pool ran",
        "models": f"{len(report.models)}, of which {len(report.models) - seen} taught nothing and are known by at most {report.anchors}"
        " anchors",
        "pool": ", ".join(report.pool) or "none",
        "left out": "; ".join(f"{model}: {why}" for model, why in report.left_out.items()),
        "warnings": "; ".join(report.warnings),
    }
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{_text(told)}</dd>" for name, told in facts.items() if told) + "</dl>"


def _figure(key: str, folder: str, picture: Picture, svg: str) -> str:
    files = ", ".join(
        f'<a href="{escape(folder)}/{picture.name}.{kind}">{kind.upper()}</a>' for kind in ("svg", "png", "json")
    )
    wide = f"{picture.size[0] * 6.4:.0f}rem"
    return (
        f'<h3 id="{key}">{_text(picture.title)}</h3><figure style="--wide: {wide}"><div class="scroll">{inlined(svg, key, picture)}</div>'
        f"<figcaption>{_text(picture.caption)} Files: {files}.</figcaption></figure>{_table(picture.rows)}"
    )


def inlined(svg: str, key: str, picture: Picture) -> str:
    """An SVG as part of a page: without its prologue, its ids made its own, its ink and paper the page's."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="', f'id="{key}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    # The names drawn are outlines; the comments that repeat them as text say nothing to a reader.
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    label = escape(f"{picture.title}. {picture.headline}")
    return body.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()


def _table(rows: Sequence[Row]) -> str:
    rows = [row for row in rows if row]
    if not rows or len(rows) > _MOST_ROWS:
        return ""
    columns = [
        column
        for column in dict.fromkeys(key for row in rows for key in row)
        if not isinstance(rows[0].get(column), Mapping)
    ]
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(row.get(column))}</td>" for column in columns) + "</tr>" for row in rows
    )
    return f'<details><summary>The numbers</summary><div class="scroll"><table><tr>{head}</tr>{body}</table></div></details>'


def _cell(value: object) -> str:
    if value is None:
        return "?"
    return f"{value:.4g}" if isinstance(value, float) else _text(str(value))


def _text(text: str) -> str:
    """Text of unknown origin, fit for a page."""
    return escape(plain(text))
