"""How often does a second sample expose a wrong answer, and how often does it cast doubt on a right one?

    python build_scripts/measure_verify.py --data ROUTING_DATA/reasoning_gym --write docs/ask.md

Sets that asked every model three times record the mean: a third is one right answer of three. Of two samples drawn from these
three, in either order: where the first is wrong and the second right, they differ, and the first is exposed; two that are both
wrong may differ too, which outcomes do not tell, so that "exposed" is what is found at least. Where the first is right and the
second wrong it is doubted for nothing, which is exact. What graders of answers would miss or invent is in neither.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from figures import write_figures

from scope_edge.fingerprinting.importing.routing_data import read_outcomes

SAMPLES = 3
_TITLES = ("model", "questions", "right", "wrong, exposed at least", "right, doubted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder in the routing data format")
    parser.add_argument(
        "--write", type=Path, help="put the table between the <!-- figures: verify --> marks of this file"
    )
    options = parser.parse_args()
    found: dict[str, list[float]] = defaultdict(list)
    for one in read_outcomes(options.data, lambda model, where: model):
        if one.correct is not None:
            found[one.model].append(one.correct * SAMPLES)
    text = table(found)
    print(text)
    if options.write:
        write_figures(options.write, text, "verify")


def table(found: dict[str, list[float]]) -> str:
    """A row a model that was asked three times, the most accurate first."""
    rows = []
    for model, given in found.items():
        right = np.array(given)
        whole = np.round(right)
        if np.abs(right - whole).max() > 0.01 or not np.isin(whole, (1, 2)).any():
            continue  # it was not asked three times
        rows.append((model, len(whole), *shares(whole)))
    rows.sort(key=lambda row: -row[2])
    lines = [f"| {' | '.join(_TITLES)} |", "|---|" + "---:|" * (len(_TITLES) - 1)]
    for model, count, *values in rows:
        lines.append(f"| {model} | {count:,} | " + " | ".join(f"{100 * value:.1f} %" for value in values) + " |")
    return "\n".join(lines)


def shares(right: np.ndarray) -> tuple[float, float, float]:
    """right: (n,) right answers among the samples of each question. (right, exposed of the wrong, doubted of the right)."""
    first_right = right / SAMPLES
    differ = right * (SAMPLES - right) / (SAMPLES * (SAMPLES - 1))  # right then wrong; wrong then right is as likely
    return first_right.mean(), differ.sum() / (1 - first_right).sum(), differ.sum() / first_right.sum()


if __name__ == "__main__":
    main()
