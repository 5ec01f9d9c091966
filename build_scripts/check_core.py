"""Check every key of core-250 a second time: computed anew where it can be, else by a second reason given in the source.

    python build_scripts/check_core.py

The source's expressions are ours and are evaluated by Python; nothing a model wrote ever comes here.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import ipaddress
import itertools
import json
import math
import re
import sys
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from check_fresh import CHECKS

from scope_edge.estimation.anchor_spec import LETTERS, AnchorSpec, spec_from_body
from scope_edge.fingerprinting.fresh import TEMPLATES, drafted
from scope_edge.fingerprinting.grading.grade import grade
from scope_edge.fingerprinting.grading.numbers import near, plain_number, read_number

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SOURCE = Path(__file__).resolve().parent.parent / "anchors" / "core-250.toml"
_ASIDE = ("tempting", "compute", "check", "fix", "probe", "want")
# How far an option may be from the computed value, and how near no other one may come.
_ROUNDED = 0.012


@dataclass(frozen=True, slots=True)
class Written:
    """One anchor of the source: what is asked, what tempts, and by what its key is checked (`aside`)."""

    spec: AnchorSpec
    tempting: tuple[str, ...]
    aside: dict[str, Any]


class CheckError(Exception):
    """A key that its check does not bear out."""


def read_source(path: Path = SOURCE) -> list[Written]:
    """The anchors written one by one. Raises PackError when one cannot be graded, CheckError without a check."""
    found = []
    for row in tomllib.loads(path.read_text("utf-8"))["anchor"]:
        aside = {name: row.pop(name) for name in _ASIDE if name in row}
        tempting = tuple(aside.pop("tempting", ()))
        if row["kind"] == "short":
            row["tempting"] = tempting
        spec = spec_from_body(row, path.name)
        if spec.kind != "output" and not {"compute", "check", "fix"} & set(aside):
            raise CheckError(f"{spec.id}: its key has no check")
        found.append(Written(spec, tempting, aside))
    return found


def verify(written: Written) -> str:
    """How the key was checked: "computed" or "reasoned". Raises CheckError."""
    spec, aside = written.spec, written.aside
    if grade(spec, f"Answer: {spec.key}" if spec.kind in ("choice", "short", "number", "line") else spec.key) != 1.0:
        raise CheckError(f"{spec.id}: the key {spec.key!r} does not pass its own grader")
    if spec.kind == "line":
        _check_line(spec, aside)
    elif spec.kind == "output":
        _agree(spec, printed(spec.question))
    elif "compute" in aside:
        _agree(spec, eval(aside["compute"], dict(_NAMES)))
    else:
        return "reasoned"
    return "computed"


def verify_fresh(id: str, seed: int) -> None:
    """Check the key of a template's instance by its verifier, which knows only what was drawn. Raises CheckError."""
    spec, draft = drafted(id, seed)
    _agree(spec, printed(spec.question) if spec.kind == "output" else CHECKS[id](draft.facts))


def printed(question: str) -> str:
    """What the program in one of our own questions prints."""
    found = re.search(r"```python\n(.*?)\n```", question, re.DOTALL)
    if found is None:
        raise CheckError(f"no program in {question[:60]!r}")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(found.group(1), {})
    return out.getvalue().rstrip("\n")


def _agree(spec: AnchorSpec, value: Any) -> None:
    """Raise CheckError unless a computed value is the key."""
    if spec.kind == "number":
        right = near(_exact(value), plain_number(spec.key), spec.relative, spec.absolute)
    elif spec.kind == "choice":
        right = _options(spec, value) == [spec.key]
    elif spec.kind == "json":
        right = json.loads(spec.key) == json.loads(json.dumps(value, default=float))
    else:
        right = value == spec.key
    if not right:
        raise CheckError(f"{spec.id}: the key is {spec.key!r}, computed anew {value!r}")


def _options(spec: AnchorSpec, value: Any) -> list[str]:
    """The letters of the options that a computed value bears out."""
    lettered = list(zip(LETTERS, spec.options, strict=False))
    if isinstance(value, str):
        return [letter for letter, option in lettered if option == value]
    numbers = [(letter, read_number(option.replace("%", ""), {})) for letter, option in lettered]
    return [letter for letter, one in numbers if one is not None and near(one, _exact(value), _ROUNDED, 0)]


def _exact(value: Any) -> Fraction:
    return value if isinstance(value, Fraction) else Fraction(str(value))


def _check_line(spec: AnchorSpec, aside: dict[str, Any]) -> None:
    """With the faulty line mended the probe comes out right; as the question has it, it does not."""
    block = re.search(r"```\n(.*?)\n```", spec.question, re.DOTALL)
    lines = block.group(1).split("\n") if block else []
    width = lines[0].index("def") if lines else 0
    if [line[:width].strip() for line in lines] != [str(i) for i in range(1, len(lines) + 1)]:
        raise CheckError(f"{spec.id}: its lines are not numbered from 1")
    code = [line[width:] for line in lines]
    mended = [*code]
    mended[int(spec.key) - 1] = aside["fix"]
    for lines, wanted in ((code, False), (mended, True)):
        names: dict[str, Any] = {}
        exec("\n".join(lines), names)
        found = json.loads(json.dumps(eval(aside["probe"], names)))
        if (found == aside["want"]) is not wanted:
            raise CheckError(f"{spec.id}: its probe gives {found!r} {'with' if wanted else 'without'} the mended line")


def shortest(edges: dict[str, int], start: str) -> dict[str, int]:
    """Lengths of the shortest paths from a node over undirected edges, by trying until nothing improves."""
    nodes = sorted({node for edge in edges for node in edge})
    lengths: dict[str, int] = {node: 0 if node == start else 10**9 for node in nodes}
    for _ in nodes:
        for (a, b), length in edges.items():
            lengths[a] = min(lengths[a], lengths[b] + length)
            lengths[b] = min(lengths[b], lengths[a] + length)
    return lengths


def serialisable(schedule: str) -> bool:
    """Whether a schedule such as "r1(x) w2(x)" of two transactions is conflict-serialisable."""
    steps = [(step[0], step[1], step[3]) for step in schedule.split()]
    before = {
        (a[1], b[1])
        for a, b in itertools.combinations(steps, 2)
        if a[1] != b[1] and a[2] == b[2] and "w" in (a[0], b[0])
    }
    return not any((b, a) in before for a, b in before)


_NAMES = {
    "Fraction": Fraction,
    "date": datetime.date,
    "datetime": datetime.datetime,
    "functools": functools,
    "ipaddress": ipaddress,
    "itertools": itertools,
    "math": math,
    "re": re,
    "serialisable": serialisable,
    "shortest": shortest,
    "timedelta": datetime.timedelta,
}


def main() -> None:
    written = read_source()
    how = Counter()
    faults = []
    for one in written:
        try:
            how[verify(one)] += 1
        except (
            CheckError,
            ArithmeticError,
            LookupError,
            NameError,
            SyntaxError,
            TypeError,
            ValueError,
            StopIteration,
        ) as error:
            faults.append(f"{one.spec.id}: {error!r}")
    for id in TEMPLATES:
        try:
            verify_fresh(id, 0)
            how["computed"] += 1
        except (CheckError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            faults.append(f"{id}: {error!r}")
    print(f"{len(written) + len(TEMPLATES)} keys: " + ", ".join(f"{n} {word}" for word, n in sorted(how.items())))
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
