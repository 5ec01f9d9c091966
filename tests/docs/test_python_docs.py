"""The examples of docs/python.md, run as they are written, by a user with one model that a server on this machine answers for."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from chat_server import Said, serving
from repository import DOCS

pytest.importorskip("httpx")
PAGE = DOCS / "python.md"
TEXT = "Because air scatters short waves more."


def test_the_examples_print_what_they_show(own_folders: Path) -> None:
    with serving(lambda *_: Said(TEXT, 40, 8)) as server:
        own = f'[models."gemma-3-4b-it"]\nendpoint = "{server.address}"\nwhere = "device"\n'
        (own_folders / "config.toml").write_text(own)
        result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8", verbose=False)
    assert result.attempted > 10 and result.failed == 0
