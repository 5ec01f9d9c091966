"""What the documents say holds: links lead somewhere, commands and options exist, examples run and print what is shown."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from repository import ROOT, fences

PACKAGE = ROOT / "scope_edge"
README = ROOT / "README.md"
DOCUMENTS = sorted(path for folder in ("", "docs", "models", "anchors") for path in (ROOT / folder).glob("*.md"))
PROGRAM = "scope-edge"


def commands(path: Path) -> Iterator[list[str]]:
    """Every call of scope-edge in a document, as its arguments: in console blocks, indented blocks and `inline code`.

    Examples are left out: they are run, and some show what a typing error prints.
    """
    blocks = [fence for fence in fences(path) if fence.language == "console" and fence.before != "<!-- example -->"]
    lines = [line for fence in blocks for line in fence.text.splitlines()]
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    lines += [line for line in text.splitlines() if line.startswith(f"    {PROGRAM} ")]
    lines += [code for code in re.findall(r"`([^`\n]+)`", text) if code.startswith(f"{PROGRAM} ")]
    for line in lines:
        for part in re.split(r"&&|\||;", re.sub(r"\s+#\s.*", "", line)):
            words = shlex.split(part.split(">")[0].removeprefix("$ "))
            if words and words[0].split("/")[-1] == PROGRAM:
                yield words[1:]


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


@pytest.mark.parametrize("path", DOCUMENTS, ids=names(DOCUMENTS))
def test_links_lead_to_something(path: Path) -> None:
    text = path.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            file, _, part = target.partition("#")
            found = (path.parent / file).resolve() if file else path
            assert found.exists(), f"{path.name} links to {target}, which is not there"
            if part:
                headings = re.findall(r"^#+ (.+)$", found.read_text("utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
                assert part in anchors, f"{path.name} links to {target}; there is no such heading"


@pytest.mark.parametrize("path", DOCUMENTS, ids=names(DOCUMENTS))
def test_commands_and_options_exist(path: Path) -> None:
    from scope_edge.cli.group import root

    for words in commands(path):
        command: click.Command = root
        context = click.Context(root)
        while words and isinstance(command, click.Group):
            found = command.get_command(context, words[0])
            if found is None:
                assert words[0].startswith("-") or words[0].isupper(), (
                    f"{path.name}: {PROGRAM} {words[0]} does not exist"
                )
                break
            command, words = found, words[1:]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            if word.startswith("-") and word != "-":
                option = word.split("=")[0]
                assert option in known | {"--help", "-h"}, f"{path.name}: {PROGRAM} {command.name} has no {option}"


def test_documents_with_commands_are_seen() -> None:
    assert sum(1 for path in DOCUMENTS for _ in commands(path)) > 10


def test_the_readme_has_two_set_up_commands_of_one_line() -> None:
    marked = {fence.before: fence.text for fence in fences(README) if fence.before.startswith("<!-- setup:")}
    assert list(marked) == ["<!-- setup: use -->", "<!-- setup: test -->"], ".ci/run runs exactly these two"
    for command in marked.values():
        assert len(command.splitlines()) == 1
    assert f"{PROGRAM} route " in marked["<!-- setup: use -->"]
    assert "pytest" in marked["<!-- setup: test -->"]


def test_the_tour_has_one_row_a_room() -> None:
    tour = README.read_text("utf-8").split("## A tour")[1].split("\n## ")[0]
    assert len(re.findall(r"^\| \[", tour, re.MULTILINE)) <= 20
    listed = re.findall(r"\]\((scope_edge/\w+/)\)", tour)
    rooms = {f"scope_edge/{path.relative_to(PACKAGE).parts[0]}/" for path in PACKAGE.glob("*/**/*.py")}
    assert len(listed) == len(set(listed))
    assert set(listed) == rooms


def test_the_places_that_contributing_names_exist() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## Where do I find")[1].split("\n## ")[0]
    rows = re.findall(r"^\| .+? \| (.+) \|$", table, re.MULTILINE)[1:]
    assert len(rows) > 30
    for row in rows:
        folder = ROOT
        for name in re.findall(r"`([\w./-]+(?:/|\.\w+))`", row.replace("NAME", "route")):
            found = [one / name for one in (PACKAGE, ROOT, folder) if (one / name).exists()]
            assert found, f"CONTRIBUTING.md names {name}, which is not there"
            folder = found[0] if found[0].is_dir() else found[0].parent


SCRIPT = runpy.run_path(str(ROOT / "build_scripts" / "readme_example.py"))
EXAMPLES = [
    (page.name, *found.group(2, 3))
    for page in SCRIPT["PAGES"]
    for found in SCRIPT["EXAMPLE"].finditer(page.read_text("utf-8"))
]


@pytest.mark.parametrize(("page", "command", "shown"), EXAMPLES)
def test_an_example_prints_what_it_shows(page: str, command: str, shown: str) -> None:
    printed = SCRIPT["printed"](command)
    assert _without_numbers(printed) == _without_numbers(shown), f"{page}: run `python build_scripts/readme_example.py`"


def _without_numbers(text: str) -> str:
    """Processors round differently, so the last digits of a figure may differ from machine to machine."""
    return re.sub(r"[ ]+", " ", re.sub(r"\d[\d,.]*", "#", text)).strip()


@pytest.mark.parametrize("path", DOCUMENTS, ids=names(DOCUMENTS))
def test_python_examples_run(path: Path, tmp_path: Path) -> None:
    for fence in fences(path):
        if fence.language == "python":
            done = subprocess.run(
                [sys.executable, "-c", fence.text], capture_output=True, text=True, check=False, cwd=ROOT
            )
            assert done.returncode == 0, f"{path.name}:\n{fence.text}\n{done.stderr}"
