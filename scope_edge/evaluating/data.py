"""Which folders are evaluated: sets of labelled queries, and folders that hold further ones back for scoring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scope_edge.errors import UsageError
from scope_edge.labelled import QUERIES, is_labelled
from scope_edge.learning.pooled import Source


def sources_of(data: Sequence[Path], test: Sequence[Path] = ()) -> tuple[Source, ...]:
    """The sets in these folders. A folder is a set, or holds sets as folders; `test` ones add to the set of their name.

    One `test` set beside one `data` set belongs to it whatever it is called. Raises UsageError for a folder without
    labelled queries, a name that stands for two sets, or a test set that belongs to none.
    """
    known, tests = _sets(data), _sets(test)
    if len(known) == len(tests) == 1:
        tests = dict(zip(known, tests.values(), strict=True))
    stranger = next((name for name in tests if name not in known), None)
    if stranger is not None:
        raise UsageError(f"{tests[stranger]}: belongs to none of the sets {', '.join(known)}; rename the folder")
    return tuple(Source(name, (path, *([tests[name]] if name in tests else []))) for name, path in known.items())


def _sets(folders: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        inside = [folder] if is_labelled(folder) else sorted(path.parent for path in folder.glob(f"*/{QUERIES}"))
        if not inside:
            raise UsageError(f"{folder}: no labelled queries there (no {QUERIES}); docs/evaluation.md shows the format")
        for one in inside:
            name = one.resolve().name
            if name in found:
                raise UsageError(f"{one}: there is another set {name!r} ({found[name]}); rename one of the folders")
            found[name] = one
    return found
