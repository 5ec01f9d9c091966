"""Everyday asks: what the file says is read, and what is wrong in it is named by file and line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from scope_edge.errors import AssetError
from scope_edge.estimation.tasks import TASKS
from scope_edge.training.asks import DIFFICULTY, read_asks
from scope_edge.training.known_sets import known_sets

ROOT = Path(__file__).resolve().parents[2]


def test_the_bundled_asks_are_of_every_task_and_of_many_languages() -> None:
    asks = read_asks(ROOT / "anchors" / "everyday.txt")
    assert len(asks) >= 500
    assert {one.task for one in asks} == set(TASKS)
    assert len({one.language for one in asks}) >= 12
    assert Counter(one.level for one in asks)[5] >= 100
    assert len({one.text for one in asks}) == len(asks)


def test_asks_that_measure_are_none_of_those_that_teach() -> None:
    taught = {one.text for one in read_asks(ROOT / "anchors" / "everyday.txt") if len(one.text) > 20}
    measured = {one.text for one in read_asks(ROOT / "benchmarks" / "everyday.txt")}
    assert not taught & measured


def test_harder_levels_are_harder() -> None:
    assert list(DIFFICULTY.values()) == sorted(DIFFICULTY.values())


def test_a_line_is_read_with_its_breaks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# a comment\n\nfact|en|2|30|Which | of these?\\nA or B\n", "utf-8")
    (ask,) = read_asks(tmp_path / "a.txt")
    assert (ask.task, ask.language, ask.level, ask.tokens) == ("fact", "en", 2, 30.0)
    assert ask.text == "Which | of these?\nA or B"


@pytest.mark.parametrize(
    "line",
    [
        "fact|en|2|30",
        "cooking|en|2|30|soup?",
        "fact|en|5|30|soup?",
        "unknowable|en|1|30|soup?",
        "fact|en|2|many|soup?",
        "fact|en|2|30|",
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text(f"fact|en|1|10|fine?\n{line}\n", "utf-8")
    with pytest.raises(AssetError, match=r"a\.txt:2: ") as error:
        read_asks(tmp_path / "a.txt")
    assert "\n" not in str(error.value)


def test_known_sets_name_tasks_that_exist() -> None:
    known = known_sets()
    assert set(np.unique(list(known.task.values()))) <= set(range(len(TASKS)))
    assert known.domain["shaberi_panel"] == known.domain["ifeval_en"] != known.domain["livecodebench"]
