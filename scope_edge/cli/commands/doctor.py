"""`scope-edge doctor`: show what is installed, what is damaged and what works."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import click

from scope_edge.cli.format import facts, grid
from scope_edge.cli.options import json_option
from scope_edge.cli.output import one_line, out, out_json

if TYPE_CHECKING:
    from scope_edge.cli.diagnosis import Check, Diagnosis

_EPILOG = """\b
Examples:
  scope-edge doctor
  scope-edge doctor --json

\b
Exit codes:
  0 routing works   2 a setting is invalid   5 a bundled file is missing or damaged
"""


@click.command("doctor", epilog=_EPILOG)
@json_option
@click.pass_context
def command(context: click.Context, /, as_json: bool) -> None:
    """Show what is installed, how it was built, what is damaged and what works.

    Every bundled file is checked against its hash, llama.cpp is started in its own process, and a test query is routed.
    """
    from scope_edge.cli.diagnosis import examine

    report = examine()
    if as_json:
        out_json(report.as_dict())
    else:
        out("\n".join(_lines(report)))
    context.exit(report.exit_code)


def _lines(report: Diagnosis) -> Iterator[str]:
    yield from _section("versions", {name: version or "not installed" for name, version in report.versions.items()})
    # llama.cpp writes "AVX = 1 | AVX2 = 1 |", which is too long for a line.
    built_with = {name: text.replace(" = 1", "").replace(" |", "") for name, text in report.built_with.items()}
    yield from _section("built with", built_with)
    yield click.style("gpu", bold=True)
    yield f"  {one_line(report.gpu.found)}"
    if report.gpu.problem:
        yield f"  {one_line(report.gpu.problem)}"
    for gpu in report.gpus:
        memory = "" if gpu.memory_gb is None else f", {gpu.memory_gb:.0f} GB"
        yield f"  {one_line(gpu.name)}{memory}, found by {gpu.found_by}"
    yield from _checks("bundled files", report.assets)
    yield from _checks("paths", report.paths)
    changed = {
        key: f"{value} (from {origin})" for key, (value, origin) in report.settings.items() if origin != "default"
    }
    yield from _section("settings", changed or {"all": "at their defaults"} if report.settings else {})
    yield from _section("active pool", report.pool)
    if report.estimators:
        yield from _checks("estimators", report.estimators)
    yield from _checks("routing", [report.routing])
    yield from _list("offline", report.offline)
    yield from _list("degraded", report.degraded)


def _section(title: str, values: Mapping[str, str]) -> Iterator[str]:
    if values:
        yield click.style(title, bold=True)
        yield from facts({name: one_line(value) for name, value in values.items()})


def _checks(title: str, checks: Iterable[Check]) -> Iterator[str]:
    yield click.style(title, bold=True)
    rows = list(checks)
    lines = grid(
        ("", "", ""), [("  ok" if row.problem is None else "  !!", row.name, one_line(row.found)) for row in rows]
    )
    for row, line in zip(rows, lines[1:], strict=True):
        yield line if row.problem is None else click.style(line, fg="red")
        if row.problem is not None:
            yield f"      {one_line(row.problem)}"


def _list(title: str, texts: Iterable[str]) -> Iterator[str]:
    lines = [f"  {one_line(text)}" for text in texts]
    if lines:
        yield click.style(title, bold=True)
        yield from lines
