"""Pictures of an evaluation: every one is there, shows the report's numbers, and stands whatever the report lacks."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import pytest
import report_cases

from scope_edge.errors import AssetError, MissingExtraError
from scope_edge.evaluation.plots.write import PICTURES, write_pictures
from scope_edge.evaluation.report import EvaluationReport

pytestmark = pytest.mark.usefixtures("short_live")

pytest.importorskip("matplotlib")

NAMES = {make(report_cases.report()).name for make in PICTURES}
HOSTILE = (
    "<script>alert(1)</script>",
    "$\\frac{1}{0}$_^{",
    '"><img/src=x>--&amp;',
    "]]>-->" + "very-long-" * 20,
    "\u6a21\u578b\u202e\u0007-x",
)


class Page(HTMLParser):
    """What a browser would load or run, and what it would show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.shown += data


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures({"zeroeval": report_cases.report()}, folder)
    return folder


def numbers(folder: Path, name: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads((folder / f"{name}.json").read_text("utf-8"))["rows"]
    return rows


def test_every_picture_is_written_as_svg_png_and_numbers(tmp_path: Path) -> None:
    paths = write_pictures({"zeroeval": report_cases.report()}, tmp_path / "new" / "folder")
    assert paths[0] == tmp_path / "new" / "folder" / "index.html"
    assert {path.name for path in paths[1:]} == {f"{name}.{kind}" for name in NAMES for kind in ("svg", "png", "json")}
    assert {path for path in (tmp_path / "new").rglob("*") if path.is_file()} == set(paths), "something was left behind"
    for path in paths:
        if path.suffix == ".svg":
            assert ET.fromstring(path.read_bytes()).tag.endswith("svg")
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")


def test_the_numbers_are_the_reports(written: Path) -> None:
    report = report_cases.report()
    parts = {
        "accuracy-cost": (*report.routing, *report.singles),
        "reliability": report.reliability,
        "adaptation": report.adaptation,
    }
    for name, records in parts.items():
        assert numbers(written / "zeroeval", name) == [asdict(one) for one in records], name
    shares = {(row["alpha"], row["model"]): row["share"] for row in numbers(written / "zeroeval", "portfolio")}
    ours = [point for point in report.routing if point.router == "scope-edge"]
    assert shares == {(point.alpha, model): share for point in ours for model, share in point.portfolio.items()}


def test_the_page_shows_every_picture_and_needs_nothing_from_elsewhere(written: Path) -> None:
    page = Page((written / "index.html").read_text("utf-8"))
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    shown = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert shown == [f"zeroeval/{make(report_cases.report()).name}.svg" for make in PICTURES]
    assert all((written / path).is_file() for path in shown)
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "href"]


def test_several_sets_share_a_page_and_no_file(tmp_path: Path) -> None:
    paths = write_pictures(
        {"A/b": report_cases.report(), "a-b": report_cases.report(), "../..": report_cases.report()}, tmp_path
    )
    assert len(set(paths)) == len(paths) == 1 + 3 * 3 * len(PICTURES)
    assert all(path.resolve().is_relative_to(tmp_path) for path in paths)
    shown = Page((tmp_path / "index.html").read_text("utf-8")).shown
    assert "A/b" in shown and "a-b" in shown


def test_hostile_names_are_only_names(tmp_path: Path) -> None:
    report = report_cases.renamed(HOSTILE)
    write_pictures({HOSTILE[0]: report}, tmp_path)
    text = (tmp_path / "index.html").read_text("utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert HOSTILE[0] in page.shown
    assert all(
        value.startswith("script-alert") for tag, name, value in page.attributes if (tag, name) == ("img", "src")
    )
    assert "\u202e" not in text and "\x07" not in text
    for path in tmp_path.rglob("*.svg"):
        assert not [one for one in ET.fromstring(path.read_bytes()).iter() if one.tag.endswith(("script", "image"))]
    folder = next(path for path in tmp_path.iterdir() if path.is_dir())
    assert set(HOSTILE[1:]) <= {row["router"] for row in numbers(folder, "accuracy-cost")}


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(report_cases.empty_report(), id="nothing"),
        pytest.param(report_cases.unpriced_report(), id="nothing known"),
        pytest.param(report_cases.report(adaptation=()), id="no adaptation"),
        pytest.param(report_cases.one_model_report(), id="one model"),
        pytest.param(report_cases.many_models_report(), id="sixty models"),
    ],
)
def test_whatever_is_missing_there_is_a_picture(report: EvaluationReport, tmp_path: Path) -> None:
    paths = write_pictures({"set": report}, tmp_path)
    assert len(paths) == 1 + 3 * len(PICTURES)
    assert "nan" not in (tmp_path / "index.html").read_text("utf-8").lower().split("<svg")[0]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    write_pictures({"set": report_cases.unpriced_report()}, tmp_path)
    told = json.loads((tmp_path / "set" / "accuracy-cost.json").read_text("utf-8"))
    assert told["headline"] == "Nothing to show" and "cost" in told["caption"]
    assert all(row["usd_per_1k"] is None for row in told["rows"]), "an unknown cost became a number"
    shown = Page((tmp_path / "index.html").read_text("utf-8")).shown
    assert told["caption"] in shown


def test_the_same_report_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    for path in write_pictures({"zeroeval": report_cases.report()}, tmp_path):
        assert path.read_bytes() == (written / path.relative_to(tmp_path)).read_bytes(), path.name


def test_settings_of_a_users_own_change_nothing(written: Path, tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30.0, "axes.grid": False, "text.parse_math": True}):
        write_pictures({"zeroeval": report_cases.report()}, tmp_path)
        assert matplotlib.rcParams["font.size"] == 30.0, "the user's own settings were lost"
    name = "zeroeval/accuracy-cost.svg"
    assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'pip install "scope-edge\[plots\]"') as told:
        write_pictures({"set": report_cases.report()}, tmp_path / "out")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(AssetError, match="cannot be written") as told:
        write_pictures({"set": report_cases.report()}, tmp_path / "out")
    assert "\n" not in str(told.value)
    assert (tmp_path / "out").read_text() == "a file"
