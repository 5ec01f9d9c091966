"""What is known of public sets: the domain each belongs to, the tasks its categories stand for, and grades to leave out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scope_edge.estimation.tasks import TASKS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TABLE = Path(__file__).resolve().parent / "known_sets.toml"


@dataclass(frozen=True, slots=True)
class KnownSets:
    """domain: set -> domain. task: category -> index in TASKS. left_out: sets whose grades say nothing about being right."""

    domain: Mapping[str, str]
    task: Mapping[str, int]
    left_out: frozenset[str]


@cache
def known_sets() -> KnownSets:
    """Read the table, known_sets.toml."""
    table = tomllib.loads(_TABLE.read_text("utf-8"))
    return KnownSets(
        domain={name: domain for domain, names in table["domains"].items() for name in names},
        task={category: TASKS.index(task) for task, names in table["tasks"].items() for category in names},
        left_out=frozenset(table["grades"]["left_out"]),
    )
