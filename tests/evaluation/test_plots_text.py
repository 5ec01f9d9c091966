"""The terminal's version of an evaluation: it fits, says what is known, and needs no matplotlib."""

from __future__ import annotations

import subprocess
import sys

import pytest
import report_cases
from repository import ROOT

from scope_edge.evaluation.plots.text import ASCII, text_lines
from scope_edge.evaluation.report import EvaluationReport

REPORTS = {
    "usual": report_cases.report(),
    "nothing": report_cases.empty_report(),
    "nothing known": report_cases.unpriced_report(),
    "one model": report_cases.one_model_report(),
    "sixty models": report_cases.many_models_report(),
    "hostile": report_cases.renamed(["\u6a21" * 60, "\x1b[31mred\u202e", "a\nb", "x" * 300]),
}


@pytest.mark.parametrize("width", [50, 80, 132])
@pytest.mark.parametrize("report", REPORTS.values(), ids=list(REPORTS))
def test_it_fits_the_terminal(report: EvaluationReport, width: int) -> None:
    for line in text_lines(report, width):
        assert len(line) <= width, line
        assert line.isprintable(), "a name could steer the terminal, or break the line"


@pytest.mark.parametrize("report", REPORTS.values(), ids=list(REPORTS))
def test_a_terminal_without_unicode_gets_ascii(report: EvaluationReport) -> None:
    assert all(line.isascii() for line in text_lines(report, marks=ASCII))


def test_models_are_found_on_the_curve_and_in_the_key() -> None:
    lines = text_lines(REPORTS["usual"])
    sheet = [line[8:] for line in lines if line[7:8] == "\u2502"]
    for letter, model in zip("abcdefgh", report_cases.BY_COST, strict=True):
        assert sum(letter in row for row in sheet) == 1, f"{model} is not on the curve"
        right, _ = report_cases.POOL[model]
        assert any(line.startswith(f"{letter} ") and model in line and f"{100 * right:.1f}%" in line for line in lines)
    row = {letter: next(i for i, line in enumerate(sheet) if letter in line) for letter in "abcdefgh"}
    assert row["a"] > row["e"] > row["b"] > row["c"] > row["d"] > row["f"], "the more accurate is not higher up"
    column = {letter: next(line.index(letter) for line in sheet if letter in line) for letter in "abcdefgh"}
    assert (
        column["a"] == column["b"] == column["c"] < column["d"] < column["e"] < column["f"] < column["g"] < column["h"]
    )


def test_an_unknown_cost_is_not_free() -> None:
    lines = text_lines(REPORTS["nothing known"])
    assert not any("free" in line for line in lines)
    assert any("not known" in line for line in lines)


def test_text_needs_no_matplotlib() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; sys.path.insert(0, sys.argv[1]); import report_cases\n"
        "from scope_edge.evaluation.plots.text import text_lines; print(len(text_lines(report_cases.report())))"
    )
    here = str(ROOT / "tests" / "support")
    done = subprocess.run([sys.executable, "-c", code, here], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
