"""The repository's folders, and what its documents say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@dataclass(frozen=True)
class Fence:
    """A fenced block: its language, its text, and the last line before it that is not blank."""

    language: str
    text: str
    before: str


def fences(path: Path) -> Iterator[Fence]:
    before, lines = "", iter(path.read_text("utf-8").splitlines())
    for line in lines:
        if line.startswith("```"):
            body = []
            for inside in lines:
                if inside.startswith("```"):
                    break
                body.append(inside)
            yield Fence(line[3:].strip(), "\n".join(body), before)
        elif line.strip():
            before = line.strip()


def documented(section: str) -> list[str]:
    """The keys of a table, in order; several may share a row."""
    rows = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
    return [key for row in rows for key in re.findall(r"`(\w+)`", row)]
